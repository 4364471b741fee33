"""A recipe's stages in order: plan, cache, networks, links, rehearsal, training, checkpoints.

A run folder holds

    recipe.json  plan.json  summary.json
    cache/                     preprocessed cases
    <stage>/<role>.pt          a trained network, able to rebuild itself
    <stage>/state.pt           the state of an interrupted stage
    <stage>/metrics.csv        losses and Dice by epoch; TensorBoard events beside it

A finished stage is skipped when the run is resumed.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from DistillSegLib import __version__
from DistillSegLib.datasets import Dataset, read_dataset
from DistillSegLib.distill.distillation import Distillation
from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.files import write_text
from DistillSegLib.labels import LabelTable
from DistillSegLib.networks import build_network, count_parameters
from DistillSegLib.records import nearest, to_dict
from DistillSegLib.training import checkpoints
from DistillSegLib.training.cache import INDEX, Cache, open_cache, prepare
from DistillSegLib.training.fit import STATE, Epoch, fit, quiet
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.plan import fingerprint, make_plan
from DistillSegLib.training.recipe import Recipe, Stage
from DistillSegLib.training.validation import validate


@dataclass(frozen=True)
class Event:
    """Something a watcher may want to show.

    Attributes:
        kind: "measuring" and "preparing" (share of the cases done), "plan", "rehearsal" (text),
            "epoch" (an `Epoch`), "skipped" and "trained" (a stage).
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
            was prepared elsewhere.
        resume: go on with the run in `out`; without it, a folder that holds a run is refused.
        command: how this run was started, for model cards.

    Returns:
        "stage/role" -> checkpoint.

    Raises:
        RecipeError, DatasetError: before anything is computed, wherever that is possible.
    """
    out = Path(out)
    if (out / "recipe.json").exists() and not resume:
        raise RecipeError(
            f"'{out}' holds a run already; give --resume to go on with it, or another folder."
        )
    _check_same_recipe(recipe, out)
    with quiet():
        fabric = _fabric(recipe, out)
    write_text(out / "recipe.json", json.dumps(to_dict(recipe), indent=1))
    cache = _cache(recipe, data, out, fabric, on_event)
    write_text(out / "plan.json", json.dumps(to_dict(cache.plan), indent=1))
    on_event(Event("plan", text=str(cache.plan)))
    origin = checkpoints.Origin(
        cache.plan, cache.labels, to_dict(recipe), _provenance(recipe, cache, command)
    )
    finished: dict[str, Path] = {}
    summary: dict[str, Any] = {"provenance": origin.provenance, "stages": {}}
    for number, stage in enumerate(recipe.stages):
        torch.manual_seed(recipe.seed + number)
        roles = {f"{stage.name}/{role}": out / stage.name / f"{role}.pt" for role in stage.trained}
        if all(path.is_file() for path in roles.values()):
            on_event(Event("skipped", stage.name))
        else:
            _train(recipe, stage, cache, origin, finished, out, fabric, on_event)
            on_event(Event("trained", stage.name))
        finished |= roles
        summary["stages"][stage.name] = json.loads((out / stage.name / "summary.json").read_text())
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    return finished


def _train(
    recipe: Recipe,
    stage: Stage,
    cache: Cache,
    origin: checkpoints.Origin,
    finished: Mapping[str, Path],
    out: Path,
    fabric: Fabric,
    on_event: Watch,
) -> None:
    folder = out / stage.name
    distillation = _distillation(stage, cache, finished)
    patches = PatchLoader(
        cache,
        recipe.augmentation,
        window=cache.plan.window,
        batch=cache.plan.batch,
        seed=recipe.seed,
        workers=recipe.workers,
    )
    on_event(Event("rehearsal", stage.name, text=_rehearsal(distillation, cache, fabric)))
    loggers = [
        CSVLogger(root_dir=str(out), name=stage.name, version="log"),
        TensorBoardLogger(root_dir=str(out), name=stage.name, version="log"),
    ]
    epochs: list[Epoch] = []
    cpu, started = time.process_time(), time.monotonic()

    def log(epoch: Epoch) -> None:
        epochs.append(epoch)
        for logger in loggers:
            logger.log_metrics(epoch.row, step=epoch.number)
            logger.save()
        on_event(Event("epoch", stage.name, epoch.number / epoch.of, epoch=epoch))

    with quiet():
        distillation = fit(
            distillation,
            patches,
            optim=stage.optim or recipe.optim,
            epochs=stage.epochs,
            fabric=fabric,
            folder=folder,
            validate=lambda net, forward: validate(net, cache, forward),
            validate_every=recipe.validate_every,
            keep=recipe.keep,
            on_epoch=log,
        )
    if not fabric.is_global_zero:
        return
    summary = {
        "epochs": stage.epochs,
        "parameters": {r: count_parameters(net.net) for r, net in distillation.trained.items()},
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "epochs_in_this_process": len(epochs),
        "held_out_dice": epochs[-1].scores if epochs else {},
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1))
    for role, config in stage.trained.items():
        net = distillation.trained[role].net
        checkpoints.save_network(folder / f"{role}.pt", net, config, origin)
    (folder / STATE).unlink(missing_ok=True)


def _distillation(stage: Stage, cache: Cache, finished: Mapping[str, Path]) -> Distillation:
    """The stage's networks in their roles, each tapped where its links look."""
    channels, classes = len(cache.plan.channels), cache.labels.classes
    links = {name: link.build() for name, link in stage.links.items()}

    def taps(role: str) -> list[str]:
        wanted = {
            tap: None
            for link in links.values()
            if link.student == role or (link.teacher == role and link.term.guided)
            for tap in link.term.taps
        }
        return list(wanted)

    trained = {}
    for role, config in stage.trained.items():
        net = build_network(config, channels, classes)
        if role in stage.start:
            _start_from(net, stage.start[role], finished, role)
        trained[role] = Tapped(net, taps(role))
    frozen = {
        role: Tapped(_guide(source, finished, cache), taps(role))
        for role, source in stage.frozen.items()
    }
    return Distillation(trained, frozen, links)


def _guide(source: str, finished: Mapping[str, Path], cache: Cache) -> nn.Module:
    net, data = checkpoints.load_network(finished.get(source, Path(source)))
    theirs, ours = data["labels"], to_dict(cache.labels)
    names = [[label["name"] for label in table["labels"]] for table in (theirs, ours)]
    if names[0] != names[1]:
        raise RecipeError(
            f"The teacher '{source}' knows the structures {names[0]}, the data set has {names[1]}; "
            "both must be trained on the same label table."
        )
    return net


def _start_from(net: nn.Module, source: str, finished: Mapping[str, Path], role: str) -> None:
    weights = checkpoints.load(finished.get(source, Path(source)))["weights"]
    try:
        net.load_state_dict(weights, strict=True)
    except RuntimeError as problem:
        raise RecipeError(
            f"'{role}' cannot start from '{source}': its weights are those of another network. Use "
            "the same network and settings in both stages."
        ) from problem


def _rehearsal(distillation: Distillation, cache: Cache, fabric: Fabric) -> str:
    """The rehearsal on two plain patches; what it did to running statistics is undone."""
    before = {name: w.clone() for name, w in distillation.state_dict().items()}
    plain = type(Recipe.augmentation)(affine=0, noise=0, smooth=0, contrast=0, brightness=0)
    patches = PatchLoader(
        cache,
        replace(plain, low_resolution=0),
        window=cache.plan.window,
        batch=2,
        seed=0,
        workers=0,
    )
    batch: Batch = next(patches.epoch(0))
    text = distillation.rehearse(batch)
    distillation.load_state_dict(before)
    return text


def _cache(
    recipe: Recipe, data: Mapping[str, Path], out: Path, fabric: Fabric, on_event: Watch
) -> Cache:
    if len(data) != 1:
        raise RecipeError(
            f"Recipe '{recipe.name}' trains on one data set, found {len(data)}; give one --data."
        )
    (domain, path), *_ = data.items()
    path = Path(path)
    if (path / INDEX).is_file():
        cache = open_cache(path)
    elif (out / "cache" / INDEX).is_file():
        cache = open_cache(out / "cache")
    else:
        cache = _prepare(recipe, read_dataset(path, domain=domain), out, fabric, on_event)
    recipe.rehearse(len(cache.plan.channels), cache.labels.classes)
    return cache


def _prepare(recipe: Recipe, dataset: Dataset, out: Path, fabric: Fabric, on_event: Watch) -> Cache:
    labels = _labels(recipe, dataset)
    recipe.rehearse(len(dataset.channels), labels.classes)
    split = recipe.split
    training, held_out = dataset.split(split.folds, split.fold, split.seed)
    found = fingerprint(
        training,
        recipe.plan.orientation or "LPS",
        seed=recipe.seed,
        on_progress=lambda share: on_event(Event("measuring", share=share)),
    )
    with torch.device("meta"):
        networks = [
            build_network(config, len(dataset.channels), labels.classes)
            for stage in recipe.stages
            for config in stage.trained.values()
        ]
    plan = make_plan(dataset, found, recipe.plan, networks, device=fabric.device)
    return prepare(
        dataset,
        plan,
        held_out,
        labels,
        out / "cache",
        on_progress=lambda share: on_event(Event("preparing", share=share)),
    )


def _labels(recipe: Recipe, dataset: Dataset) -> LabelTable:
    """The data set's label table, with the recipe's names, colours and terminology where given."""
    given = {label.value: label for label in recipe.labels}
    known = [label.value for label in dataset.labels]
    for value in given:
        if value not in known:
            raise RecipeError(
                f"The recipe names label {value}, which '{dataset.name}' does not have; "
                f"{nearest(str(value), map(str, known))}"
            )
    return LabelTable(tuple(given.get(label.value, label) for label in dataset.labels))


def _fabric(recipe: Recipe, out: Path) -> Fabric:
    precision = recipe.precision
    if precision == "auto":
        gpu = torch.cuda.is_available() and recipe.accelerator != "cpu"
        precision = "bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true"
    fabric = Fabric(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        strategy=recipe.strategy,
        precision=precision,
    )
    fabric.launch()
    return fabric


def _check_same_recipe(recipe: Recipe, out: Path) -> None:
    """Resuming with another recipe would mix two experiments; more epochs of one do not."""
    path = out / "recipe.json"
    if not path.is_file():
        return
    before = json.loads(path.read_text())
    now = json.loads(json.dumps(to_dict(recipe)))
    for key in now:
        if key not in ("workers", "validate_every", "devices") and before.get(key) != now[key]:
            raise RecipeError(
                f"'{out}' was begun with another '{key}'; resume it with the recipe and the --set "
                "values it was begun with, or choose another folder."
            )


def _provenance(recipe: Recipe, cache: Cache, command: str) -> dict[str, Any]:
    packages = ("torch", "monai", "lightning-fabric", "numpy")
    return {
        "distillseg": __version__,
        "recipe": recipe.name,
        "command": command,
        "dataset": cache.source.name,
        "licence": cache.source.licence,
        "reference": cache.source.reference,
        "seed": recipe.seed,
        "split": to_dict(recipe.split),
        "training_cases": [case.id for case in cache.training_cases],
        "held_out_cases": list(cache.held_out),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
    }
