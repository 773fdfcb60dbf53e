"""Kinds of data sets that a path or a name stands for, a file each; `open_images` tells them apart (`data/open.py`)."""
