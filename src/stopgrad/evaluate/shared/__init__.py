"""What the evaluation protocols share."""
