"""From files to views: sources, decoding, and augmentation on the device."""
