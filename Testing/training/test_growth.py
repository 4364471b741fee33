"""Growth: the same function in a wider network, copies that separate, and moments that fit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from DistillSegLib.distill.growth import inherit, widen, widths
from DistillSegLib.networks import count_parameters
from DistillSegLib.networks.unet import UNet

WIDTHS = [(5, 10, 20), (9, 18, 36), (16, 32, 64), (24, 48, 96), (30, 60, 120)]


def volume(seed: int, channels: int = 1) -> torch.Tensor:
    return torch.randn((2, channels, 8, 8, 12), generator=torch.Generator().manual_seed(seed))


def trained(
    net: UNet, steps: int = 3, optimizer: torch.optim.Optimizer | None = None
) -> tuple[UNet, torch.optim.Optimizer]:
    """The network after a few steps: its statistics and moments are not those of the start."""
    optimizer = optimizer or torch.optim.AdamW(net.parameters(), lr=1e-3)
    net.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss(net, step).backward()
        optimizer.step()
    return net, optimizer


def loss(net: UNet, seed: int) -> torch.Tensor:
    image = volume(seed, net.encoder[0][0][0].in_channels)
    return functional.cross_entropy(net(image), (image[:, 0] > 0.5).long())


def narrow(width: tuple[int, ...] = (3, 4), **settings) -> tuple[UNet, torch.optim.Optimizer]:
    torch.manual_seed(1)
    return trained(UNet(1, 2, width, **settings))


def moments_of(net: UNet, optimizer: torch.optim.Optimizer) -> dict:
    return {name: optimizer.state[w] for name, w in net.named_parameters() if w in optimizer.state}


def furthest(a: UNet, b: UNet, image: torch.Tensor) -> float:
    with torch.no_grad():
        return (a.eval()(image) - b.eval()(image)).abs().max().item()


# The function


@pytest.mark.parametrize("noise", [0.0, 1e-2, 1.0])
def test_each_growth_of_the_assistant_keeps_its_logits(noise):
    torch.manual_seed(0)
    assistant, _ = trained(UNet(1, 2, WIDTHS[0]))
    sizes = [count_parameters(assistant)]
    for number, width in enumerate(WIDTHS[1:]):
        grown = UNet(1, 2, width)
        widen(grown, assistant, noise=noise, seed=number)
        assert furthest(grown, assistant, volume(9)) < 1e-6
        assistant, _ = trained(grown, steps=1)  # the next growth meets copies that separated
        sizes.append(count_parameters(assistant))
    assert sizes == [34_772, 112_160, 353_618, 794_810, 1_241_372]


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "instance"},
        {"dims": 2},
        {"deep_supervision": True},
        {"convolutions": 1},
        {"convolutions": 3, "dropout": 0.5},
    ],
)
def test_growth_keeps_the_function_of_every_kind_of_unet(settings):
    source = narrow((2, 5, 3), **settings)[0].double()  # so that rounding hides nothing
    target = UNet(1, 2, (5, 5, 7), **settings).double()  # one level stays as it is
    widen(target, source)
    assert furthest(target, source, volume(9).double()) < 1e-12
    if settings.get("deep_supervision"):
        seen = []
        for net in (source, target):
            net.heads[1].register_forward_hook(lambda *args: seen.append(args[-1]))
            net(volume(9).double())
        assert torch.allclose(*seen, atol=1e-12)


def test_growth_keeps_the_function_while_training_too():
    source, _ = narrow()
    target = UNet(1, 2, (5, 9))
    widen(target, source)
    assert torch.allclose(target.train()(volume(9)), source.train()(volume(9)), atol=1e-5)


def test_each_part_of_a_concatenation_is_divided_by_its_own_copies():
    source, target = UNet(1, 2, (1, 2), convolutions=1), UNet(1, 2, (3, 4), convolutions=1)
    with torch.no_grad():
        source.decoder[0][0][0].weight[:] = torch.tensor([6.0, 6.0, 6.0]).reshape(1, 3, 1, 1, 1)
    widen(target, source, noise=0.0)
    read = target.decoder[0][0][0].weight[:, :, 0, 0, 0]
    deep, skip = [3.0] * 4, [2.0] * 3  # two units twice each, one unit three times
    assert read.tolist() == [deep + skip] * 3


def test_every_unit_is_copied_as_often_as_the_others_or_once_more():
    source, target = UNet(1, 2, (3, 4)), UNet(1, 2, (8, 17))
    with torch.no_grad():
        for level, units in ((0, 3), (1, 4)):
            source.encoder[level][0][1].bias[:] = torch.arange(units)
    widen(target, source)
    for level, counts in ((0, {2, 3}), (1, {4, 5})):
        copied = target.encoder[level][0][1].bias.long()
        assert copied[: level + 3].tolist() == list(range(level + 3))
        assert set(copied.bincount().tolist()) == counts


# Symmetry


def spread(net: UNet, units: int) -> float:
    """How far apart the gradients of a unit's two copies are, as a share of their size."""
    net.train()
    net.zero_grad()
    loss(net, 7).backward()
    gradient = net.encoder[0][0][0].weight.grad
    pairs = gradient[:units], gradient[units : 2 * units]
    copied = net.encoder[0][0][1].weight.detach()  # tells which unit a copy is of
    order = [int((copied[units:] - value).abs().argmin()) for value in copied[:units]]
    return ((pairs[0] - pairs[1][order]).norm() / pairs[0].norm()).item()


def test_noise_makes_the_gradients_of_copies_differ_and_none_leaves_them_equal():
    source, _ = narrow((4, 4))
    grown = {}
    for noise in (0.0, 1e-2):
        grown[noise] = UNet(1, 2, (8, 8))
        widen(grown[noise], source, noise=noise)
        first = grown[noise].encoder[0][0][0].weight
        assert len(first.flatten(1).unique(dim=0)) == 4  # nobody reads the image differently yet
    assert spread(grown[0.0], 4) < 1e-4
    assert spread(grown[1e-2], 4) > 1e-2
    for noise, kinds in ((0.0, 4), (1e-2, 8)):  # after a step they differ, or are copies still
        trained(grown[noise], 1, torch.optim.SGD(grown[noise].parameters(), lr=1.0))
        weight = grown[noise].encoder[0][0][0].weight.detach().flatten(1)
        distances = torch.cdist(weight, weight) > 1e-5
        assert len(distances.unique(dim=0)) == kinds


def test_the_same_seed_grows_the_same_network():
    source, _ = narrow()
    nets = [UNet(1, 2, (5, 9)) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2)):
        widen(net, source, seed=seed)
    one, same, other = ([*net.state_dict().values()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(one, same))
    assert not all(torch.equal(a, b) for a, b in zip(one, other))


# Moments


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_moments_are_mapped_as_gradients_are(deep_supervision):
    """A gradient handed through `widen` as a moment is the wide network's own gradient."""
    source, _ = narrow((3, 4, 5), deep_supervision=deep_supervision)
    target = UNet(1, 2, (5, 9, 11), deep_supervision=deep_supervision)
    source.zero_grad()
    loss(source.train(), 7).backward()
    given = {name: w.grad for name, w in source.named_parameters() if w.grad is not None}
    moments = widen(
        target,
        source,
        {name: {"exp_avg": g, "exp_avg_sq": g**2} for name, g in given.items()},
        noise=0.0,
    )
    target.zero_grad()
    loss(target.train(), 7).backward()
    parameters = dict(target.named_parameters())
    assert moments.keys() == given.keys()
    for name, moment in moments.items():
        gradient = parameters[name].grad
        size = gradient.abs().max().item()
        assert torch.allclose(moment["exp_avg"], gradient, atol=1e-3 * size + 1e-7), name
        assert torch.allclose(moment["exp_avg_sq"], gradient**2, atol=2e-3 * size**2 + 1e-12), name


def follow(net: UNet, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """Weights' steps at the next batch."""
    before = torch.cat([w.detach().flatten().clone() for w in net.parameters()])
    trained(net, 1, optimizer)
    return torch.cat([w.detach().flatten() for w in net.parameters()]) - before


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_the_first_update_after_growth_has_no_spike(kind):
    make = {
        "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=1e-3),
        "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.99, nesterov=True),
    }[kind]
    torch.manual_seed(1)
    source = UNet(1, 2, (3, 4))
    source, optimizer = trained(source, 30, make(source))
    kept, fresh = UNet(1, 2, (6, 8)), UNet(1, 2, (6, 8))
    moments = widen(kept, source, moments_of(source, optimizer))
    widen(fresh, source)
    begun = make(kept)
    state = {w: moments[name] for name, w in kept.named_parameters()}
    begun.state.update(state)
    steps = {
        "before": follow(source, optimizer),
        "kept": follow(kept, begun),
        "fresh": follow(fresh, make(fresh)),
    }
    size = {name: step.square().mean().sqrt().item() for name, step in steps.items()}
    assert size["kept"] == pytest.approx(size["before"], rel=0.5)
    if kind == "adamw":  # without moments every weight moves by the full rate, in its first step
        assert size["fresh"] > 1.5 * size["kept"]
    else:  # without momentum it stands almost still
        assert size["fresh"] < 0.5 * size["kept"]


# What cannot grow


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (UNet(1, 2, (6, 3)), r"width \[3, 4\] cannot grow to \[6, 3\]; .* each at least as wide"),
        (UNet(1, 2, (6, 8, 8)), "give as many levels"),
        (UNet(2, 2, (6, 8)), "differ in more than their widths"),
        (UNet(1, 3, (6, 8)), "same number of channels and classes"),
        (UNet(1, 2, (6, 8), dims=2), "differ in more than their widths"),
        (UNet(1, 2, (6, 8), norm="instance"), "differ in more than their widths"),
        (UNet(1, 2, (6, 8), convolutions=1), "differ in more than their widths"),
    ],
)
def test_what_is_no_wider_form_of_the_same_network_is_refused(target, sentence):
    with pytest.raises(ValueError, match=sentence):
        widen(target, UNet(1, 2, (3, 4)))


def test_widths_are_read_from_the_network():
    assert widths(UNet(1, 2, (5, 10, 20))) == [5, 10, 20]


def test_inherit_copies_the_overlap_of_equal_names_and_names_it():
    source, target = UNet(1, 2, (3, 4)), UNet(1, 2, (5, 4, 2))
    before = {name: w.clone() for name, w in target.state_dict().items()}
    copied = inherit(target, source)
    assert "encoder.0.0.0.weight" in copied and "encoder.1.1.1.running_mean" in copied
    assert not [name for name in copied if name.startswith(("encoder.2", "decoder.1"))]
    ours, theirs = target.state_dict(), source.state_dict()
    weight = ours["encoder.0.1.0.weight"]
    assert torch.equal(weight[:3, :3], theirs["encoder.0.1.0.weight"])
    assert torch.equal(weight[3:], before["encoder.0.1.0.weight"][3:])
    assert all(torch.equal(ours[name], before[name]) for name in ours if name not in copied)
