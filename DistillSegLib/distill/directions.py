"""Directions of vectors, for terms that compare no lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def direction(vectors: Tensor, *, dim: int, least: float) -> Tensor:
    """Each vector over its length; zero, without a gradient, where that is `least` or shorter.

    The gradient of a direction grows as one over the length. A single voxel whose logits are all
    equal, as they often are in 16 bits, or a feature that has died would otherwise outweigh all
    others, while the loss stays finite.
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    long = length.detach() > least
    return vectors * long / length.where(long, 1)
