"""Checkpoints: networks that can rebuild themselves, and the state of an interrupted stage.

Plain data and tensors only, read with `weights_only=True`: no code comes in with a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from DistillSegLib.errors import RecipeError
from DistillSegLib.files import replacing
from DistillSegLib.labels import LabelTable
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.records import from_dict, to_dict

if TYPE_CHECKING:
    from DistillSegLib.training.plan import Plan


@dataclass(frozen=True)
class Origin:
    """What every checkpoint of a run says about itself, apart from its network.

    Attributes:
        plan, labels: of the first domain, where there are several.
        recipe, provenance: plain data, carried along into packages.
        domains: what differs between the domains, where there are several.
    """

    plan: Plan
    labels: LabelTable
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]
    domains: Mapping[str, Origin] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "labels": to_dict(self.labels),
            "plan": to_dict(self.plan),
            "recipe": dict(self.recipe),
            "provenance": dict(self.provenance),
            "domains": {domain: origin.to_data() for domain, origin in self.domains.items()},
        }


def save_network(
    path: Path,
    net: nn.Module,
    config: NetworkConfig,
    origin: Origin,
    moments: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
) -> Path:
    """Write a network with all that is needed to rebuild and to package it.

    Args:
        moments: what the optimiser remembers of each weight, for a later stage that goes on.
    """
    data = {
        "network": to_dict(config),
        "weights": {name: tensor.cpu() for name, tensor in net.state_dict().items()},
        "channels": len(origin.plan.channels),
        "classes": origin.labels.classes,
    } | origin.to_data()
    if moments:
        data["moments"] = {
            name: {key: value.cpu() for key, value in moment.items()}
            for name, moment in moments.items()
        }
    return save(path, data)


def load_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint, in evaluation mode, and the checkpoint's other contents.

    Raises:
        RecipeError: no such file, or not a checkpoint of this library.
    """
    data = load(path)
    try:
        config = from_dict(NetworkConfig, data["network"])
        net = build_network(config, data["channels"], data["classes"])
        net.load_state_dict(data["weights"], strict=True)
    except (KeyError, TypeError, RuntimeError) as problem:
        raise RecipeError(
            f"'{path}' is no network checkpoint of this version of DistillSeg ({_first(problem)}); "
            "give the .pt file of a role, or train it again."
        ) from problem
    return net.eval(), data


def load_specialised(path: Path, domain: str = "") -> tuple[nn.Module, dict[str, Any]]:
    """As `load_network`; of a network of several domains that of one, with its plan and labels.

    Raises:
        RecipeError: no domain is given where there are several, or one that is not there.
    """
    net, data = load_network(path)
    domains = data.get("domains", {})
    if domain and not domains:
        raise RecipeError(
            f"'{path}' was trained on one data set, asked for '{domain}'; leave --domain out."
        )
    if domains and domain not in domains:
        raise RecipeError(
            f"'{path}' was trained on the domains {', '.join(domains)}, asked for "
            f"{repr(domain) if domain else 'none'}; choose one of them with --domain."
        )
    return (net.specialise(domain), data | domains[domain]) if domains else (net, data)


def save(path: Path, data: Mapping[str, Any]) -> Path:
    """Write plain data and tensors, whole or not at all."""
    with replacing(path) as temporary:
        torch.save(dict(data), temporary)
    return path


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote. RecipeError if it is absent or damaged."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(data, dict):
            raise TypeError(f"{type(data).__name__} instead of a table")
        return data
    except FileNotFoundError:
        raise RecipeError(f"There is no checkpoint '{path}'; train that stage first.") from None
    except Exception as problem:  # torch raises many kinds for a damaged file
        raise RecipeError(
            f"The checkpoint '{path}' cannot be read ({type(problem).__name__}); it is damaged or "
            "was not written by DistillSeg; train the stage again."
        ) from problem


def _first(problem: Exception) -> str:
    """The first line of what torch says at length."""
    return f"{type(problem).__name__}: {problem}".splitlines()[0]
