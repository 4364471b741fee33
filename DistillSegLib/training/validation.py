"""Dice on held-out cases while training: whole cached volumes, the windows that inference runs.

Scores on the images' own grids come from `evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from DistillSegLib.metrics import dice
from DistillSegLib.networks import smallest_size
from DistillSegLib.training.cache import Cache
from DistillSegLib.training.plan import LARGEST_WINDOW
from DistillSegLib.windows import Predict, Shape, per_axis, sliding_window, whole_volume


def torch_predictor(net: nn.Module, device: torch.device | str = "cpu") -> Predict:
    """A torch network as the `Predict` that windows call; evaluation mode, no gradients."""

    def predict(windows: NDArray) -> NDArray:
        with torch.inference_mode():
            return net(torch.from_numpy(windows).to(device)).float().cpu().numpy()

    return predict


def single_pass(net: nn.Module) -> bool:
    """Whether one pass over a whole volume equals its windows, up to their rims.

    Not with statistics taken from the image at hand, as InstanceNorm and GroupNorm take them; nor
    with interpolation that aligns corners, whose weights change with the size of the image.
    """
    own_statistics = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
    return not any(
        isinstance(layer, own_statistics) or getattr(layer, "align_corners", False)
        for layer in net.modules()
    )


def volume_logits(
    net: nn.Module, image: NDArray[np.float32], predict: Predict, window: Shape
) -> NDArray[np.float32]:
    """Logits of a whole volume, in one pass or in windows: the choice that a package makes.

    Args:
        image: (C, D, H, W).
        predict: what runs `net`.
        window: (d, h, w) of the windows.

    Returns:
        (K, D, H, W).
    """
    if single_pass(net) and image[0].size <= LARGEST_WINDOW:
        limits = zip(image.shape[1:], per_axis(smallest_size(net)), per_axis(net.multiple))
        # a volume that does not fill the smallest size is padded to a window's full size
        if all(size > smallest - multiple for size, smallest, multiple in limits):
            return whole_volume(image, predict, multiple=net.multiple)
    return sliding_window(image, predict, window)


def validate(
    net: nn.Module, cache: Cache, forward: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> dict[str, float]:
    """Mean Dice of each structure over the held-out cases, on the cached grid.

    A structure that neither a case nor its prediction shows does not count in that case, and is
    left out of the result where this holds for all cases.

    Args:
        net: evaluated in the mode and on the device it is in.
        forward: called instead of `net`, such as `net` under a precision context.
    """
    device = next(net.parameters()).device
    predict = torch_predictor(forward or net, device)
    scores: dict[str, list[float]] = {label.name: [] for label in cache.labels}
    for case in cache.held_out_cases:
        image = np.array(cache.image(case))  # one case at a time is held in memory
        logits = volume_logits(net, image, predict, cache.plan.window)
        classes, reference = logits.argmax(axis=0), cache.label(case)
        for index, label in enumerate(cache.labels, start=1):
            scores[label.name].append(dice(classes == index, reference == index))
    return {n: float(np.nanmean(v)) for n, v in scores.items() if not np.isnan(v).all()}
