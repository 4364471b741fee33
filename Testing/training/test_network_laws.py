"""The laws that hold for every network.

A new network is a row below; one without a row fails. What is special to it (its parameters, its
blocks) is tested in a file of its own.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.export.onnx import export_onnx
from DistillSegLib.labels import label_table
from DistillSegLib.networks import NETWORKS, NetworkConfig, build_network, smallest_size
from DistillSegLib.networks.domains import by_domain
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.scope import Measured, scope_of
from DistillSegLib.training.checkpoints import Origin, load_network, save_network
from DistillSegLib.training.plan import Plan
from DistillSegLib.windows import per_axis

CONFIGS = [
    NetworkConfig("unet", {"width": (4, 8, 8)}),
    NetworkConfig("unet", {"width": (4, 8), "dims": 2, "norm": "instance"}),
    NetworkConfig("unet", {"width": (4, 4, 4), "deep_supervision": True}),
    NetworkConfig("unet", {"width": (4, 4, 8), "in_plane": 2}),
    NetworkConfig("unet", {"width": (4, 8)}, domains=("ct", "mr")),
    NetworkConfig("unet", {"width": (4, 8)}, nested="by value"),
    NetworkConfig("fast_unet", {"width": (16, 16), "stem": 1}),
    NetworkConfig("fast_unet", {"width": (16, 16), "stem": 4}),
    NetworkConfig("fast_unet", {"width": (16, 16), "dims": 2}),
    NetworkConfig("fast_unet", {"width": (8, 16, 16), "dims": 2, "shift": True}),
    NetworkConfig("lcovnet", {"width": (2, 2, 2, 2, 4)}),
    NetworkConfig("lcovnet", {"width": (2, 2, 2, 2, 2), "block": "dense"}),
    NetworkConfig("enet"),
    NetworkConfig("raunet"),
    NetworkConfig("encoder_decoder"),
    NetworkConfig("depth_shift_unet", {"width": (8, 8, 8), "shift": "learnable"}),
    NetworkConfig("depth_shift_unet", {"width": (8, 8, 8), "shift": "plain"}),
    NetworkConfig("depth_shift_unet", {"width": (8, 8, 8), "shift": "none"}),
    NetworkConfig("residual_unet", {"width": (4, 4, 4)}),
    NetworkConfig("residual_unet", {"width": (4, 4, 4)}, nested="by value"),
    NetworkConfig("dilated_net", {"width": 2}),
    NetworkConfig("ummkd_unet", {"width": 2}),
]


def name_of(config: NetworkConfig) -> str:
    parts = (config.settings, config.domains, config.nested)
    return " ".join([config.network, *(str(part) for part in parts if part)])


every_network = pytest.mark.parametrize("config", CONFIGS, ids=name_of)


def settled(net: nn.Module) -> nn.Module:
    """In training mode, where one pass makes the running statistics those of its batch."""
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    return net.train()


@cache
def built(config_name: str, channels: int = 1, classes: int = 3) -> nn.Module:
    """A network with the statistics of one training step."""
    config = {name_of(each): each for each in CONFIGS}[config_name]
    torch.manual_seed(0)
    net = build_network(config, channels, classes)
    with torch.no_grad():
        settled(net)(*inputs(net, sizes(net)[0], channels))
    return net.eval()


def sizes(net: nn.Module) -> list[tuple[int, ...]]:
    """The smallest size that a network takes, twice its step at least, and a larger one."""
    steps = per_axis(net.multiple)
    least = [max(2 * s, m) for s, m in zip(steps, per_axis(smallest_size(net)), strict=True)]
    return [tuple(least), (least[0] + steps[0], least[1], least[2] + 2 * steps[2])]


def inputs(net: nn.Module, size: tuple[int, ...], channels: int = 1) -> tuple[torch.Tensor, ...]:
    """Two images; of a network of two domains, one of each."""
    image = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))
    return (image, torch.tensor([0, 1])) if getattr(net, "domains", ()) else (image,)


def test_every_network_has_a_row():
    assert {config.network for config in CONFIGS} == set(NETWORKS)


@every_network
@pytest.mark.parametrize(("channels", "classes"), [(1, 3), (4, 5)])
def test_logits_keep_the_grid_of_the_image(config, channels, classes):
    net = built(name_of(config), channels, classes)
    for size in sizes(net):
        with torch.no_grad():
            assert net(*inputs(net, size, channels)).shape == (2, classes, *size)


@every_network
def test_every_tap_is_a_volume_at_the_stride_that_it_says(config):
    net = built(name_of(config))
    depth, height, width = size = sizes(net)[1]
    image, *domain = inputs(net, size)
    seen = Tapped(net, tuple(net.taps))
    with torch.no_grad():
        taps = seen(Batch(image, torch.zeros(2, *size), *domain)).taps
    built.cache_clear()  # the hooks stay
    assert taps and set(taps) == set(net.taps)
    for name, tap in taps.items():
        stride = 2 ** int(name.split("/")[1])
        assert tap.ndim == 5 and len(tap) == 2, name
        assert tap.shape[3:] == (height // stride, width // stride), name
        assert tap.shape[2] in (depth, depth // stride), name  # a slice-wise network keeps depth


@every_network
def test_a_gradient_reaches_every_parameter(config):
    torch.manual_seed(0)
    net = build_network(config, 1, 3).train()
    image, *domain = inputs(net, sizes(net)[0])
    heads = [name for name in net.taps if name.startswith(("logits/", "regions/"))]
    seen = Tapped(net, heads)(Batch(image, torch.zeros(2, *sizes(net)[0]), *domain))
    outputs = (seen.logits, *seen.taps.values())
    sum((out * torch.randn_like(out)).sum() for out in outputs).backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.ndim == 1 or weight.grad.abs().max() > 0, name


@every_network
def test_in_evaluation_mode_a_sample_gets_the_same_answer_always_and_in_any_company(config):
    net = built(name_of(config))
    image, *domain = inputs(net, sizes(net)[0])
    with torch.no_grad():
        first, second = net(image, *domain), net(image, *domain)
        alone = net(image[1:], *(d[1:] for d in domain))
    assert torch.equal(first, second)
    assert torch.allclose(first[1:], alone, atol=1e-4, rtol=1e-4)
    assert not torch.equal(first[0], first[1])


def origin(channels: int, classes: int) -> Origin:
    intensity = (Intensity("image", (0.5, 99.5)),) * channels
    one = Measured((8.0, 8.0, 8.0), (1.0, 1.0, 1.0), ((0.0, 50.0, 100.0),) * channels)
    plan = Plan(
        preprocessing=Preprocessing((1.0, 1.0, 1.0), intensity),
        window=(8, 8, 8),
        batch=2,
        multiple=8,
        channels=tuple(f"channel {i}" for i in range(channels)),
        modality="MR",
        scope=scope_of([one], description="phantoms", body_part="phantom"),
    )
    names = {value: f"structure {value}" for value in range(1, classes)}
    return Origin(plan, label_table(names), {"name": "laws"}, {})


@every_network
def test_a_checkpoint_rebuilds_the_network(config, tmp_path):
    net = built(name_of(config), 4, 5)
    again, _ = load_network(save_network(tmp_path / "net.pt", net, config, origin(4, 5)))
    assert again is not net and not again.training
    given = inputs(net, sizes(net)[0], 4)
    with torch.no_grad():
        assert torch.equal(again(*given), net(*given))


QUICK = (
    "unet",
    "fast_unet",
)  # the exporter follows every size as a formula, and that takes its time
EXPORTED = {config.network: config for config in reversed(CONFIGS)}  # the first row of each
EXPORTED |= {"domains": CONFIGS[3], "nested": CONFIGS[4]}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(each, id=name, marks=() if each.network in QUICK else pytest.mark.slow)
        for name, each in EXPORTED.items()
    ],
)
def test_the_exported_network_gives_torchs_logits_at_any_size(config, tmp_path):
    net = built(name_of(config))
    *_, plain = by_domain(net).values()
    size = sizes(plain)[0]
    parity = export_onnx(plain, size, tmp_path / "net.onnx", multiple=plain.multiple)
    assert parity.windows == 3 and parity.max_difference < 1e-4
