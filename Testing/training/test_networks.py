"""Networks: sizes to the unit, one shape in and out, taps that exist."""

from __future__ import annotations

import pytest
import torch

from DistillSegLib.errors import RecipeError
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.networks.blocks import fold_depth, repeat, unfold_depth

SHIFTS = ("none", "plain", "learnable")
EVERY = [
    NetworkConfig("unet", {"width": (4, 8, 16)}),
    NetworkConfig("unet", {"width": (4, 8, 16), "dims": 2}),
    NetworkConfig("unet", {"width": (4, 8, 16), "deep_supervision": True}),
    NetworkConfig("fast_unet", {"width": (16, 16), "stem": 1}),
    NetworkConfig("fast_unet", {"width": (16, 16), "stem": 2}),
    NetworkConfig("fast_unet", {"width": (16, 16), "stem": 4}),
    NetworkConfig("lcovnet", {"width": (2, 4, 4, 8, 8)}),
    NetworkConfig("lcovnet", {"width": (2, 4, 4, 8, 8), "block": "dense"}),
    *(NetworkConfig("depth_shift_unet", {"width": (8, 8, 16), "shift": s}) for s in SHIFTS),
    NetworkConfig("residual_unet", {"width": (4, 8, 16)}),
    NetworkConfig("residual_unet", {"width": (4, 8, 16)}, nested="by value"),
]


@pytest.mark.parametrize(
    ("network", "settings", "classes", "parameters"),
    [
        # GTAN's student, assistants and teacher (fact sheet, table of section b)
        ("unet", {"width": (5, 10, 20)}, 2, 34_772),
        ("unet", {"width": (9, 18, 36)}, 2, 112_160),
        ("unet", {"width": (16, 32, 64)}, 2, 353_618),
        ("unet", {"width": (24, 48, 96)}, 2, 794_810),
        ("unet", {"width": (30, 60, 120)}, 2, 1_241_372),
        # LCOV-Net, its small version and its teacher
        ("lcovnet", {}, 17, 2_785_764),
        ("lcovnet", {"width": (16, 32, 64, 128, 256)}, 2, 815_560),
        ("lcovnet", {"block": "dense"}, 17, 14_986_660),
    ],
)
def test_parameter_counts_match_the_papers(network, settings, classes, parameters):
    net = build_network(NetworkConfig(network, settings), channels=1, classes=classes)
    assert count_parameters(net) == parameters


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_logits_keep_the_grid_of_the_image(config):
    net = build_network(config, channels=2, classes=5).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 2, 32, 48, 32)).shape == (2, 5, 32, 48, 32)


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_every_tap_names_a_submodule_at_the_stride_it_says(config):
    net = build_network(config, channels=1, classes=3).eval()
    seen = {}
    for tap, path in net.taps.items():
        net.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, tap=tap: seen.update({tap: output.shape[-1]})
        )
    with torch.no_grad():
        net(torch.randn(1, 1, 32, 64, 64))
    assert seen == {tap: 64 // 2 ** int(tap.split("/")[1]) for tap in net.taps}


def test_coarse_logits_upsampled_are_the_forward_pass():
    net = build_network(NetworkConfig("fast_unet", {"stem": 2}), 1, 3).eval()
    image = torch.randn(1, 1, 16, 24, 32)
    with torch.no_grad():
        coarse = net.coarse(image)
        assert coarse.shape == (1, 3, 8, 12, 16)
        up = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="trilinear")
        assert torch.equal(up, net(image))


def test_folding_depth_gives_slices_in_order_and_back():
    volume = torch.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    slices = fold_depth(volume)
    assert torch.equal(slices[4 + 1], volume[1, :, 1])  # second volume, second slice
    assert torch.equal(unfold_depth(slices, 2), volume)


def test_repeat_is_nearest_interpolation():
    features = torch.randn(1, 2, 3, 4, 5)
    nearest = torch.nn.functional.interpolate(features, scale_factor=2, mode="nearest")
    assert torch.equal(repeat(features), nearest)


def test_a_misspelt_network_or_setting_names_the_nearest_known_one():
    with pytest.raises(RecipeError, match="did you mean 'fast_unet'"):
        build_network(NetworkConfig("fastunet"), 1, 2)
    with pytest.raises(RecipeError, match="did you mean 'width'"):
        build_network(NetworkConfig("unet", {"widht": (8, 16)}), 1, 2)
    with pytest.raises(RecipeError, match="two numbers or more"):
        build_network(NetworkConfig("unet", {"width": (8,)}), 1, 2)
