"""EMKD's teacher and student: their sizes, features, unpooling and export."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.export.onnx import export_onnx
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.networks.enet import places, unpool

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


@pytest.mark.slow
def test_enet_that_repeats_is_exported_without_a_near_tie(tmp_path):
    net = trained_a_little(built("enet", classes=3, unpooling="repeat"))
    real = [np.random.default_rng(1).standard_normal((1, 1, 3, 64, 96)).astype(np.float32)]
    parity = export_onnx(net, (4, 32, 64), tmp_path / "e.onnx", multiple=net.multiple, real=real)
    assert parity.windows == 4 and parity.max_difference <= 1e-4


# Encoders of segmentation-models-pytorch


def foreign(architecture: str, encoder: str, channels: int = 3):
    return built("encoder_decoder", channels, architecture=architecture, encoder=encoder)


@pytest.mark.parametrize(
    ("architecture", "encoder", "strides"),
    [
        ("unet", "mobilenet_v2", [1, 2, 3, 4, 5]),
        ("unetplusplus", "resnet18", [1, 2, 3, 4, 5]),
        ("linknet", "resnet18", [1, 2, 3, 4, 5]),
        ("fpn", "efficientnet-b0", [1, 2, 3, 4, 5]),  # whose last layers serve nothing here
        ("pspnet", "mobilenet_v2", [1, 2, 3]),
        ("deeplabv3", "resnet18", [1, 2, 3]),
        ("deeplabv3plus", "mobilenet_v2", [1, 2, 3, 4]),
    ],
)
def test_foreign_encoders_have_features_at_every_stride_and_no_idle_weight(
    architecture, encoder, strides
):
    net = foreign(architecture, encoder)
    size = 2 ** max(strides)
    assert net.multiple == (1, size, size)
    image, label = torch.randn(2, 3, 2, 2 * size, 64), torch.zeros(2, 2, 2 * size, 64).long()
    view = Tapped(net, list(net.taps))(Batch(image, label))
    assert view.logits.shape == (2, 2, 2, 2 * size, 64)
    found = {tap: features.shape[-1] for tap, features in view.taps.items()}
    assert found == {f"encoder/{i}": 64 // 2**i for i in strides}
    view.logits.square().mean().backward()
    assert all(weight.grad is not None for weight in net.parameters())


@pytest.mark.parametrize(
    ("encoder", "with_head"), [("mobilenet_v2", 2_226_434), ("resnet18", 11_177_538)]
)
def test_encoders_are_the_paper_s_students_but_for_the_head(encoder, with_head):
    net = foreign("unet", encoder)
    deepest = net.encoder.out_channels[-1]
    assert count_parameters(net.encoder) + 2 * (deepest + 1) == with_head


def test_an_unknown_encoder_names_some_that_are_near():
    with pytest.raises(RecipeError, match=r"no encoder 'resnet19'; near are .*resnet18"):
        foreign("unet", "resnet19")


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(RecipeError, match=r'pip install "distillseg\[encoders'):
        foreign("unet", "resnet18")
