"""The list of networks, and how a configuration becomes one."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from DistillSegLib.errors import RecipeError
from DistillSegLib.networks.depthshift import DepthShiftUNet
from DistillSegLib.networks.domains import MultiDomain, Norms
from DistillSegLib.networks.encoders import EncoderDecoder
from DistillSegLib.networks.enet import ENet
from DistillSegLib.networks.fast import FastUNet
from DistillSegLib.networks.lcovnet import LCOVNet
from DistillSegLib.networks.nested import Order, nest
from DistillSegLib.networks.raunet import RAUNet
from DistillSegLib.networks.residual_unet import ResidualUNet3D
from DistillSegLib.networks.ummkd import DilatedNet, UMMKDUNet
from DistillSegLib.networks.unet import UNet
from DistillSegLib.records import convert, nearest
from DistillSegLib.windows import Size

NETWORKS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "fast_unet": FastUNet,
    "lcovnet": LCOVNet,
    "enet": ENet,
    "raunet": RAUNet,
    "encoder_decoder": EncoderDecoder,
    "depth_shift_unet": DepthShiftUNet,
    "residual_unet": ResidualUNet3D,
    "dilated_net": DilatedNet,
    "ummkd_unet": UMMKDUNet,
}


@dataclass(frozen=True)
class NetworkConfig:
    """A network by name, with the keyword arguments of its class as settings.

    Attributes:
        domains: names of the modalities it is trained on at once.
        norms: whether each domain has norms of its own, or all share them.
        nested: for structures that lie inside one another: the class indices, outermost region
            first, or "by value"; the network then answers with one sigmoid for each region.
    """

    network: str
    settings: Mapping[str, typing.Any] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    norms: Norms = "own"
    nested: Order = ()


def build_network(config: NetworkConfig, channels: int, classes: int) -> nn.Module:
    """The network of a configuration, for C image channels and K classes, with fresh weights.

    Raises:
        RecipeError: an unknown network or setting (the nearest known one is named), or a value
            that the network refuses.
    """
    if config.network not in NETWORKS:
        raise RecipeError(f"No network '{config.network}'; {nearest(config.network, NETWORKS)}")
    build = NETWORKS[config.network]
    hints = typing.get_type_hints(build.__init__)
    known = [name for name in hints if name not in _FROM_DATA]
    settings = {}
    for name, value in config.settings.items():
        if name not in known:
            raise RecipeError(
                f"Network '{config.network}' has no setting '{name}'; {nearest(name, known)}"
            )
        where = f"Network '{config.network}': {name}"
        settings[name] = convert(hints[name], value, error=RecipeError, where=where)
    try:
        if config.nested:
            net = nest(partial(build, channels, **settings), classes, config.nested)
        else:
            net = build(channels, classes, **settings)
        return MultiDomain(net, config.domains, config.norms) if config.domains else net
    except (ValueError, RuntimeError) as problem:
        raise RecipeError(f"Network '{config.network}': {problem}") from problem


def smallest_size(network: nn.Module) -> Size:
    """The fewest voxels that a network takes along every axis, or along z, y and x."""
    return getattr(network, "minimum", network.multiple)


def count_parameters(network: nn.Module) -> int:
    """Weights that are learnt."""
    return sum(weight.numel() for weight in network.parameters())


_FROM_DATA = ("channels", "classes", "return")
