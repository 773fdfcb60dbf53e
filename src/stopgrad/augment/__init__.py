"""Random views of whole batches, on the device."""
