"""Several processes, one device each. The only reader of RANK, WORLD_SIZE and their kind."""
