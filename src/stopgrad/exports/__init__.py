"""A backbone in the formats of other programs."""
