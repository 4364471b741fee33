"""EMKD's teacher and student: their sizes, features, unpooling and export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.export import onnx
from DistillSegLib.export.onnx import export_onnx
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.networks.enet import places, unpool
from DistillSegLib.runtime import Session

PAIR = ["enet", "raunet"]


def built(name: str, channels: int = 1, classes: int = 2, **settings):
    torch.manual_seed(0)
    return build_network(NetworkConfig(name, settings), channels, classes)


@pytest.mark.parametrize(("name", "parameters"), [("enet", 353_761), ("raunet", 22_143_394)])
@pytest.mark.parametrize("channels", [1, 3])
def test_parameter_counts_match_the_paper_s_networks(name, parameters, channels):
    assert count_parameters(built(name, channels)) == parameters


def test_the_parts_of_enet_match_the_published_ones():
    net = built("enet")
    parts = {name: count_parameters(part) for name, part in net.named_children()}
    assert parts == {
        "initial": 384,
        "down1": 3_651,
        "stage1": 4 * 4_547,
        "down2": 19_075,
        "stage2": 6 * 17_795 + 2 * 18_819,
        "stage3": 6 * 17_795 + 2 * 18_819,
        "up4": 12_611,
        "stage4": 2 * 4_547,
        "up5": 1_491,
        "stage5": 323,
        "head": 128,
    }


@pytest.mark.parametrize(
    ("name", "low", "high"), [("enet", 16, 128), ("raunet", 64, 128)], ids=PAIR
)
def test_features_lie_where_the_paper_takes_them(name, low, high):
    batch = Batch(torch.randn(1, 1, 3, 64, 96), torch.zeros(1, 3, 64, 96, dtype=torch.int64))
    net = built(name, classes=3).eval()
    with torch.no_grad():
        view = Tapped(net, list(net.taps))(batch)
    assert view.logits.shape == (1, 3, 3, 64, 96)
    assert view.taps["encoder/1"].shape == (1, low, 3, 32, 48)
    assert view.taps["encoder/3"].shape == (1, high, 3, 8, 12)
    for tap, features in view.taps.items():
        assert features.shape[-1] == 96 // 2 ** int(tap.split("/")[1]), tap


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("channels", [2, 4])
def test_several_channels_have_a_first_convolution_of_their_own(name, channels):
    net = built(name, channels)
    with torch.no_grad():
        assert net(torch.randn(1, channels, 2, 32, 32)).shape == (1, 2, 2, 32, 32)


def test_enet_says_how_many_channels_it_takes():
    with pytest.raises(RecipeError, match="fewer than 16 channels, found 16"):
        built("enet", channels=16)


@pytest.mark.parametrize("name", PAIR)
def test_slices_are_seen_one_by_one_and_keep_their_order(name):
    net = built(name).eval()
    volume = torch.randn(2, 1, 3, 32, 64)
    with torch.no_grad():
        whole = net(volume)
        one = net(volume[1:, :, 2:])
    torch.testing.assert_close(whole[1:, :, 2:], one, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PAIR)
def test_every_weight_learns(name):
    net = built(name)
    net(torch.randn(2, 1, 2, 64, 64)).square().mean().backward()
    assert all(w.grad is not None and torch.isfinite(w.grad).all() for w in net.parameters())


def test_a_volume_may_be_as_deep_as_it_likes():
    with torch.no_grad():
        assert built("enet").eval()(torch.randn(1, 1, 5, 8, 16)).shape == (1, 2, 5, 8, 16)


def test_unpooling_returns_values_to_where_the_largest_was():
    features = torch.tensor([[1.0, 5, 0, 0], [2, 3, 0, 0]])[None, None]  # a tie on the right
    values = torch.tensor([[7.0, 9]])[None, None]
    expected = torch.tensor([[0.0, 7, 9, 0], [0, 0, 0, 0]])
    assert torch.equal(unpool(values, places(features))[0, 0], expected)


def test_unpooling_is_torch_s_own_also_where_values_tie():
    features = torch.randint(0, 3, (2, 4, 8, 10)).float()
    pooled, index = functional.max_pool2d(features, 2, return_indices=True)
    values = torch.randn_like(pooled)
    expected = functional.max_unpool2d(values, index, 2)
    assert torch.equal(unpool(values, places(features)), expected)


def test_repeating_needs_no_other_weights_and_gives_all_corners_the_value():
    largest, every = built("enet"), built("enet", unpooling="repeat")
    every.load_state_dict(largest.state_dict())
    features = torch.randn(1, 128, 2, 3)
    before = torch.randn(1, 64, 4, 6)
    with torch.no_grad():
        spread = every.up4.eval().spread(features)
        expected = every.up4.activation(
            every.up4.block(features) + functional.interpolate(spread, scale_factor=2)
        )
        torch.testing.assert_close(every.up4(features, before), expected)
        assert not torch.allclose(largest.up4.eval()(features, before), expected)


def trained_a_little(net):
    with torch.no_grad():
        for _ in range(2):  # statistics that are not those of a fresh network
            net.train()(torch.randn(2, 1, 4, 64, 64))
    return net.eval()


WINDOW = np.random.default_rng(1).standard_normal((1, 1, 3, 64, 96)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"), [("enet", {"unpooling": "repeat"}), ("raunet", {})], ids=PAIR
)
def test_exported_with_free_depth_and_size(tmp_path, name, settings):
    net = trained_a_little(built(name, classes=3, **settings))
    path, multiple = tmp_path / "net.onnx", net.multiple
    parity = export_onnx(net, (4, 32, 64), path, multiple=multiple, real=[WINDOW])
    assert parity.windows == 4 and parity.max_difference <= 1e-4


@pytest.mark.slow
def test_the_paper_s_unpooling_runs_elsewhere_but_for_near_ties(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "TOLERANCE", 1.0)  # a value that moves to the next corner is no error
    net = trained_a_little(built("enet", classes=3))
    export_onnx(net, (4, 32, 64), tmp_path / "net.onnx", multiple=net.multiple)
    with torch.no_grad():
        expected = net(torch.from_numpy(WINDOW)).numpy()
    found = Session(tmp_path / "net.onnx", engine="onnxruntime")(WINDOW)
    assert (np.abs(found - expected) < 1e-5).mean() > 0.99
