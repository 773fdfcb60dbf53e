"""What tells one encoder from another."""

import hashlib
from dataclasses import asdict

import torch

from stopgrad.encoder.embed import Encoder


def encoder_digest(encoder: Encoder) -> str:
    """A digest of weights, architecture and preprocessing: equal for encoders that embed alike."""
    architecture = type(encoder.backbone).__name__ if encoder.spec is None else encoder.spec.backbone
    digest = hashlib.sha256(f"{architecture}\0{asdict(encoder.preprocess)}\0".encode())
    for name, weights in sorted(encoder.backbone.state_dict().items()):
        digest.update(f"{name}\0{tuple(weights.shape)}\0{weights.dtype}\0".encode())
        digest.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
