"""From what `--data` names to a cache that can be trained from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from DistillSegLib.datasets import Dataset, read_dataset
from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.networks import build_network
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import nearest
from DistillSegLib.training.adoption import adopt, stored_maps
from DistillSegLib.training.assembly import rehearse
from DistillSegLib.training.cache import INDEX, Cache, check_cases, open_cache, prepare
from DistillSegLib.training.plan import GIVEN, check_window, fingerprint, make_plan
from DistillSegLib.training.recipe import Recipe
from DistillSegLib.training.stored import check_maps

Report = Callable[[str, float], None]  # what is being done, and the share that is


def open_or_prepare(
    recipe: Recipe,
    data: Mapping[str, Path],
    folder: Path,
    *,
    begun: bool,
    device: torch.device,
    report: Report,
) -> Cache:
    """The cache that is given as data, that of a run that was begun, or a new one in `folder`.

    Raises:
        RecipeError, DatasetError: whatever in the recipe or the data would stop the training later.
    """
    if len(data) != 1:
        raise RecipeError(
            f"Recipe '{recipe.name}' trains on one data set, found {len(data)}; give one --data."
        )
    (domain, path), *_ = data.items()
    given = Path(path)
    if (given / INDEX).is_file():
        cache = _under(recipe, open_cache(given))
    elif begun and (folder / INDEX).is_file():
        cache = open_cache(folder)
    else:
        cache = _prepare(recipe, read_dataset(given, domain=domain), folder, device, report)
    plan = cache.plan
    for maps in stored_maps(recipe):
        for case in cache.training_cases:
            cache.maps(case, maps)
    rehearse(recipe, len(plan.channels), cache.labels, plan.preprocessing, plan.window)
    return cache


def _prepare(
    recipe: Recipe, dataset: Dataset, folder: Path, device: torch.device, report: Report
) -> Cache:
    labels = _labels(recipe, dataset.labels, dataset.name)
    channels = len(dataset.channels)
    rehearse(recipe, channels, labels)
    split = recipe.split
    training, held_out = dataset.split(split.folds, split.fold, split.seed)
    check_cases(dataset, on_progress=lambda share: report("checking", share))
    stored = stored_maps(recipe)
    for maps in stored:
        check_maps(maps, training, dataset.labels)
    config, adopted, limits = adopt(recipe, dataset)
    found = fingerprint(
        training,
        config.orientation or Preprocessing.orientation,
        seed=recipe.seed,
        on_progress=lambda share: report("measuring", share),
    )
    networks = _networks(recipe, channels, labels.classes)
    plan = make_plan(dataset, found, config, [*networks, *limits], device=device)
    plan = replace(plan, reasons=plan.reasons | adopted)
    return prepare(
        dataset,
        plan,
        held_out,
        labels,
        folder,
        stored=stored,
        on_progress=lambda share: report("preparing", share),
    )


def _under(recipe: Recipe, cache: Cache) -> Cache:
    """A cache that was prepared elsewhere, under this recipe's names, window and batch.

    Raises:
        RecipeError: the recipe asks for another preprocessing or another split than the cache has.
    """
    plan, config, split = cache.plan, recipe.plan, recipe.split
    for key in ("spacing_mm", "orientation", "intensity"):
        wanted, has = getattr(config, key), getattr(plan.preprocessing, key)
        if wanted not in (None, has):
            raise RecipeError(
                f"The cache '{cache.root}' was prepared with the {key} {has}, the recipe gives "
                f"{wanted}; leave plan.{key} out or prepare the data set anew."
            )
    listed = Dataset(cache.source.name, cache.cases, cache.labels, plan.channels, "", "", Path())
    _, held_out = listed.split(split.folds, split.fold, split.seed)
    if {case.id for case in held_out} != set(cache.held_out):
        raise RecipeError(
            f"The cache '{cache.root}' holds out other cases than fold {split.fold} of "
            f"{split.folds} (seed {split.seed}); give the split it was made with, or prepare the "
            "data set anew."
        )
    given = {k: getattr(config, k) for k in ("window", "batch") if getattr(config, k) is not None}
    reasons = plan.reasons | dict.fromkeys(given, GIVEN)
    labels = _labels(recipe, cache.labels, cache.source.name)
    plan = replace(plan, **given, reasons=reasons)
    multiple = check_window(plan.window, _networks(recipe, len(plan.channels), labels.classes))
    return replace(cache, plan=replace(plan, multiple=multiple), labels=labels)


def _networks(recipe: Recipe, channels: int, classes: int) -> list[nn.Module]:
    """All that will be trained, without weights."""
    with torch.device("meta"):
        return [
            build_network(config, channels, classes)
            for stage in recipe.stages
            for config in stage.trained.values()
        ]


def _labels(recipe: Recipe, found: LabelTable, name: str) -> LabelTable:
    """The data set's label table, with the recipe's names, colours and terminology where given."""
    given = {label.value: label for label in recipe.labels}
    known = [label.value for label in found]
    for value in given:
        if value not in known:
            raise RecipeError(
                f"The recipe names label {value}, which '{name}' does not have; "
                f"{nearest(str(value), map(str, known))}"
            )
    return LabelTable(tuple(given.get(label.value, label) for label in found))
