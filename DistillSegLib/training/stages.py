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
from contextlib import closing, nullcontext
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
from DistillSegLib.training.seeds import seed_of
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


@dataclass(frozen=True)
class Run:
    """What the stages of a run share.

    Attributes:
        caches: domain -> preprocessed cases.
        origin: what every checkpoint says about itself.
        out: folder of the run.
        watch: told what happens; of several processes, the first alone speaks.
    """

    recipe: Recipe
    caches: Mapping[str, Cache]
    origin: checkpoints.Origin
    out: Path
    fabric: Fabric
    watch: Watch

    @property
    def shape(self) -> tuple[int, int]:
        """(channels, classes) of every network."""
        return len(self.origin.plan.channels), self.origin.labels.classes

    def networks(self, stage: Stage) -> dict[str, Path]:
        """The checkpoints that the stage will leave, by "stage/role"."""
        folder = self.out / stage.name
        return {f"{stage.name}/{role}": folder / f"{role}.pt" for role in stage.trained}

    def patches(
        self, stage: Stage, augmentation: AugmentationConfig, **settings: int
    ) -> PatchLoader | PairedLoader:
        """The batches of a stage, of all domains.

        Each stage has patches of its own: one that goes on from another must not see the same.
        """
        return patch_loader(
            self.caches,
            augmentation,
            window=self.origin.plan.window,
            seed=seed_of(self.recipe, stage),
            stored=maps_of(stage.frozen),
            split=self.recipe.split,
            **settings,
        )


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
        ground = Run(recipe, caches, origin, out, fabric, watch)
        _rehearse_ahead(ground)
        finished: dict[str, Path] = {}
        for stage in recipe.stages:
            networks = ground.networks(stage)
            if all(path.is_file() for path in networks.values()):
                watch(Event("skipped", stage.name))
            else:
                _stage(ground, stage, finished)
                watch(Event("trained", stage.name))
            finished |= networks
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


def _rehearse_ahead(run: Run) -> None:
    """Rehearse the stages after the next one, so that no mistake waits until that has been trained.

    Networks that earlier stages are still to train are fresh ones here.
    """
    origin = run.origin
    finished: dict[str, Path] = {}
    fresh: dict[str, NetworkConfig] = {}

    def source(name: str | TeacherConfig) -> nn.Module:
        if isinstance(name, str) and name in fresh:
            return build_network(fresh[name], *run.shape)
        return guide_network(name, finished, origin.plan, origin.labels)

    for stage in run.recipe.stages:
        networks = run.networks(stage)
        if all(path.is_file() for path in networks.values()):
            finished |= networks
            continue
        if fresh:
            with memory_in_words(stage.name, origin.plan.batch):
                _rehearsal(run, stage, assemble(stage, *run.shape, source))
        fresh |= {f"{stage.name}/{role}": config for role, config in stage.trained.items()}


def _rehearsal(run: Run, stage: Stage, distillation: Distillation) -> str:
    """The rehearsal on plain patches, up to two of each domain; it changes no statistics."""
    size = min(run.origin.plan.batch, 2 * len(run.caches))
    patches = run.patches(stage, PLAIN, batch=size, workers=0)
    before = {name: w.clone() for name, w in distillation.state_dict().items()}
    try:
        batch = run.fabric.to_device(next(patches.epoch(0)))
        with gradients_checked(distillation.trained, run.fabric):
            text = distillation.to(run.fabric.device).rehearse(batch)
    except RecipeError as problem:
        stopped = RecipeError(f"Stage '{stage.name}': {problem}")
        stopped.__notes__ = getattr(problem, "__notes__", [])
        raise stopped from problem
    distillation.load_state_dict(before)
    return text


def _stage(run: Run, stage: Stage, finished: Mapping[str, Path]) -> None:
    """Assemble, begin, rehearse and train one stage."""
    seed = seed_of(run.recipe, stage)
    torch.manual_seed(seed)
    plan, labels = run.origin.plan, run.origin.labels
    source = partial(guide_network, finished=finished, plan=plan, labels=labels)
    distillation = assemble(stage, *run.shape, source)
    moments = begin(stage, distillation.trained, partial(ended, finished=finished), seed)
    with memory_in_words(stage.name, plan.batch):
        text = _rehearsal(run, stage, distillation)
        held_out = {domain: cache.held_out for domain, cache in run.caches.items()}
        said = "\n".join([text, *notes(distillation, stage, finished, held_out)])
        run.watch(Event("rehearsal", stage.name, text=said))
        _train(run, stage, distillation, moments)


def _train(
    run: Run, stage: Stage, distillation: Distillation, moments: Mapping[str, Moments]
) -> None:
    recipe, fabric, folder = run.recipe, run.fabric, run.out / stage.name
    loader = run.patches(
        stage,
        recipe.augmentation,
        batch=run.origin.plan.batch,
        workers=recipe.workers,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
    )
    shown = Log(folder) if fabric.is_global_zero else nullcontext()
    with closing(loader) as patches, shown as log:

        def on_epoch(epochs: Sequence[Epoch]) -> None:
            if log:
                log.write(epochs)
            last = epochs[-1]
            run.watch(Event("epoch", stage.name, last.number / last.of, epoch=last))

        epochs, kept, moments = fit(
            distillation,
            patches,
            recipe,
            stage,
            fabric=fabric,
            folder=folder,
            validate=lambda net, domain, forward: validate(net, run.caches[domain], forward),
            on_epoch=on_epoch,
            moments=moments,
        )
    if fabric.is_global_zero:
        wanted = {role: m for role, m in moments.items() if is_start(recipe, stage, role)}
        _finish(run, stage, distillation, wanted, epochs, kept)
    fabric.barrier()  # the next stage reads these files


def _finish(
    run: Run,
    stage: Stage,
    distillation: Distillation,
    moments: Mapping[str, Moments],
    epochs: Sequence[Epoch],
    kept: Epoch,
) -> None:
    """Write what the stage made; its networks last, since they mark it finished."""
    folder = run.out / stage.name
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
        checkpoints.save_network(path, net, config, run.origin, moments.get(role))
    (folder / STATE).unlink(missing_ok=True)


def _planned(domain: str, cache: Cache) -> str:
    structures = ", ".join(f"{label.name} ({label.value})" for label in cache.labels)
    return (
        f"{f'{domain}: ' if domain else ''}{cache.source.name}: {len(cache.training_cases)} cases "
        f"to train on, {len(cache.held_out)} held out; {structures}\n{cache.plan}"
    )
