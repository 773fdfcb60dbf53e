"""What a backbone is worth: accuracies with labels, health without."""
