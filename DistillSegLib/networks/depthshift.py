"""Depth shift: a 2-D U-Net whose slices hand features to their neighbours, plain or distilled.

Maheshwari et al., "Distill DSM: Computationally efficient method for segmentation of medical
imaging volumes", MIDL 2021, PMLR 143. Plain shift: Lin et al., "TSM", ICCV 2019, arXiv:1811.08383.

Direction: "backward" features come from slice i+1, "forward" ones from slice i-1, where i counts
along the array's first axis, z. Beyond both ends of a volume there are zeros. A step of the shift
is one slice, whatever its thickness: slices are resampled to one spacing before.

**Differs from the released code**:
* its plain shift takes all volumes of a batch for one sequence, so that slices leak from each
  volume into the next; here each volume ends for itself.
* its distilled shift always acts on all channels (alpha = 1); the paper's parameter count is that
  of alpha = 1/2. It takes the first channels, the paper the last, as here.
* its plain and its distilled shift run in opposite directions; here both place the backward
  features before the forward ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from DistillSegLib.networks.blocks import check_width, fold_depth, unfold_depth


def from_next(slices: Tensor) -> Tensor:
    """(B, D, …): slice i becomes what slice i+1 was; the last one zero."""
    return functional.pad(slices[:, 1:], _at_depth(slices, (0, 1)))


def from_previous(slices: Tensor) -> Tensor:
    """(B, D, …): slice i becomes what slice i-1 was; the first one zero."""
    return functional.pad(slices[:, :-1], _at_depth(slices, (1, 0)))


def _at_depth(slices: Tensor, zeros: tuple[int, int]) -> tuple[int, ...]:
    """Padding as torch counts it, from the last axis back to the second."""
    return (0, 0) * (slices.ndim - 2) + zeros


class DepthShift(nn.Module):
    """The plain shift: C/4 channels from the next slice, C/4 from the previous, the rest stay.

        out[i] = ( x[i+1, :f],  x[i-1, f:2f],  x[i, 2f:] ),   f = C // divisor

    No parameters. With f = 0 nothing moves.

    **Differs from the paper's name for it**, residual DSM: neither figure nor code has an identity
    branch about the shift. **Differs from TSM**: that moves an eighth each way, and before the
    first convolution of a block.
    """

    def __init__(self, channels: int, divisor: int = 4):
        super().__init__()
        if divisor < 2:
            raise ValueError(f"divisor is {divisor}; use 2 or more, since two shares move.")
        fold = channels // divisor
        self.parts = (fold, fold, channels - 2 * fold)

    def forward(self, slices: Tensor, batch: int) -> Tensor:
        """(B*D, C, H, W) of B = `batch` volumes -> the same shape."""
        volumes = slices.unflatten(0, (batch, -1))  # (B, D, C, H, W)
        backward, forward, kept = volumes.split(self.parts, dim=2)
        return torch.cat((from_next(backward), from_previous(forward), kept), dim=2).flatten(0, 1)


class DistillDepthShift(nn.Module):
    """The learnable shift: convolutions distil what a slice keeps and what it hands on.

        R, B, F = conv3x3(x[i, C-k:]),   k = alpha * C,   of k/2, k/4 and k/4 channels
        out[i]  = ( x[i, :C-k],  R[i],  B[i+1],  F[i-1] )

    k is rounded to the nearest, k/4 down; R has what is over. Neither norm nor activation follows.
    The paper's three convolutions share their input, so they are computed as one, whose output is
    split: the same function, weights and initialisation; 9k² + k parameters.
    """

    def __init__(self, channels: int, alpha: float = 0.5):
        super().__init__()
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is {alpha:g}; use more than 0 and at most 1.")
        taken = round(alpha * channels)
        moved = taken // 4
        if not moved:
            raise ValueError(
                f"alpha {alpha:g} of {channels} channels are {taken}, of which no quarter can be "
                "handed on; use a larger alpha or width."
            )
        self.parts = (channels - taken, taken)
        self.shares = (taken - 2 * moved, moved, moved)  # R, B, F
        self.convolution = nn.Conv2d(taken, taken, 3, padding=1)

    def forward(self, slices: Tensor, batch: int) -> Tensor:
        """(B*D, C, H, W) of B = `batch` volumes -> the same shape."""
        kept, taken = slices.split(self.parts, dim=1)
        distilled = self.convolution(taken).unflatten(0, (batch, -1))  # (B, D, k, H, W)
        retained, backward, forward = distilled.split(self.shares, dim=2)
        shifted = torch.cat((retained, from_next(backward), from_previous(forward)), dim=2)
        return torch.cat((kept, shifted.flatten(0, 1)), dim=1)


class ShiftBlock(nn.Module):
    """Convolution, shift, convolution; each convolution with BatchNorm and ReLU."""

    def __init__(self, inputs: int, inner: int, outputs: int, shift: nn.Module | None):
        super().__init__()
        self.first = _layer(inputs, inner)
        self.shift = shift
        self.second = _layer(inner, outputs)

    def forward(self, slices: Tensor, batch: int) -> Tensor:
        """(B*D, C, H, W) of B = `batch` volumes -> (B*D, outputs, H, W)."""
        features = self.first(slices)
        if self.shift is not None:
            features = self.shift(features, batch)
        return self.second(features)


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class DepthShiftUNet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W): slice by slice, but for the shifts in every block.

    H and W are multiples of 2^(levels - 1), D is free. All blocks but the finest one on the way
    down shift between their convolutions: with five levels eight shifts in series, so that slice i
    sees slices i-8 … i+8. A stack that is segmented in parts needs that much overlap to be exact.

    **Differs from the released code**: there the depth of a stack is fixed with the network.
    BatchNorm takes its statistics over all slices of all volumes, as there.

    Args:
        width: features of the levels, finest first. With the paper's (the default), 4 channels and
            3 outputs: 1,082,211 parameters; with the learnable shift 1,216,715 for alpha = 1/2
            (the paper prints 1,216,266, which is 1 channel and 2 outputs), 1,619,635 for 1.
        shift: "learnable" (Distill DSM), "plain" (DSM) or "none" (a 2-D U-Net).
        alpha: learnable: share of the channels that passes the convolutions.
        divisor: plain: 1/divisor of the channels moves each way.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: tuple[int, ...] = (16, 32, 64, 128, 128),
        *,
        shift: Literal["none", "plain", "learnable"] = "learnable",
        alpha: float = 0.5,
        divisor: int = 4,
    ):
        super().__init__()
        check_width(width)
        levels = range(len(width))

        def block(inputs: int, inner: int, outputs: int, shifts: bool = True) -> ShiftBlock:
            if not shifts or shift == "none":
                return ShiftBlock(inputs, inner, outputs, None)
            if shift == "plain":
                return ShiftBlock(inputs, inner, outputs, DepthShift(inner, divisor))
            return ShiftBlock(inputs, inner, outputs, DistillDepthShift(inner, alpha))

        inputs = (channels, *width[:-1])
        outputs = (width[0], *width[:-1])  # of the way up: what the next finer level has
        below = (*outputs[1:-1], width[-1])
        self.multiple = (1, 2 ** (len(width) - 1), 2 ** (len(width) - 1))
        self.encoder = nn.ModuleList(
            block(inputs[i], width[i], width[i], shifts=i > 0) for i in levels
        )
        self.pool = nn.MaxPool2d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.decoder = nn.ModuleList(
            block(width[i] + below[i], width[i], outputs[i]) for i in levels[:-1]
        )
        self.head = nn.Conv2d(width[0], classes, 1)
        self.taps = {f"encoder/{i}": f"encoder.{i}" for i in levels} | {
            f"decoder/{i}": f"decoder.{i}" for i in levels[:-1]
        }

    def forward(self, image: Tensor) -> Tensor:
        batch = image.shape[0]
        features, skips = fold_depth(image), []
        for i, block in enumerate(self.encoder):
            features = block(features if i == 0 else self.pool(features), batch)
            skips.append(features)
        for i in reversed(range(len(self.decoder))):
            joined = torch.cat((skips[i], self.upsample(features)), dim=1)
            features = self.decoder[i](joined, batch)
        return unfold_depth(self.head(features), batch)
