"""A recipe's stages in order: plan, cache, networks, links, rehearsal, training, checkpoints.

A run folder holds

    recipe.json  plan.json  summary.json
    cache/                     preprocessed cases; of several domains, a folder each in it
    <stage>/<role>.pt          a trained network, able to rebuild itself
    <stage>/state.pt           the state of an interrupted stage
    <stage>/metrics.csv        losses and Dice by epoch; TensorBoard events beside it
    <stage>/summary.json       time, size and Dice of the stage

A finished stage is skipped when the run is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from DistillSegLib.distill.distillation import Distillation
from DistillSegLib.errors import RecipeError
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.records import to_dict
from DistillSegLib.training import checkpoints
from DistillSegLib.training.assembly import assemble, guide_network, notes
from DistillSegLib.training.cache import Cache
from DistillSegLib.training.devices import (
    gradients_checked,
    make_fabric,
    memory_in_words,
    undisturbed,
)
from DistillSegLib.training.fit import STATE, Epoch, fit
from DistillSegLib.training.folder import check_plan, check_recipe, read, write
from DistillSegLib.training.log import Log
from DistillSegLib.training.origin import origin_of
from DistillSegLib.training.paired import PairedLoader, patch_loader
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.preparation import open_or_prepare
from DistillSegLib.training.recipe import AugmentationConfig, Recipe, Stage
from DistillSegLib.training.start import Moments, begin, ended, is_start
from DistillSegLib.training.teachers import TeacherConfig, maps_of
from DistillSegLib.training.validation import validate

PLAIN = AugmentationConfig(
    affine=0.0, noise=0.0, smooth=0.0, contrast=0.0, brightness=0.0, low_resolution=0.0
)


@dataclass(frozen=True)
class Event:
    """Something a watcher may want to show.

    Attributes:
        kind: "checking", "measuring" and "preparing" (share of the cases done), "plan",
            "rehearsal" (text), "epoch" (an `Epoch`), "skipped" and "trained" (a stage).
    """

    kind: str
    stage: str = ""
    share: float = 0.0
    text: str = ""
    epoch: Epoch | None = None


Watch = Callable[[Event], None]


def run(
    recipe: Recipe,
    data: Mapping[str, Path],
    out: Path,
    *,
    resume: bool = False,
    on_event: Watch = lambda _event: None,
    command: str = "",
) -> dict[str, Path]:
    """Train every stage of a recipe.

    Args:
        data: domain ("" if there is one only) -> data set folder, its JSON file, or a cache that
            was prepared elsewhere; of several, the domains that the recipe's networks name.
        resume: go on with the run in `out`; without it, a folder that holds a run is refused.
        command: how this run was started, for model cards.

    Returns:
        "stage/role" -> checkpoint; nothing in the further processes that several devices need.

    Raises:
        RecipeError, DatasetError: before anything is computed, wherever that is possible.
    """
    out = Path(out)
    with undisturbed():
        begun = check_recipe(recipe, out, resume)
        fabric = make_fabric(recipe)
        watch = on_event if fabric.is_global_zero else lambda _event: None
        with fabric.rank_zero_first():
            caches = _open(recipe, data, out, begun or not fabric.is_global_zero, fabric, watch)
        watch(Event("plan", text="\n".join(map(_planned, caches, caches.values()))))
        origin = origin_of(recipe, caches, command)
        plan, labels = origin.plan, origin.labels
        shape = len(plan.channels), labels.classes
        _rehearse_ahead(recipe, caches, origin, out, fabric)
        finished: dict[str, Path] = {}
        for number, stage in enumerate(recipe.stages):
            folder = out / stage.name
            roles = _networks(stage, out)
            if all(path.is_file() for path in roles.values()):
                watch(Event("skipped", stage.name))
            else:
                torch.manual_seed(recipe.seed + number)
                source = partial(guide_network, finished=finished, plan=plan, labels=labels)
                distillation = assemble(stage, *shape, source)
                known = partial(ended, finished=finished)
                moments = begin(stage, distillation.trained, known, recipe.seed + number)
                with memory_in_words(stage.name, plan.batch):
                    _train(
                        recipe, stage, distillation, moments, caches, origin, folder, fabric, watch
                    )
                watch(Event("trained", stage.name))
            finished |= roles
        if fabric.is_global_zero:
            stages = {
                stage.name: read(out / stage.name / "summary.json") for stage in recipe.stages
            }
            write(out / "summary.json", {"provenance": origin.provenance, "stages": stages})
    return finished if fabric.is_global_zero else {}


def _open(
    recipe: Recipe, data: Mapping[str, Path], out: Path, begun: bool, fabric: Fabric, watch: Watch
) -> dict[str, Cache]:
    """The caches by domain; from here on the folder holds a run, of this recipe and plan."""
    caches = open_or_prepare(
        recipe,
        data,
        out / "cache",
        begun=begun,
        device=fabric.device,
        report=lambda kind, share: watch(Event(kind, share=share)),
    )
    plans = {domain: to_dict(cache.plan) for domain, cache in caches.items()}
    plan = plans.get("", plans)  # of several domains, one each by its name
    if begun:
        check_plan(plan, out)
    if fabric.is_global_zero:
        write(out / "plan.json", plan)
        write(out / "recipe.json", to_dict(recipe))
    return caches


def _networks(stage: Stage, out: Path) -> dict[str, Path]:
    """The checkpoints that the stage will leave, by "stage/role"."""
    return {f"{stage.name}/{role}": out / stage.name / f"{role}.pt" for role in stage.trained}


def _rehearse_ahead(
    recipe: Recipe,
    caches: Mapping[str, Cache],
    origin: checkpoints.Origin,
    out: Path,
    fabric: Fabric,
) -> None:
    """Rehearse the stages after the next one, so that no mistake waits until that has been trained.

    Networks that earlier stages are still to train are fresh ones here.
    """
    shape = len(origin.plan.channels), origin.labels.classes
    finished: dict[str, Path] = {}
    fresh: dict[str, NetworkConfig] = {}

    def source(name: str | TeacherConfig) -> nn.Module:
        if isinstance(name, str) and name in fresh:
            return build_network(fresh[name], *shape)
        return guide_network(name, finished, origin.plan, origin.labels)

    for stage in recipe.stages:
        networks = _networks(stage, out)
        if all(path.is_file() for path in networks.values()):
            finished |= networks
            continue
        if fresh:
            with memory_in_words(stage.name, origin.plan.batch):
                _rehearsal(stage, assemble(stage, *shape, source), caches, recipe, origin, fabric)
        fresh |= {f"{stage.name}/{role}": config for role, config in stage.trained.items()}


def _train(
    recipe: Recipe,
    stage: Stage,
    distillation: Distillation,
    moments: Mapping[str, Moments],
    caches: Mapping[str, Cache],
    origin: checkpoints.Origin,
    folder: Path,
    fabric: Fabric,
    watch: Watch,
) -> None:
    text = _rehearsal(stage, distillation, caches, recipe, origin, fabric)
    watch(Event("rehearsal", stage.name, text="\n".join([text, *notes(distillation)])))
    patches = _patches(
        stage,
        caches,
        recipe,
        origin,
        recipe.augmentation,
        batch=origin.plan.batch,
        workers=recipe.workers,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
    )
    with Log(folder) if fabric.is_global_zero else nullcontext() as log:

        def on_epoch(epochs: Sequence[Epoch]) -> None:
            if log:
                log.write(epochs)
            last = epochs[-1]
            watch(Event("epoch", stage.name, last.number / last.of, epoch=last))

        epochs, kept, moments = fit(
            distillation,
            patches,
            recipe,
            stage,
            fabric=fabric,
            folder=folder,
            validate=lambda net, domain, forward: validate(net, caches[domain], forward),
            on_epoch=on_epoch,
            moments=moments,
        )
    if fabric.is_global_zero:
        wanted = {role: m for role, m in moments.items() if is_start(recipe, stage, role)}
        _finish(stage, distillation, wanted, epochs, kept, origin, folder)
    fabric.barrier()  # the next stage reads these files


def _patches(
    stage: Stage,
    caches: Mapping[str, Cache],
    recipe: Recipe,
    origin: checkpoints.Origin,
    augmentation: AugmentationConfig,
    **settings: int,
) -> PatchLoader | PairedLoader:
    return patch_loader(
        caches,
        augmentation,
        window=origin.plan.window,
        seed=recipe.seed,
        stored=maps_of(stage.frozen),
        **settings,
    )


def _rehearsal(
    stage: Stage,
    distillation: Distillation,
    caches: Mapping[str, Cache],
    recipe: Recipe,
    origin: checkpoints.Origin,
    fabric: Fabric,
) -> str:
    """The rehearsal on plain patches, two of each domain; running statistics are as before it."""
    patches = _patches(stage, caches, recipe, origin, PLAIN, batch=2 * len(caches), workers=0)
    before = {name: w.clone() for name, w in distillation.state_dict().items()}
    try:
        with gradients_checked(distillation.trained, fabric):
            text = distillation.to(fabric.device).rehearse(fabric.to_device(next(patches.epoch(0))))
    except RecipeError as problem:
        stopped = RecipeError(f"Stage '{stage.name}': {problem}")
        stopped.__notes__ = getattr(problem, "__notes__", [])
        raise stopped from problem
    distillation.load_state_dict(before)
    return text


def _finish(
    stage: Stage,
    distillation: Distillation,
    moments: Mapping[str, Moments],
    epochs: Sequence[Epoch],
    kept: Epoch,
    origin: checkpoints.Origin,
    folder: Path,
) -> None:
    """Write what the stage made; its networks last, since they mark it finished."""
    networks = {role: net.net for role, net in distillation.trained.items()}
    summary = {
        "epochs": len(epochs),
        "kept_epoch": kept.number,
        "parameters": {role: count_parameters(net) for role, net in networks.items()},
        "seconds": round(sum(epoch.seconds for epoch in epochs), 1),
        "cpu_seconds": round(sum(epoch.cpu_seconds for epoch in epochs), 1),
        "held_out_dice": kept.scores,
    }
    write(folder / "summary.json", summary)
    for role, net in networks.items():
        config, path = stage.trained[role], folder / f"{role}.pt"
        checkpoints.save_network(path, net, config, origin, moments.get(role))
    (folder / STATE).unlink(missing_ok=True)


def _planned(domain: str, cache: Cache) -> str:
    structures = ", ".join(f"{label.name} ({label.value})" for label in cache.labels)
    return (
        f"{f'{domain}: ' if domain else ''}{cache.source.name}: {len(cache.training_cases)} cases "
        f"to train on, {len(cache.held_out)} held out; {structures}\n{cache.plan}"
    )
