"""The two networks of unpaired CT and MR segmentation, for one modality each; see `domains.py`.

Dou et al., "Unpaired Multi-modal Segmentation via Knowledge Distillation", IEEE TMI 39(7), 2020,
doi:10.1109/TMI.2019.2963882. As in the released code: convolutions without bias, leaky rectifiers
of slope 0.2, BatchNorm with epsilon 1e-3 and momentum 0.1. With two domains the 2-D network has
39,342,840 parameters and the 3-D one 2,204,565 (one channel, five classes); a further domain adds
20,192 and 2,976.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from DistillSegLib.networks.blocks import fold_depth, unfold_depth

SHUFFLE = 8  # what three poolings took, one rearrangement of channels gives back
IN_PLANE = {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}
CUBE = {"kernel_size": 3, "padding": 1}


def symmetric_pad(slices: Tensor, size: int) -> Tensor:
    """Continue (N, C, H, W) by its mirror image, edge pixels included: c b a | a b c | c b a."""
    for axis in (2, 3):
        length = slices.shape[axis]
        before = [slices.narrow(axis, i, 1) for i in reversed(range(size))]
        after = [slices.narrow(axis, length - 1 - i, 1) for i in range(size)]
        slices = torch.cat((*before, slices, *after), dim=axis)
    return slices


def neighbours(volume: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B, 3C, D, H, W): slice before, slice, slice after; ends are repeated."""
    before = torch.cat((volume[:, :, :1], volume[:, :, :-1]), dim=2)
    after = torch.cat((volume[:, :, 1:], volume[:, :, -1:]), dim=2)
    return torch.cat((before, volume, after), dim=1)


def _activated(channels: int, dims: int) -> list[nn.Module]:
    norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    return [norm(channels, eps=1e-3, momentum=0.1), nn.LeakyReLU(0.2, inplace=True)]


def _layer(inputs: int, outputs: int, dropout: float, dilation: int = 1) -> nn.Sequential:
    """Norm, rectifier, 3x3 convolution, dropout: activated before it convolves."""
    return nn.Sequential(
        *_activated(inputs, 2),
        nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
        nn.Dropout(dropout),
    )


class ResidualBlock(nn.Module):
    """Two layers beside a shortcut, whose missing channels are zeros, half of them on each side."""

    def __init__(self, inputs: int, outputs: int, dropout: float, dilation: int = 1):
        super().__init__()
        self.layers = nn.Sequential(
            _layer(inputs, outputs, dropout, dilation), _layer(outputs, outputs, dropout, dilation)
        )
        before = (outputs - inputs) // 2
        self.missing = (0, 0, 0, 0, before, outputs - inputs - before)

    def forward(self, features: Tensor) -> Tensor:
        return functional.pad(features, self.missing) + self.layers(features)


class SymmetricConvolution(nn.Module):
    """A convolution without bias, of odd size, that sees the mirror image beyond the border."""

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__()
        self.pad = size // 2
        self.convolution = nn.Conv2d(inputs, outputs, size, bias=False)

    def forward(self, slices: Tensor) -> Tensor:
        return self.convolution(symmetric_pad(slices, self.pad))


class DilatedNet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W): the paper's 2-D network (cardiac CT and MR).

    H and W are multiples of 8, D is free.

    Nine groups of residual layers, at 1/8 of the in-plane size from the fourth on, the last ones
    dilated; then one rearrangement of channels back to full size.

    Every slice is seen with the slice before and after it, as in the paper, whose input is made of
    three adjacent slices; here they are put together inside, so that volumes come in and go out
    like those of all networks. At either end of the volume, the end slice stands for the missing
    one. C channels become 3C.

    Args:
        width: features of the first group, b; the others have 2b to 32b.
        dropout: share of features dropped after each convolution; the paper keeps 0.75.
    """

    multiple = (1, 8, 8)

    def __init__(self, channels: int, classes: int, width: int = 16, *, dropout: float = 0.25):
        super().__init__()
        _check_width(width)
        b = width

        def residual(*features: int, dilation: int = 1) -> nn.Sequential:
            pairs = pairwise(features)
            return nn.Sequential(*(ResidualBlock(i, o, dropout, dilation) for i, o in pairs))

        first = nn.Conv2d(3 * channels, b, 3, padding=1, bias=False)
        self.groups = nn.ModuleList(
            [
                nn.Sequential(first, residual(b, b)),
                residual(b, 2 * b),
                residual(2 * b, 4 * b, 4 * b),
                residual(4 * b, 8 * b, 8 * b),
                residual(8 * b, 16 * b, 16 * b),
                residual(16 * b, 16 * b, 16 * b),
                residual(16 * b, 32 * b, 32 * b),
                residual(32 * b, 32 * b, 32 * b, dilation=2),
                nn.Sequential(*(_layer(32 * b, 32 * b, dropout) for _ in range(2))),
            ]
        )
        self.pool = nn.MaxPool2d(2)
        spread = SHUFFLE**2 * SHUFFLE * classes
        self.up = nn.Sequential(
            SymmetricConvolution(32 * b, spread, 3),
            *_activated(spread, 2),
            nn.PixelShuffle(SHUFFLE),
        )
        self.head = SymmetricConvolution(SHUFFLE * classes, classes, 5)
        self.taps = {f"encoder/{i}": f"groups.{i}" for i in range(3)}
        self.taps |= {"encoder/3": "groups.8", "decoder/0": "up"}
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)

    def forward(self, image: Tensor) -> Tensor:
        features = fold_depth(neighbours(image))
        for i, group in enumerate(self.groups):
            features = group(features)
            if i < 3:
                features = self.pool(features)
        return unfold_depth(self.head(self.up(features)), image.shape[0])


def _unit(inputs: int, outputs: int, kernel: dict) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, bias=False, **kernel), *_activated(outputs, 3))


def _units(inputs: int, middle: int, outputs: int, kernel: dict) -> nn.Sequential:
    return nn.Sequential(_unit(inputs, middle, kernel), _unit(middle, outputs, kernel))


class RepeatSlices(nn.Module):
    """(B, C, D, H, W) -> (B, C, 2D, H, W): each slice twice."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack((features, features), dim=3).flatten(2, 3)


class UMMKDUNet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W): the paper's 3-D U-Net (abdominal CT and MR).

    The paper's patches are 256 x 256 x 8 (H, W, D): its (3, 3, 1) kernels act in plane, which is
    (1, 3, 3) in our order of axes. Eight slices become one at the bottom.

    **Differs from the released code**: there the two deconvolutions nearest the bottom have one tap
    along depth and a stride of two, so that every second slice receives nothing from below. Here
    they double the size in plane only, and each slice is then repeated; the weights are as many.

    Args:
        width: features of the first convolution, b; the levels end at 2b, 4b, 8b and 16b.
    """

    multiple = 8

    def __init__(self, channels: int, classes: int, width: int = 16):
        super().__init__()
        _check_width(width)
        b = width
        self.encoder = nn.ModuleList(
            [
                _units(channels, b, 2 * b, CUBE),
                _units(2 * b, 2 * b, 4 * b, CUBE),
                _units(4 * b, 4 * b, 8 * b, IN_PLANE),
                _units(8 * b, 8 * b, 16 * b, IN_PLANE),
            ]
        )
        self.pool = nn.MaxPool3d(2)
        self.up = nn.ModuleList(
            [_up_in_space(4 * b), _up_in_plane(8 * b, 8 * b), _up_in_plane(16 * b, 8 * b)]
        )
        self.decoder = nn.ModuleList(
            [
                _units(6 * b, 2 * b, 2 * b, CUBE),
                _units(12 * b, 4 * b, 4 * b, CUBE),
                _units(16 * b, 8 * b, 8 * b, IN_PLANE),
            ]
        )
        self.head = nn.Conv3d(2 * b, classes, 1)
        self.taps = {f"encoder/{i}": f"encoder.{i}" for i in range(4)}
        self.taps |= {f"decoder/{i}": f"decoder.{i}" for i in range(3)}

    def forward(self, image: Tensor) -> Tensor:
        features, skips = image, []
        for i, block in enumerate(self.encoder):
            features = block(self.pool(features) if i else features)
            skips.append(features)
        for i in reversed(range(3)):
            features = self.decoder[i](torch.cat((self.up[i](features), skips[i]), dim=1))
        return self.head(features)


def _up_in_space(features: int) -> nn.Sequential:
    double = nn.ConvTranspose3d(
        features, features, 3, stride=2, padding=1, output_padding=1, bias=False
    )
    return nn.Sequential(double, *_activated(features, 3))


def _up_in_plane(inputs: int, outputs: int) -> nn.Sequential:
    double = nn.ConvTranspose3d(
        inputs, outputs, stride=(1, 2, 2), output_padding=(0, 1, 1), bias=False, **IN_PLANE
    )
    return nn.Sequential(double, *_activated(outputs, 3), RepeatSlices())


def _check_width(width: int) -> None:
    if width < 1:
        raise ValueError(f"width is {width}; use 1 or more.")
