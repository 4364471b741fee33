"""ENet, the light student of EMKD.

Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation", 2016,
arXiv:1606.02147; as the released code of EMKD builds it (Qin et al., IEEE TMI 2021).

Differs from EMKD's released code: there `bottleneck3_5` (17,795 weights) is built and never called.
Here it is used, as in ENet's paper; the count is the same, 353,761 at two classes. Weights are
fresh in both.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from DistillSegLib.networks.blocks import fold_depth, repeat, unfold_depth

STAGE = (  # of the second and of the third stage: 3x3 convolutions, dilated, and 5x1 with 1x5
    {"dilation": 1},
    {"dilation": 2},
    {"asymmetric": True},
    {"dilation": 4},
    {"dilation": 1},
    {"dilation": 8},
    {"asymmetric": True},
    {"dilation": 16},
)


class ENet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W), slice by slice; H and W are multiples of 8.

    One channel is given three times, as in EMKD; other numbers have a first convolution of their
    own.

    Args:
        dropout: share of a block's features dropped, whole maps at a time.
        unpooling: how features grow. "largest", the paper's: each value returns to the corner of
            its square that was the largest on the way down. Where two corners agree to the last
            digits, another engine may choose the other one, which the check on export refuses.
            "repeat": to all four corners; the same weights, for what is to be exported.
    """

    multiple = (1, 8, 8)
    taps = {
        "encoder/1": "initial",  # 16 features: EMKD's low feature
        "encoder/2": "stage1",
        "encoder/3": "stage3",  # 128 features: EMKD's high feature
        "decoder/2": "stage4",
        "decoder/1": "stage5",
    }

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        dropout: float = 0.1,
        unpooling: Literal["largest", "repeat"] = "largest",
    ):
        super().__init__()
        self.copies = 3 if channels == 1 else 1
        self.initial = InitialBlock(channels * self.copies, 16)
        self.down1 = DownBlock(16, 64, dropout)
        self.stage1 = nn.Sequential(*(Bottleneck(64, dropout) for _ in range(4)))
        self.down2 = DownBlock(64, 128, dropout)
        self.stage2 = nn.Sequential(*(Bottleneck(128, dropout, **kind) for kind in STAGE))
        self.stage3 = nn.Sequential(*(Bottleneck(128, dropout, **kind) for kind in STAGE))
        self.up4 = UpBlock(128, 64, dropout, unpooling)
        self.stage4 = nn.Sequential(*(Bottleneck(64, dropout) for _ in range(2)))
        self.up5 = UpBlock(64, 16, dropout, unpooling)
        self.stage5 = nn.Sequential(Bottleneck(16, dropout))
        self.head = nn.ConvTranspose2d(16, classes, 2, stride=2, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        slices = fold_depth(image)
        half = self.initial(torch.cat((slices,) * self.copies, dim=1))
        quarter = self.stage1(self.down1(half))
        features = self.stage3(self.stage2(self.down2(quarter)))
        features = self.stage4(self.up4(features, quarter))
        features = self.stage5(self.up5(features, half))
        return unfold_depth(self.head(features), image.shape[0])


class InitialBlock(nn.Module):
    """(N, C, H, W) -> (N, `outputs`, H/2, W/2): a strided convolution beside the pooled image."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        if channels >= outputs:
            raise ValueError(f"ENet takes fewer than {outputs} channels, found {channels}.")
        self.convolution = nn.Conv2d(channels, outputs - channels, 3, stride=2, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU())

    def forward(self, image: Tensor) -> Tensor:
        bordered = functional.pad(image, (1, 0, 1, 0))  # padding=1; of even sizes the end is unseen
        return self.norm(torch.cat((self.convolution(bordered), self.pool(image)), dim=1))


class Bottleneck(nn.Module):
    """A residual block at a quarter of its features: 1x1, the convolution in question, 1x1."""

    def __init__(
        self, features: int, dropout: float, *, dilation: int = 1, asymmetric: bool = False
    ):
        super().__init__()
        inner = features // 4
        if asymmetric:
            middle = [
                nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False),
                nn.Conv2d(inner, inner, (1, 5), padding=(0, 2), bias=False),
            ]
        else:
            middle = [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False)]
        self.block = nn.Sequential(
            *_activated(nn.Conv2d(features, inner, 1, bias=False)),
            *_activated(*middle),
            *_widened(inner, features, dropout),
        )
        self.activation = nn.PReLU()

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.block(features) + features)


class DownBlock(nn.Module):
    """(N, C, H, W) -> (N, `outputs`, H/2, W/2): a strided 2x2 convolution beside max-pooling."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        inner = outputs // 4
        self.pooled = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.block = nn.Sequential(
            *_activated(nn.Conv2d(inputs, inner, 1, bias=False)),
            *_activated(nn.Conv2d(inner, inner, 2, stride=2, bias=False)),
            *_widened(inner, outputs, dropout),
        )
        self.activation = nn.PReLU()

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.block(features) + self.pooled(features))


class UpBlock(nn.Module):
    """(N, C, H, W) -> (N, `outputs`, 2H, 2W): a transposed convolution beside unpooling.

    `before` is what lay on the finer grid on the way down, (N, `outputs`, 2H, 2W).
    """

    def __init__(self, inputs: int, outputs: int, dropout: float, unpooling: str):
        super().__init__()
        self.unpooling = unpooling
        inner = outputs // 4
        self.spread = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.block = nn.Sequential(
            *_activated(nn.Conv2d(inputs, inner, 1, bias=False)),
            *_activated(nn.ConvTranspose2d(inner, inner, 2, stride=2, bias=False)),
            *_widened(inner, outputs, dropout),
        )
        self.activation = nn.PReLU()

    def forward(self, features: Tensor, before: Tensor) -> Tensor:
        spread = self.spread(features)
        largest = self.unpooling == "largest"
        grown = unpool(spread, places(before)) if largest else repeat(spread)
        return self.activation(self.block(features) + grown)


def places(features: Tensor) -> Tensor:
    """(N, C, 2H, 2W) -> (N, C, H, W, 4) bool: which corner of each 2x2 square is the largest.

    The first in reading order where several are, as `max_pool2d` has it.
    """
    corners = [features[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    largest = torch.stack(corners, dim=-1).argmax(dim=-1, keepdim=True)
    return largest == torch.arange(4, device=features.device)


def unpool(values: Tensor, places: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): each value at its place, zero elsewhere."""
    squares = torch.where(places, values[..., None], 0.0).unflatten(-1, (2, 2))
    return squares.transpose(3, 4).flatten(4, 5).flatten(2, 3)  # H, W, y, x -> H, y, W, x


def _activated(*convolutions: nn.Module) -> tuple[nn.Module, ...]:
    return *convolutions, nn.BatchNorm2d(convolutions[-1].out_channels), nn.PReLU()


def _widened(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.Dropout2d(dropout)
