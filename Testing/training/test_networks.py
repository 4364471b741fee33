"""Networks: sizes to the unit, and their pieces; `test_network_laws.py` has what all obey."""

from __future__ import annotations

import pytest
import torch

from DistillSegLib.errors import RecipeError
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.networks.blocks import fold_depth, repeat, unfold_depth


@pytest.mark.parametrize(
    ("network", "settings", "classes", "parameters"),
    [
        # GTAN's student, assistants and teacher
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


def reached(network: str, **settings) -> list[int]:
    """The slices of the output that slice 3 of an image can change."""
    torch.manual_seed(0)
    net = build_network(NetworkConfig(network, settings), 1, 2).eval()
    image = torch.zeros(1, 1, 7, 16, 16)
    changed = image.clone()
    changed[0, 0, 3] = 5 * torch.randn(16, 16)
    with torch.no_grad():
        apart = (net(image) - net(changed)).abs().amax(dim=(0, 1, 3, 4))
    return [z for z in range(7) if apart[z] > 0]


def test_slices_stay_apart_in_the_levels_that_convolve_in_plane():
    assert reached("unet", width=(4, 4), in_plane=2) == [3]
    # two 3x3x3 convolutions at the coarse level
    assert reached("unet", width=(4, 4), in_plane=1) == [1, 2, 3, 4, 5]


def test_a_fast_network_of_slices_knows_its_neighbours_by_shift_alone():
    assert reached("fast_unet", width=(8, 16, 16), dims=2) == [3]
    assert reached("fast_unet", width=(8, 16, 16), dims=2, shift=True) == [1, 2, 3, 4, 5]
    with pytest.raises(RecipeError, match="use it with dims = 2"):
        build_network(NetworkConfig("fast_unet", {"shift": True}), 1, 2)


def test_a_network_for_thick_slices_takes_any_number_of_them():
    net = build_network(NetworkConfig("unet", {"width": (4, 4, 4), "in_plane": 1}), 1, 2).eval()
    assert net.multiple == (1, 4, 4)
    assert net(torch.zeros(1, 1, 1, 8, 8)).shape == (1, 2, 1, 8, 8)
    with pytest.raises(RecipeError, match="in_plane is 4; use 0 to 3"):
        build_network(NetworkConfig("unet", {"width": (4, 4, 4), "in_plane": 4}), 1, 2)


def test_a_misspelt_network_or_setting_names_the_nearest_known_one():
    with pytest.raises(RecipeError, match="did you mean 'fast_unet'"):
        build_network(NetworkConfig("fastunet"), 1, 2)
    with pytest.raises(RecipeError, match="did you mean 'width'"):
        build_network(NetworkConfig("unet", {"widht": (8, 16)}), 1, 2)
    with pytest.raises(RecipeError, match="two numbers or more"):
        build_network(NetworkConfig("unet", {"width": (8,)}), 1, 2)
