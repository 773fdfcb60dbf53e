"""The training path: from a config to a trained backbone."""
