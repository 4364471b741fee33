"""RA-UNet, the teacher of EMKD: a ResNet-34, a LinkNet decoder and gates on the skips.

Ni et al., "RAUNet: Residual Attention U-Net for Semantic Segmentation of Cataract Surgical
Instruments", ICONIP 2019, arXiv:1909.10360; the network that the released code of EMKD calls
RA-UNet (Qin et al., IEEE TMI 2021). He et al., CVPR 2016, for the ResNet.

Differs from that code: weights are fresh, where it downloads those of ImageNet; the output is
logits, where it takes their log-softmax: the same up to a constant at each pixel, which no term
here and no segmentation sees.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from DistillSegLib.networks.blocks import fold_depth, unfold_depth

WIDTH = (64, 128, 256, 512)
BLOCKS = (3, 4, 6, 3)  # of ResNet-34, level by level


class RAUNet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W), slice by slice; H, W multiples of 32.

    One channel is given three times, as in EMKD; other numbers have a first convolution of their
    own. 22,143,394 parameters at two classes. A gate looks at the mean of a whole slice, so
    the answer depends on how much of the slice the window shows.
    """

    multiple = (1, 32, 32)
    taps = {
        "encoder/1": "stem",  # 64 features: EMKD's low feature
        "encoder/2": "encoder.0",
        "encoder/3": "encoder.1",  # 128 features: EMKD's high feature
        "encoder/4": "encoder.2",
        "encoder/5": "encoder.3",
        "decoder/4": "decoder.3",
        "decoder/3": "decoder.2",
        "decoder/2": "decoder.1",
        "decoder/1": "decoder.0",
    }

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.copies = 3 if channels == 1 else 1
        first = nn.Conv2d(channels * self.copies, WIDTH[0], 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(first, *_activated(WIDTH[0]))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = (WIDTH[0], *WIDTH[:-1])
        self.encoder = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(inputs[i], WIDTH[i], stride=1 if i == 0 else 2),
                *(ResidualBlock(WIDTH[i], WIDTH[i]) for _ in range(BLOCKS[i] - 1)),
            )
            for i in range(4)
        )
        self.decoder = nn.ModuleList(DecoderBlock(WIDTH[i], inputs[i]) for i in range(4))
        self.gates = nn.ModuleList(Gate(WIDTH[i]) for i in range(3))
        self.head = nn.Sequential(  # H/2 -> H + 1 -> H - 1 -> H
            nn.ConvTranspose2d(WIDTH[0], 32, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, classes, 2, padding=1),
        )
        for layer in self.encoder.modules():
            if isinstance(layer, nn.Conv2d):  # as torchvision starts a ResNet
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(torch.cat((fold_depth(image),) * self.copies, dim=1))
        features, skips = self.pool(features), []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        for i in (3, 2, 1):
            features = self.decoder[i](features)
            features = self.gates[i - 1](features, skips[i - 1])
        return unfold_depth(self.head(self.decoder[0](features)), image.shape[0])


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            *_activated(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.block(features) + self.shortcut(features))


class DecoderBlock(nn.Sequential):
    """LinkNet's: (N, C, H, W) -> (N, `outputs`, 2H, 2W) by way of C/4 features."""

    def __init__(self, inputs: int, outputs: int):
        inner = inputs // 4
        super().__init__(
            nn.Conv2d(inputs, inner, 1),
            *_activated(inner),
            nn.ConvTranspose2d(inner, inner, 4, stride=2, padding=1),
            *_activated(inner),
            nn.Conv2d(inner, outputs, 1),
            *_activated(outputs),
        )


class Gate(nn.Module):
    """Augmented attention: the skip's features, weighed by what both sides hold on average.

    w = softmax over channels of W( f(mean of up) + g(mean of skip) );   out = up + w * h(skip)
    """

    def __init__(self, features: int):
        super().__init__()
        self.up, self.skip, self.kept = (
            nn.Sequential(nn.Conv2d(features, features, 1), *_activated(features)) for _ in range(3)
        )
        self.weight = nn.Conv2d(features, features, 1)

    def forward(self, up: Tensor, skip: Tensor) -> Tensor:
        means = (each.mean(dim=(2, 3), keepdim=True) for each in (up, skip))
        shares = self.weight(sum(f(mean) for f, mean in zip((self.up, self.skip), means)))
        return up + torch.softmax(shares, dim=1) * self.kept(skip)


def _activated(features: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(features), nn.ReLU(inplace=True)
