"""Batches of images, ready for the device."""
