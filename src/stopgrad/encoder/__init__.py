"""A trained backbone in use."""
