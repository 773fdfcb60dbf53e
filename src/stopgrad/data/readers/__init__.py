"""Image files as they are, of any number of channels and any type: a file for each format that Pillow does not read."""
