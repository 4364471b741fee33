"""The fast family: U-Nets laid out for what CPUs run quickly, not for few operations.

What inference engines were measured to like decides every line: a patch stem (one strided
convolution carries the image to half resolution before anything else happens), widths in
multiples of 16, plain 3x3x3 convolutions with BatchNorm that folds away on export, skips by
addition, upsampling by repetition after a 1x1x1 reduction, and logits at the stem's resolution,
which the caller interpolates where labels are written.
"""

from __future__ import annotations

from torch import Tensor, nn

from DistillSegLib.networks.blocks import ConvBlock, Upsample, check_width, repeat


class FastUNet(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W); each size a multiple of `multiple`.

    `coarse(image)` gives logits (B, K, D/s, H/s, W/s) at stride s = `stem`; `forward` upsamples
    them trilinearly with half-pixel centres, the interpolation that inference applies.

    Args:
        width: features per level, finest first; multiples of 16 fill the processor's vectors.
        stem: edge of the patch that becomes one voxel of the first level; 1 keeps full resolution.
        convolutions: 3x3x3 convolutions per block.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: tuple[int, ...] = (16, 32, 64),
        *,
        stem: int = 2,
        convolutions: int = 1,
    ):
        super().__init__()
        check_width(width)
        if stem not in (1, 2, 4):
            raise ValueError(f"the stem is {stem}; use 1, 2 or 4.")
        levels = range(len(width))
        self.stride = stem
        self.multiple = stem * 2 ** (len(width) - 1)
        self.stem = _patch_convolution(channels, width[0], stem)
        self.encoder = nn.ModuleList(
            ConvBlock(width[i], width[i], convolutions=convolutions) for i in levels
        )
        self.down = nn.ModuleList(
            _patch_convolution(width[i], width[i + 1], 2) for i in levels[:-1]
        )
        self.reduce = nn.ModuleList(
            nn.Conv3d(width[i + 1], width[i], 1, bias=False) for i in levels[:-1]
        )
        self.decoder = nn.ModuleList(
            ConvBlock(width[i], width[i], convolutions=convolutions) for i in levels[:-1]
        )
        self.head = nn.Conv3d(width[0], classes, 1)
        self.upsample = Upsample(factor=stem) if stem > 1 else nn.Identity()
        first = stem.bit_length() - 1  # log2 of the first level's stride
        self.taps = {f"encoder/{first + i}": f"encoder.{i}" for i in levels} | {
            f"decoder/{first + i}": f"decoder.{i}" for i in levels[:-1]
        }

    def coarse(self, image: Tensor) -> Tensor:
        """(B, C, D, H, W) -> logits (B, K, D/s, H/s, W/s)."""
        features, skips = self.stem(image), []
        for i, block in enumerate(self.encoder):
            features = block(features if i == 0 else self.down[i - 1](features))
            skips.append(features)
        for i in reversed(range(len(self.decoder))):
            features = self.decoder[i](repeat(self.reduce[i](features)) + skips[i])
        return self.head(features)

    def forward(self, image: Tensor) -> Tensor:
        return self.upsample(self.coarse(image))


def _patch_convolution(inputs: int, outputs: int, size: int) -> nn.Sequential:
    """Disjoint patches of `size`³ voxels to one voxel each; a 3x3x3 convolution for size 1."""
    kernel = {"kernel_size": size, "stride": size} if size > 1 else {"kernel_size": 3, "padding": 1}
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, bias=False, **kernel),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )
