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
ALL = (*BOTH, "maps")  # maps, of stored teachers, only where there are some


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
                    ALL,
                    allow_missing_keys=True,
                    spatial_size=window,
                    prob=config.affine,
                    rotate_range=angles,
                    scale_range=(config.scale,) * 3,
                    mode=("bilinear", "nearest", "bilinear"),
                    padding_mode="zeros",
                ),
                *(
                    RandFlipd(ALL, prob=probability, spatial_axis=axis, allow_missing_keys=True)
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

    def __call__(
        self, image: NDArray, label: NDArray, maps: NDArray | None = None, *, seed: int
    ) -> tuple[NDArray, NDArray, NDArray | None]:
        """The same variation of a patch and of all that is drawn on it.

        Args:
            image: (C, D, H, W) float32.
            label: (D, H, W) uint8.
            maps: (R*K, D, H, W), what stored teachers say; moved with the image, nothing else.

        Returns:
            (C, d, h, w) float32, (d, h, w) int64, and (R*K, d, h, w) float32, zero where the image
            ends.
        """
        self.transforms.set_random_state(seed=seed % 2**32)
        given = {"image": image, "label": label[None].astype(np.float32)}
        if maps is not None:
            given["maps"] = maps.astype(np.float32)
        varied = self.transforms(given)
        return (
            np.asarray(varied["image"], dtype=np.float32),
            np.asarray(varied["label"][0], dtype=np.float32).astype(np.int64),
            None if maps is None else np.asarray(varied["maps"], dtype=np.float32),
        )
