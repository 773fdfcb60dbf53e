"""The objective of the paper, as pure functions of tensors."""
