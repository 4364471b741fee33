"""A stage's networks in their roles, linked: for training, and without weights before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from DistillSegLib.distill.distillation import Distillation
from DistillSegLib.distill.views import Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import nearest, to_dict
from DistillSegLib.training.checkpoints import load_network
from DistillSegLib.training.recipe import Recipe, Stage
from DistillSegLib.training.start import begin

Source = Callable[[str], nn.Module]  # "stage/role" or the path of a checkpoint -> its network


def rehearse(
    recipe: Recipe, channels: int, labels: LabelTable, preprocessing: Preprocessing | None = None
) -> None:
    """Put every stage together once, without weights, so that no mistake waits for the night.

    Args:
        preprocessing: of the data, once it is planned; guides from elsewhere must share it.

    Raises:
        RecipeError: an unknown network, term, setting, stage, role or tap, or a checkpoint that
            does not fit.
    """
    made: dict[str, NetworkConfig] = {}

    def source(name: str) -> nn.Module:
        if name in made:
            return build_network(made[name], channels, labels.classes)
        if not name.endswith(".pt"):
            raise RecipeError(f"no earlier stage makes '{name}'; {nearest(name, made)}")
        with torch.device("cpu"):
            return _from_elsewhere(Path(name), labels, preprocessing).to("meta")

    with torch.device("meta"):
        for stage in recipe.stages:
            try:
                distillation = assemble(stage, channels, labels.classes, source)
                begin(stage, distillation.trained, lambda name: (source(name), {}), recipe.seed)
            except RecipeError as problem:
                raise RecipeError(f"Stage '{stage.name}': {problem}") from problem
            made |= {f"{stage.name}/{role}": config for role, config in stage.trained.items()}


def assemble(stage: Stage, channels: int, classes: int, source: Source) -> Distillation:
    """The stage's networks, tapped where its links look, and the links between them."""
    links = {name: link.build() for name, link in stage.links.items()}
    trained = {role: build_network(c, channels, classes) for role, c in stage.trained.items()}
    frozen = {role: source(name) for role, name in stage.frozen.items()}

    def tapped(role: str, net: nn.Module) -> Tapped:
        wanted = {
            tap: None
            for link in links.values()
            if role == link.student or (link.term.guided and role == link.teacher)
            for tap in link.term.taps
        }
        try:
            return Tapped(net, list(wanted))
        except ValueError as problem:
            raise RecipeError(f"role '{role}': {problem}") from problem

    return Distillation(
        {role: tapped(role, net) for role, net in trained.items()},
        {role: tapped(role, net) for role, net in frozen.items()},
        links,
    )


def trained_network(name: str, finished: Mapping[str, Path]) -> nn.Module:
    """The network of a finished stage's role, or of a checkpoint from elsewhere."""
    return load_network(finished.get(name, Path(name)))[0]


def _from_elsewhere(
    path: Path, labels: LabelTable, preprocessing: Preprocessing | None
) -> nn.Module:
    net, data = load_network(path)
    theirs = [label["name"] for label in data["labels"]["labels"]]
    ours = [label.name for label in labels]
    if theirs != ours:
        raise RecipeError(
            f"'{path}' knows the structures {theirs}, the data set has {ours}; both must be "
            "trained on the same label table."
        )
    seen = data["plan"]["preprocessing"]
    for key, value in to_dict(preprocessing).items() if preprocessing else ():
        if seen[key] != value:
            raise RecipeError(
                f"'{path}' was trained on images with the {key} {seen[key]}, the plan has {value}; "
                f"give plan.{key} as it was there."
            )
    return net
