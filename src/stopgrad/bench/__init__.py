"""What a machine makes of it: the parts and the whole timed beside the machine's own limits, and beside peers."""
