"""Weights of other programs: which network they belong to, and where they come from."""
