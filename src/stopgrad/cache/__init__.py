"""Decoded images on disk and in memory."""
