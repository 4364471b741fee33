"""One network for several modalities: shared convolutions, norms of their own, one of each out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from DistillSegLib.distill.distillation import Distillation, Link
from DistillSegLib.distill.supervised import LabelLoss
from DistillSegLib.distill.ummkd import DomainAgreement
from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.networks import NETWORKS, NetworkConfig, build_network, count_parameters
from DistillSegLib.networks.domains import NORMS, DomainNorm, MultiDomain, by_domain
from DistillSegLib.networks.ummkd import DilatedNet, neighbours, symmetric_pad

SMALL = {  # settings that keep each network small, and its smallest sensible size
    "unet": ({"width": (4, 8)}, (4, 6, 8)),
    "fast_unet": ({"width": (4, 4), "stem": 2}, (8, 4, 12)),
    "lcovnet": ({"width": (2, 4, 4, 4, 4)}, (32, 32, 48)),
    "dilated_net": ({"width": 2}, (3, 16, 24)),
    "ummkd_unet": ({"width": 2}, (8, 16, 24)),
}
ANY = [name for name in NETWORKS if name in SMALL]


def multi(name: str = "unet", domains=("ct", "mr"), **settings) -> MultiDomain:
    """With statistics and norms that differ between the domains, as after training."""
    torch.manual_seed(0)
    config = NetworkConfig(name, SMALL[name][0] | settings, domains)
    net = build_network(config, channels=1, classes=3)
    for layer in net.modules():
        if isinstance(layer, NORMS) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias, std=0.2)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(std=0.2)
            layer.running_var.uniform_(0.5, 2)
    return net


def image(name: str = "unet", samples: int = 4) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(samples, 1, *SMALL[name][1])


def norms(net: nn.Module, domain: int) -> list[torch.Tensor]:
    layers = [layer.norms[domain] for layer in net.modules() if isinstance(layer, DomainNorm)]
    return [tensor.clone() for layer in layers for tensor in layer.state_dict().values()]


# Sizes


@pytest.mark.parametrize(
    ("network", "one", "two"),
    [("dilated_net", 39_322_648, 39_342_840), ("ummkd_unet", 2_201_589, 2_204_565)],
)
def test_parameter_counts_match_the_paper(network, one, two):
    with torch.device("meta"):
        nets = [
            build_network(NetworkConfig(network, domains=domains), 1, 5)
            for domains in ((), ("ct",), ("ct", "mr"), ("ct", "mr", "pet"))
        ]
    assert [count_parameters(net) for net in nets] == [one, one, two, two + (two - one)]
    convolutions = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)
    shared = [layer for layer in nets[0].modules() if isinstance(layer, convolutions)]
    weights = sum(count_parameters(layer) for layer in shared)
    assert weights == {"dilated_net": 39_302_456, "ummkd_unet": 2_198_613}[network]
    if network == "dilated_net":
        assert len(shared) == 33
        assert sum(isinstance(layer, NORMS) for layer in nets[0].modules()) == 31


# Norms by domain


@pytest.mark.parametrize("name", ANY)
def test_each_domain_alone_gives_what_the_whole_network_gives_it(name):
    net = multi(name).eval()
    batch, domain = image(name), torch.tensor([1, 1, 0, 0])  # in the batch's order, not by index
    with torch.no_grad():
        together = net(batch, domain)
        mr, ct = (net.specialise(d)(part) for d, part in zip(("mr", "ct"), batch.split(2)))
    assert together.shape == (4, 3, *batch.shape[2:])
    torch.testing.assert_close(together, torch.cat((mr, ct)))
    assert not torch.allclose(net.specialise("ct")(batch), net.specialise("mr")(batch))


@pytest.mark.parametrize("name", ANY)
def test_a_specialised_network_is_the_plain_one(name):
    net = multi(name)
    plain = build_network(NetworkConfig(name, SMALL[name][0]), 1, 3)
    alone = net.specialise("mr")
    assert type(alone) is type(plain)
    plain.load_state_dict(alone.state_dict(), strict=True)
    assert (alone.multiple, alone.taps) == (plain.multiple, plain.taps)
    assert net.multiple == plain.multiple
    assert getattr(net, "minimum", None) == getattr(plain, "minimum", None)
    assert not any(isinstance(layer, DomainNorm) for layer in alone.modules())
    assert any(isinstance(layer, DomainNorm) for layer in net.modules())  # a copy was made


def test_a_specialised_fast_network_keeps_its_coarse_head():
    alone = multi("fast_unet").eval().specialise("ct")
    batch = image("fast_unet")
    assert alone.stride == 2
    assert torch.equal(alone.upsample(alone.coarse(batch)), alone(batch))


@pytest.mark.parametrize("name", ANY)
def test_training_on_one_modality_leaves_the_others_statistics_bit_for_bit(name):
    net = multi(name).train()
    before = [norms(net, domain) for domain in (0, 1)]
    net(image(name, 2), torch.tensor([0, 0])).sum().backward()
    for ours, theirs in zip(before[1], norms(net, 1), strict=True):
        assert torch.equal(ours, theirs)
    assert not all(torch.equal(a, b) for a, b in zip(before[0], norms(net, 0), strict=True))
    for layer in net.modules():
        if isinstance(layer, DomainNorm):
            assert all(weight.grad is None for weight in layer.norms[1].parameters())


def test_no_norm_ever_sees_two_modalities():
    net = multi().train()
    batch = image()
    batch[2:] += 100  # the second modality's own mean, which would show in the first one's
    together = net(batch, torch.tensor([0, 0, 1, 1]))
    alone = net(batch[:2], torch.tensor([0, 0]))
    assert torch.equal(together[:2], alone)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_with_equal_norms_the_domains_give_equal_outputs(norm):
    torch.manual_seed(0)
    config = NetworkConfig("unet", {"width": (4, 8), "norm": norm}, ("ct", "mr"))
    net = build_network(config, 1, 3).train()
    batch = image(samples=2).repeat(2, 1, 1, 1, 1)
    first, second = net(batch, torch.tensor([0, 0, 1, 1])).split(2)
    assert torch.equal(first, second)


def test_group_norms_are_by_domain_too():
    net = MultiDomain(nn.Sequential(nn.Conv3d(1, 4, 1), nn.GroupNorm(2, 4)), ["ct", "mr"])
    assert count_parameters(net) == 8 + 2 * 8
    assert isinstance(net.specialise("mr")[1], nn.GroupNorm)


def test_shared_norms_see_both_modalities_in_one_pass():
    torch.manual_seed(0)
    settings = NetworkConfig("unet", {"width": (4, 8)}, ("ct", "mr"), norms="shared")
    net = build_network(settings, 1, 3).train()
    plain = build_network(NetworkConfig("unet", {"width": (4, 8)}), 1, 3).train()
    plain.load_state_dict(net.net.state_dict())
    batch, domain = image(), torch.tensor([0, 0, 1, 1])
    batch[2:] += 100  # the second modality's own mean shows in the first one's statistics
    together = net(batch, domain)
    assert torch.equal(together, plain(batch))
    assert not torch.allclose(together[:2], net(batch[:2], domain[:2]))
    assert count_parameters(net) == count_parameters(plain)
    ct, mr = by_domain(net.eval()).values()
    assert torch.equal(ct(batch), mr(batch))
    assert type(ct) is type(plain)


def test_a_network_of_one_domain_is_its_own_and_one_of_two_is_two():
    plain = build_network(NetworkConfig("unet", {"width": (4, 8)}), 1, 3)
    assert by_domain(plain) == {"": plain}
    assert list(by_domain(multi())) == ["ct", "mr"]


# Taps


@pytest.mark.parametrize("name", ["unet", "dilated_net"])
def test_taps_hold_every_sample_in_the_batchs_order(name):
    net = multi(name).eval()
    tapped = Tapped(net, ("encoder/1", "decoder/0"))
    batch, domain = image(name), torch.tensor([1, 0, 0, 0])
    view = tapped(Batch(batch, torch.zeros(1), domain))
    for tap in ("encoder/1", "decoder/0"):
        mr, ct = Tapped(net.specialise("mr"), (tap,)), Tapped(net.specialise("ct"), (tap,))
        parts = [
            mr(Batch(batch[:1], torch.zeros(1))).taps[tap],
            ct(Batch(batch[1:], torch.zeros(1))).taps[tap],
        ]
        assert view.taps[tap].ndim == 5 and len(view.taps[tap]) == 4
        torch.testing.assert_close(view.taps[tap], torch.cat(parts))


def test_a_plain_network_among_domains_sees_images_only():
    plain = Tapped(build_network(NetworkConfig("unet", {"width": (4, 8)}), 1, 3).eval())
    batch = image()
    given = Batch(batch, torch.zeros(1), torch.tensor([0, 0, 1, 1]))
    assert torch.equal(plain(given).logits, plain.net(batch))


# Refusals


@pytest.mark.parametrize(
    ("domain", "sentence"),
    [
        (None, "was given images without their domain"),
        ([0, 0, 1, 2], r"has the domain 2; there are 0 to 1 \(ct, mr\)"),
        ([0, 1, 0, 1], r"are \[0, 1, 0, 1\]; give one for each, samples of a domain side by side"),
        ([0, 1], "the domains of 4 samples"),
    ],
)
def test_samples_of_no_domain_or_a_wrong_one_are_refused(domain, sentence):
    with pytest.raises(ValueError, match=sentence):
        multi()(image(), None if domain is None else torch.tensor(domain))


def test_unknown_and_doubled_domains_are_refused():
    with pytest.raises(ValueError, match="knows no domain 'pet'; it has ct, mr"):
        multi().specialise("pet")
    with pytest.raises(RecipeError, match=r"Network 'unet': domains are .*name of its own"):
        multi(domains=("ct", "ct"))


def test_a_rehearsal_with_one_modality_only_says_what_is_missing():
    links = {"label": Link(LabelLoss()), "agreement": Link(DomainAgreement(), 0.5)}
    distillation = Distillation({"student": Tapped(multi())}, {}, links)
    batch = Batch(image(), torch.zeros(4, 4, 6, 8, dtype=torch.int64), torch.zeros(4).long())
    with pytest.raises(RecipeError, match=r"Link 'agreement': .*give a second --data"):
        distillation.rehearse(batch)
    both = batch._replace(domain=torch.tensor([0, 0, 1, 1]))
    assert "DomainAgreement(temperature=2.0" in distillation.rehearse(both)


# The paper's networks


@pytest.mark.parametrize("name", ["dilated_net", "ummkd_unet"])
def test_the_papers_networks_keep_the_grid_and_tap_at_the_stride_they_say(name):
    net = build_network(NetworkConfig(name, {"width": 2}), 2, 3).eval()
    given = torch.randn(1, 2, 8, 16, 24)
    view = Tapped(net, net.taps)(Batch(given, torch.zeros(1)))
    assert view.logits.shape == (1, 3, 8, 16, 24)
    strides = {tap: 24 // features.shape[-1] for tap, features in view.taps.items()}
    assert strides == {tap: 2 ** int(tap.split("/")[1]) for tap in net.taps}
    assert any(isinstance(layer, nn.LeakyReLU) for layer in net.modules())
    for layer in net.modules():
        assert not isinstance(layer, nn.LeakyReLU) or layer.negative_slope == 0.2
        assert not isinstance(layer, NORMS) or (layer.eps, layer.momentum) == (1e-3, 0.1)


def test_neighbours_are_the_slices_beside_and_the_ends_twice():
    volume = torch.arange(4.0).reshape(1, 1, 4, 1, 1)
    before, here, after = neighbours(volume)[0, :, :, 0, 0].tolist()
    assert (before, here, after) == ([0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3])
    assert neighbours(torch.ones(2, 2, 1, 4, 4)).shape == (2, 6, 1, 4, 4)


def test_a_dilated_net_sees_one_slice_before_and_one_after():
    net = build_network(NetworkConfig("dilated_net", {"width": 2}), 1, 3).eval()
    given = torch.randn(1, 1, 7, 16, 16)
    changed = given.clone()
    changed[:, :, 3] += 1
    with torch.no_grad():
        moved = (net(given) - net(changed)).abs().amax((0, 1, 3, 4))
    assert (moved > 0).tolist() == [False, False, True, True, True, False, False]


def test_symmetric_padding_repeats_the_edge():
    row = torch.arange(1.0, 4.0).expand(1, 1, 3, 3)
    assert symmetric_pad(row, 2)[0, 0, 3].tolist() == [2, 1, 1, 2, 3, 3, 2]
    column = row.transpose(2, 3)
    assert symmetric_pad(column, 2)[0, 0, :, 3].tolist() == [2, 1, 1, 2, 3, 3, 2]


def test_a_shortcut_adds_zeros_on_both_sides_of_its_channels():
    block = DilatedNet(1, 2, 2).groups[1][0].eval()  # from 2 to 4 features
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    features = torch.randn(1, 2, 4, 4)
    out = block(features)
    assert torch.equal(out[:, 1:3], features)
    assert not out[:, [0, 3]].any()


def test_every_slice_of_the_3d_network_hears_from_below():
    net = build_network(NetworkConfig("ummkd_unet", {"width": 2}), 1, 3).eval()
    up = net.up[2](torch.randn(1, 32, 1, 2, 2))  # from the bottom's one slice to two
    assert up.shape == (1, 16, 2, 4, 4)
    assert torch.equal(up[:, :, 0], up[:, :, 1])


def test_a_width_of_zero_is_refused():
    for name in ("dilated_net", "ummkd_unet"):
        with pytest.raises(RecipeError, match="width is 0; use 1 or more"):
            build_network(NetworkConfig(name, {"width": 0}), 1, 2)
