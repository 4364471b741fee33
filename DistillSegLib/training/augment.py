"""Variations of training images, by MONAI's transforms.

Each sample draws from its own random state, so that a resumed run, or one with another number of
worker processes, sees the same patches.
"""

from __future__ import annotations

import math

import numpy as np
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandSimulateLowResolutiond,
)
from numpy.typing import NDArray

from DistillSegLib.training.recipe import AugmentationConfig

BOTH = ("image", "label")


class Augmentation:
    """Patches in, varied patches out, by a seed per sample.

    Args:
        window: (d, h, w) of the patches that come out. Larger ones may come in: rotation and
            scaling then find real neighbours instead of padding at the rim.
    """

    def __init__(self, config: AugmentationConfig, window: tuple[int, int, int]):
        angles = [math.radians(angle) for angle in config.rotation]
        self.transforms = Compose(
            [
                RandAffined(
                    BOTH,
                    spatial_size=window,
                    prob=config.affine,
                    rotate_range=angles,
                    scale_range=(config.scale,) * 3,
                    mode=("bilinear", "nearest"),
                    padding_mode="zeros",
                ),
                *(
                    RandFlipd(BOTH, prob=probability, spatial_axis=axis)
                    for axis, probability in enumerate(config.flips)
                    if probability
                ),
                RandGaussianNoised("image", prob=config.noise, std=0.1),
                RandGaussianSmoothd(
                    "image",
                    prob=config.smooth,
                    sigma_x=(0.5, 1.0),
                    sigma_y=(0.5, 1.0),
                    sigma_z=(0.5, 1.0),
                ),
                RandScaleIntensityd("image", prob=config.brightness, factors=0.25),
                RandSimulateLowResolutiond(
                    "image", prob=config.low_resolution, zoom_range=(0.5, 1.0)
                ),
                RandAdjustContrastd(
                    "image", prob=config.contrast, gamma=(0.7, 1.5), retain_stats=True
                ),
            ]
        )

    def __call__(self, image: NDArray, label: NDArray, *, seed: int) -> tuple[NDArray, NDArray]:
        """(C, D, H, W) float32 and (D, H, W) uint8 -> (C, d, h, w) float32, (d, h, w) int64."""
        self.transforms.set_random_state(seed=seed % 2**32)
        varied = self.transforms({"image": image, "label": label[None].astype(np.float32)})
        return (
            np.asarray(varied["image"], dtype=np.float32),
            np.asarray(varied["label"][0], dtype=np.float32).astype(np.int64),
        )
