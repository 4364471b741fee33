"""The pieces that networks are made of, and the fold that turns slices into a batch.

Every network maps (B, C, D, H, W) to logits (B, K, D, H, W). A 2-D network folds depth into the
batch on entry and unfolds it before it returns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def fold_depth(volume: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B*D, C, H, W): each slice becomes a sample of its own."""
    return volume.transpose(1, 2).flatten(0, 1)


def unfold_depth(slices: Tensor, batch: int) -> Tensor:
    """(B*D, C, H, W) -> (B, C, D, H, W): undoes `fold_depth` for a batch of `batch` volumes."""
    return slices.unflatten(0, (batch, -1)).transpose(1, 2)


def norm_layer(kind: str, dims: int, channels: int) -> nn.Module:
    """A normalisation with learnt scale and shift: "batch" (folded on export) or "instance"."""
    if (kind, dims) not in NORM:
        raise ValueError(f"norm '{kind}' is not known; use 'batch' or 'instance'.")
    return NORM[kind, dims](channels, affine=True)


def check_width(width: Sequence[int]) -> None:
    """ValueError where no network with skips has these features per level."""
    if len(width) < 2 or min(width) < 1:
        raise ValueError(f"width is {list(width)}; give two numbers or more, each 1 or more.")


class ConvNorm(nn.Sequential):
    """Convolution without bias, normalisation, rectifier.

    Args:
        in_plane: of three dimensions, a kernel of one slice: 1x3x3.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        dims: int = 3,
        stride: int = 1,
        norm: str = "batch",
        in_plane: bool = False,
    ):
        kernel = (1, 3, 3) if in_plane else (3,) * dims
        padding = tuple(size // 2 for size in kernel)
        super().__init__(
            CONV[dims](inputs, outputs, kernel, stride=stride, padding=padding, bias=False),
            norm_layer(norm, dims, outputs),
            nn.ReLU(inplace=True),
        )


class ConvBlock(nn.Sequential):
    """`convolutions` times ConvNorm; the first changes the channels."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        dims: int = 3,
        convolutions: int = 2,
        norm: str = "batch",
        dropout: float = 0.0,
        in_plane: bool = False,
    ):
        layers: list[nn.Module] = []
        form = {"dims": dims, "norm": norm, "in_plane": in_plane}
        for i in range(convolutions):
            layers.append(ConvNorm(inputs if i == 0 else outputs, outputs, **form))
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


class Upsample(nn.Module):
    """Bilinear (2-D) or trilinear (3-D) interpolation, with half-pixel centres.

    Args:
        factor: along every axis, or along (z, y, x).
    """

    def __init__(self, dims: int = 3, factor: int | tuple[int, ...] = 2):
        super().__init__()
        self.mode = "trilinear" if dims == 3 else "bilinear"
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        return functional.interpolate(
            features, scale_factor=self.factor, mode=self.mode, align_corners=False
        )


def repeat(features: Tensor, factor: int = 2) -> Tensor:
    """(B, C, D, H, W) -> (B, C, fD, fH, fW), or without D: each voxel repeated, only moving data.

    The same numbers as nearest-neighbour interpolation, which ONNX Runtime runs about twelve times
    slower than this.
    """
    for axis in range(2, features.ndim):
        stacked = torch.stack((features,) * factor, dim=axis + 1)
        features = stacked.flatten(axis, axis + 1)
    return features
