"""Dice on held-out cases while training: whole volumes, or windows where a network needs them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from DistillSegLib.metrics import dice
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.training.validation import (
    single_pass,
    torch_predictor,
    validate,
    volume_logits,
)


class Threshold(nn.Module):
    """Class 1 above 0, class 2 above 2; a weight, so that it has a device."""

    multiple = 4

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return torch.cat([0 * image, image * self.one, 2 * image - 2], dim=1)


def test_validation_scores_the_whole_volume_by_the_library_s_dice(cache):
    expected = {"Ball": [], "Tail": []}
    for case in cache.held_out_cases:
        image, label = cache.image(case)[0], cache.label(case)
        classes = np.select([image > 2, image > 0], [2, 1], 0)
        for index, name in enumerate(expected, start=1):
            expected[name].append(dice(classes == index, label == index))
    found = validate(Threshold(), cache)
    assert found == pytest.approx({name: np.mean(values) for name, values in expected.items()})
    assert 0 < found["Tail"] < 1


def test_networks_with_an_image_s_own_statistics_are_validated_in_windows(cache):
    assert single_pass(Threshold())
    net = nn.Sequential(nn.InstanceNorm3d(1), Threshold())
    assert not single_pass(net)
    seen = []
    validate(net, cache, lambda image: (seen.append(image.shape[2:]), net(image))[1])
    assert {tuple(shape) for shape in seen} == {cache.plan.window}


@pytest.mark.parametrize("depth", [16, 17, 40])
def test_volumes_below_a_network_s_smallest_size_are_padded_to_its_window(depth):
    net = build_network(NetworkConfig("lcovnet", {"width": [2, 2, 2, 2, 2]}), 1, 3).eval()
    seen = []

    def predict(windows):
        seen.append(windows.shape[2:])
        return torch_predictor(net)(windows)

    image = np.zeros((1, depth, 18, 33), np.float32)
    assert volume_logits(net, image, predict, (32, 32, 32)).shape == (3, depth, 18, 33)
    one_pass = (-(-depth // 16) * 16, 32, 48)
    assert set(seen) == ({one_pass} if depth > 16 else {(32, 32, 32)})
