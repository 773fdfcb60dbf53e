"""The questions that are studied: arms and comparisons."""
