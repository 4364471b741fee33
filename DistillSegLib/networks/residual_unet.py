"""The 3-D network that Distill DSM is measured against: a residual U-Net with group norm.

Maheshwari et al., "Distill DSM", MIDL 2021, PMLR 143: 4,288,208 parameters for 4 channels and 3
outputs. It is the 3-D U-Net of ellisdg/3DUnetCNN, whose blocks are those of Myronenko, "3D MRI
brain tumor segmentation using autoencoder regularization", BrainLes 2018, arXiv:1810.11654.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from DistillSegLib.networks.blocks import Upsample, check_width

GROUPS = 8  # of a norm; where they do not divide the channels, each channel is a group


class ResidualBlock(nn.Module):
    """Twice GroupNorm, ReLU, 3x3x3 convolution, plus the input; no convolution has a bias.

    Where the width changes, a 1x1x1 convolution brings the input to it.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.branch = nn.Sequential(*_half(inputs, outputs), *_half(outputs, outputs))
        self.identity = nn.Identity() if inputs == outputs else _pointwise(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.branch(features) + self.identity(features)


def _half(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.GroupNorm(_groups(inputs), inputs),
        nn.ReLU(),
        nn.Conv3d(inputs, outputs, 3, padding=1, bias=False),
    )


def _groups(channels: int) -> int:
    return channels if channels % GROUPS else GROUPS


def _pointwise(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, 1, bias=False)


class ResidualUNet3D(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W); each size a multiple of 2^(levels - 1).

    Twice that at least where a channel of the coarsest level is a group of its own: of a single
    voxel it would have no deviation.

    Down by strided convolutions, with two residual blocks on each level. Up by one block on each
    level, a 1x1x1 convolution to the finer level's width, and trilinear interpolation; skips by
    concatenation. The head has no bias.

    Args:
        width: features of the levels, finest first.
        blocks: residual blocks on each level of the way down.
        dropout: share of whole feature maps that is dropped after the first block.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: tuple[int, ...] = (8, 16, 32, 64, 128),
        *,
        blocks: int = 2,
        dropout: float = 0.2,
    ):
        super().__init__()
        check_width(width)
        if blocks < 1:
            raise ValueError(f"blocks is {blocks}; use 1 or more.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout:g}; use 0 or more, below 1.")
        levels = range(len(width))
        self.multiple = 2 ** (len(width) - 1)
        coarsest = width[-2:]  # what its first norm sees, and the others
        alone = any(_groups(features) == features for features in coarsest)
        self.minimum = 2 * self.multiple if alone else self.multiple

        def way_down(level: int) -> nn.Sequential:
            inputs = channels if level == 0 else width[level - 1]
            layers = [ResidualBlock(inputs, width[level])]
            if level == 0 and dropout:
                layers.append(nn.Dropout3d(dropout))
            layers += [ResidualBlock(width[level], width[level]) for _ in range(blocks - 1)]
            return nn.Sequential(*layers)

        self.encoder = nn.ModuleList(map(way_down, levels))
        self.down = nn.ModuleList(
            nn.Conv3d(width[i], width[i], 3, stride=2, padding=1, bias=False) for i in levels[:-1]
        )
        joined = [2 * features for features in width[:-1]] + [width[-1]]  # a skip, and as many
        outputs = [width[0], *joined[1:]]
        self.decoder = nn.ModuleList(ResidualBlock(joined[i], outputs[i]) for i in levels)
        self.reduce = nn.ModuleList(_pointwise(outputs[i + 1], width[i]) for i in levels[:-1])
        self.upsample = Upsample()
        self.head = _pointwise(outputs[0], classes)
        self.taps = {f"encoder/{i}": f"encoder.{i}" for i in levels} | {
            f"decoder/{i}": f"decoder.{i}" for i in levels
        }

    def forward(self, image: Tensor) -> Tensor:
        features, skips = image, []
        for i, blocks in enumerate(self.encoder):
            features = blocks(features if i == 0 else self.down[i - 1](features))
            skips.append(features)
        features = self.decoder[-1](features)
        for i in reversed(range(len(self.reduce))):
            up = self.upsample(self.reduce[i](features))
            features = self.decoder[i](torch.cat((skips[i], up), dim=1))
        return self.head(features)
