"""LCOV-Net and the network it is distilled from.

Zhao et al., "Efficient Multi-Organ Segmentation From 3D Abdominal CT Images With Lightweight
Network and Knowledge Distillation", IEEE TMI 42(9), 2023, doi:10.1109/TMI.2023.3262680.

Differs from the released code in the axes only: there the kernels (1, 1, 3) and (3, 3, 1) meet
arrays in z, y, x order and so act along x and on the z-y plane. The paper's figures count W, H, D:
a three-tap convolution through the slices, then a 3x3 one in plane. Here that is (3, 1, 1) and
(1, 3, 3); the parameter counts are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from DistillSegLib.networks.blocks import Upsample, check_width

THROUGH_PLANE = {"kernel_size": (3, 1, 1), "padding": (1, 0, 0)}
IN_PLANE = {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}


def _layer(inputs: int, outputs: int, *, dropout: float = 0.0, groups: int = 1, **kernel):
    layers = [
        nn.Conv3d(inputs, outputs, groups=groups, **kernel),
        nn.BatchNorm3d(outputs),
        nn.ReLU6(inplace=True),
    ]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))


class LightweightBlock(nn.Module):
    """LACB: a separable convolution whose through-plane half is re-weighted by attention.

        x0 = through(x);   out = in_plane(x0) + attention(x0) * x0

    At the four finer levels (LACB-H) attention is computed at half resolution and upsampled; at the
    bottom (`deepest`, LACB-L) at full resolution, with a depth-wise in-plane convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, dropout: float, deepest: bool = False):
        super().__init__()
        groups = outputs if deepest else 1
        self.through = _layer(inputs, outputs, **THROUGH_PLANE)
        self.in_plane = _layer(outputs, outputs, dropout=dropout, groups=groups, **IN_PLANE)
        if deepest:
            self.attention = _layer(outputs, outputs, dropout=dropout, kernel_size=1)
        else:
            self.attention = nn.Sequential(
                nn.AvgPool3d(4, stride=2, padding=1),
                nn.Conv3d(outputs, outputs, 1),
                nn.BatchNorm3d(outputs),
                Upsample(),
            )

    def forward(self, features: Tensor) -> Tensor:
        features = self.through(features)
        return self.in_plane(features) + torch.sigmoid(self.attention(features)) * features


class DenseBlock(nn.Sequential):
    """The teacher's block: twice a 3x3x3 convolution, BatchNorm, ReLU, dropout."""

    def __init__(self, inputs: int, outputs: int, *, dropout: float, deepest: bool = False):
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv3d(channels, outputs, 3, padding=1),
                nn.BatchNorm3d(outputs),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            ]
        super().__init__(*layers)


def interpolating_up(inputs: int, outputs: int, dropout: float) -> nn.Module:
    """LCOV-Net's way up: fewer features, then twice the size."""
    return nn.Sequential(_layer(inputs, outputs, dropout=dropout, kernel_size=1), Upsample())


def transposed_up(inputs: int, outputs: int, dropout: float) -> nn.Module:
    """The teacher's way up: a learnt convolution."""
    return nn.Sequential(
        nn.ConvTranspose3d(inputs, outputs, 2, stride=2),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


class LCOVNet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W); each size a multiple of 16 and at least 32.

    Args:
        width: features of the five levels, finest first. The paper's: 32, 64, 128, 256, 256
            (2,785,764 parameters for one channel and 17 classes with the three side heads).
        block: "lightweight" (LCOV-Net), or "dense": the 3-D U-Net it learns from (14,986,660).
        deep_supervision: adds the heads `logits/1 … 3` of the paper, as taps.
    """

    multiple = 16
    minimum = 32  # below, the attention's pooling window exceeds the padded level (a side of 2)

    def __init__(
        self,
        channels: int,
        classes: int,
        width: tuple[int, ...] = (32, 64, 128, 256, 256),
        *,
        block: str = "lightweight",
        dropout: float = 0.2,
        deep_supervision: bool = True,
    ):
        super().__init__()
        check_width(width)
        if len(width) != 5:
            raise ValueError(f"LCOV-Net has five levels, found the widths {list(width)}.")
        if block not in ("lightweight", "dense"):
            raise ValueError(f"block '{block}' is not known; use 'lightweight' or 'dense'.")
        make = LightweightBlock if block == "lightweight" else DenseBlock
        up = interpolating_up if block == "lightweight" else transposed_up
        inputs = (channels, *width[:-1])
        self.encoder = nn.ModuleList(
            make(inputs[i], width[i], dropout=dropout, deepest=i == 4) for i in range(5)
        )
        self.pool = nn.MaxPool3d(2)
        self.up = nn.ModuleList(up(width[i + 1], width[i], dropout) for i in range(4))
        self.decoder = nn.ModuleList(
            make(2 * width[i], width[i], dropout=dropout) for i in range(4)
        )
        heads = range(4) if deep_supervision else range(1)
        self.heads = nn.ModuleList(nn.Conv3d(width[i], classes, 1) for i in heads)
        self.taps = (
            {f"encoder/{i}": f"encoder.{i}" for i in range(5)}
            | {f"decoder/{i}": f"decoder.{i}" for i in range(4)}
            | {f"logits/{i}": f"heads.{i}" for i in heads[1:]}
        )

    def forward(self, image: Tensor) -> Tensor:
        features, skips = image, []
        for i, block in enumerate(self.encoder):
            features = block(features if i == 0 else self.pool(features))
            skips.append(features)
        for i in reversed(range(4)):
            features = self.decoder[i](torch.cat((self.up[i](features), skips[i]), dim=1))
            if 0 < i < len(self.heads):
                self.heads[i](features)  # seen by a tap, not by the output; export drops it
        return self.heads[0](features)
