"""U-Net in two or three dimensions, or between them for thick slices, from a list of widths.

Ronneberger et al., 2015, arXiv:1505.04597; Çiçek et al., 2016, arXiv:1606.06650.

One class serves as reference network and, with small widths, as the tiny students and growing
assistants of GTAN: widths (5, 10, 20), one channel and two classes give 34,772 parameters.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from DistillSegLib.networks.blocks import (
    CONV,
    MAX_POOL,
    ConvBlock,
    Upsample,
    check_width,
    fold_depth,
    unfold_depth,
)


class UNet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W); each size a multiple of `multiple`.

    Level i has `width[i]` features at 1/2^i of the size. Down by max-pooling, up by linear
    interpolation, skips by concatenation, a 1x1x1 head.

    Args:
        width: features per level, finest first.
        dims: 3, or 2 for a network that sees one slice at a time (depth joins the batch).
        in_plane: how many levels, finest first, convolve within slices (1x3x3); with 1 or more,
            depth is never pooled, so that a stack may have any number of slices. For thick slices,
            as nnU-Net plans them (Isensee et al., 2021): neighbours count from the level on at
            which a voxel is about as wide as a slice is thick.
        convolutions: 3x3x3 convolutions per block.
        norm: "batch" or "instance".
        dropout: share of features dropped at the end of each block.
        deep_supervision: adds heads `logits/1 …` on the decoder's coarser levels, as taps only.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: tuple[int, ...] = (16, 32, 64, 128),
        *,
        dims: Literal[2, 3] = 3,
        in_plane: int = 0,
        convolutions: int = 2,
        norm: str = "batch",
        dropout: float = 0.0,
        deep_supervision: bool = False,
    ):
        super().__init__()
        check_width(width)
        if not 0 <= in_plane <= len(width) or (in_plane and dims == 2):
            raise ValueError(
                f"in_plane is {in_plane}; use 0 to {len(width)}, and only 0 where dims is 2."
            )
        form = {"dims": dims, "convolutions": convolutions, "norm": norm, "dropout": dropout}
        levels = range(len(width))
        self.dims, self.in_plane = dims, in_plane
        factor = 2 ** (len(width) - 1)
        self.multiple = factor if dims == 3 and not in_plane else (1, factor, factor)

        def block(level: int, inputs: int) -> ConvBlock:
            return ConvBlock(inputs, width[level], **form, in_plane=level < in_plane)

        self.encoder = nn.ModuleList(block(i, (channels, *width)[i]) for i in levels)
        step = (1, 2, 2) if in_plane else 2
        self.pool = MAX_POOL[dims](step)
        self.upsample = Upsample(dims, step)
        self.decoder = nn.ModuleList(block(i, width[i + 1] + width[i]) for i in levels[:-1])
        heads = levels[:-1] if deep_supervision else levels[:1]
        self.heads = nn.ModuleList(CONV[dims](width[i], classes, 1) for i in heads)
        self.taps = (
            {f"encoder/{i}": f"encoder.{i}" for i in levels}
            | {f"decoder/{i}": f"decoder.{i}" for i in levels[:-1]}
            | {f"logits/{i}": f"heads.{i}" for i in heads[1:]}
        )

    def forward(self, image: Tensor) -> Tensor:
        features = fold_depth(image) if self.dims == 2 else image
        skips = []
        for i, block in enumerate(self.encoder):
            features = block(features if i == 0 else self.pool(features))
            skips.append(features)
        for i in reversed(range(len(self.decoder))):
            features = self.decoder[i](torch.cat((self.upsample(features), skips[i]), dim=1))
            if 0 < i < len(self.heads):
                self.heads[i](features)  # seen by a tap, not by the output; export drops it
        logits = self.heads[0](features)
        return unfold_depth(logits, image.shape[0]) if self.dims == 2 else logits
