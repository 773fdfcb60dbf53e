"""Evaluation of a backbone: accuracies with labels, health without."""
