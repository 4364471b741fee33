"""The fast family: U-Nets laid out for what CPUs run quickly, not for few operations.

What inference engines were measured to like decides every line: a patch stem (one strided
convolution carries the image to half resolution before anything else happens), widths in
multiples of 16, plain 3x3x3 convolutions with BatchNorm that folds away on export, skips by
addition, upsampling by repetition after a 1x1x1 reduction, and logits at the stem's resolution,
which the caller interpolates where labels are written.

For thick slices the same in two dimensions, whose convolutions engines run faster still; what a
slice must know of its neighbours comes by depth shift, which costs no multiplication.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from DistillSegLib.networks.blocks import (
    CONV,
    ConvBlock,
    Upsample,
    check_width,
    fold_depth,
    norm_layer,
    repeat,
    unfold_depth,
)
from DistillSegLib.networks.depthshift import DepthShift


class FastUNet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W); each size a multiple of `multiple`.

    `coarse(image)` gives logits (B, K, D/s, H/s, W/s) at stride s = `stem`; `forward` upsamples
    them trilinearly with half-pixel centres, the interpolation that inference applies. With `dims`
    = 2 depth keeps its size, and the network interpolates within the slices by itself: `stride` is
    one number for all axes.

    Args:
        width: features per level, finest first; multiples of 16 fill the processor's vectors.
        stem: edge of the patch that becomes one voxel of the first level; 1 keeps full resolution.
        convolutions: 3x3x3 convolutions per block.
        dims: 3, or 2 for a network that sees one slice at a time (depth joins the batch).
        shift: of two dimensions: all levels but the finest begin with a plain depth shift, so that
            with three levels slice i sees slices i-2 … i+2.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: tuple[int, ...] = (16, 32, 64),
        *,
        stem: int = 2,
        convolutions: int = 1,
        dims: Literal[2, 3] = 3,
        shift: bool = False,
    ):
        super().__init__()
        check_width(width)
        if stem not in (1, 2, 4):
            raise ValueError(f"the stem is {stem}; use 1, 2 or 4.")
        if shift and dims == 3:
            raise ValueError("shift hands features to the next slice; use it with dims = 2.")
        levels = range(len(width))
        form = {"dims": dims, "convolutions": convolutions}
        self.dims = dims
        self.stride = stem if dims == 3 else 1
        factor = stem * 2 ** (len(width) - 1)
        self.multiple = factor if dims == 3 else (1, factor, factor)
        self.stem = _patch_convolution(channels, width[0], stem, dims)
        self.encoder = nn.ModuleList(ConvBlock(width[i], width[i], **form) for i in levels)
        self.down = nn.ModuleList(
            _patch_convolution(width[i], width[i + 1], 2, dims) for i in levels[:-1]
        )
        self.shift = nn.ModuleList(DepthShift(width[i]) for i in levels[1:] if shift)
        self.reduce = nn.ModuleList(
            CONV[dims](width[i + 1], width[i], 1, bias=False) for i in levels[:-1]
        )
        self.decoder = nn.ModuleList(ConvBlock(width[i], width[i], **form) for i in levels[:-1])
        self.head = CONV[dims](width[0], classes, 1)
        self.upsample = nn.Identity()
        if stem > 1:
            self.upsample = Upsample(factor=stem if dims == 3 else (1, stem, stem))
        first = stem.bit_length() - 1  # log2 of the first level's stride
        self.taps = {f"encoder/{first + i}": f"encoder.{i}" for i in levels} | {
            f"decoder/{first + i}": f"decoder.{i}" for i in levels[:-1]
        }

    def coarse(self, image: Tensor) -> Tensor:
        """(B, C, D, H, W) -> logits (B, K, D/s, H/s, W/s); in two dimensions D stays."""
        batch = image.shape[0]
        features, skips = self.stem(fold_depth(image) if self.dims == 2 else image), []
        for i, block in enumerate(self.encoder):
            if i:
                features = self.down[i - 1](features)
            if i and self.shift:
                features = self.shift[i - 1](features, batch)
            features = block(features)
            skips.append(features)
        for i in reversed(range(len(self.decoder))):
            features = self.decoder[i](repeat(self.reduce[i](features)) + skips[i])
        logits = self.head(features)
        return unfold_depth(logits, batch) if self.dims == 2 else logits

    def forward(self, image: Tensor) -> Tensor:
        return self.upsample(self.coarse(image))


def _patch_convolution(inputs: int, outputs: int, size: int, dims: int) -> nn.Sequential:
    """Disjoint patches of `size`³ voxels to one voxel each; a 3x3x3 convolution for size 1."""
    kernel = {"kernel_size": size, "stride": size} if size > 1 else {"kernel_size": 3, "padding": 1}
    return nn.Sequential(
        CONV[dims](inputs, outputs, bias=False, **kernel),
        norm_layer("batch", dims, outputs),
        nn.ReLU(inplace=True),
    )
