"""Nearest neighbours and near-duplicates in a database of images."""
