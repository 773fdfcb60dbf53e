"""Measures of a representation: pure functions from tensors to numbers."""
