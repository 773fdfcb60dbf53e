"""What kinds of data sets have in common: names, labels, splits, and files that a process opens for itself."""
