"""Kinds of data sets that a path can name, a file each; `open_images` tells them apart (`data/open.py`)."""
