"""Files of embeddings: written and read."""
