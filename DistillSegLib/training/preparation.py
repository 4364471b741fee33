"""From what `--data` names to caches that can be trained from, one for each domain."""

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
from DistillSegLib.networks.domains import by_domain
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import nearest
from DistillSegLib.training.adoption import adopt, stored_maps
from DistillSegLib.training.assembly import rehearse
from DistillSegLib.training.cache import INDEX, Cache, check_cases, labelled, open_cache, prepare
from DistillSegLib.training.checkpoints import load_network
from DistillSegLib.training.plan import GIVEN, check_window, fingerprint
from DistillSegLib.training.recipe import Recipe
from DistillSegLib.training.stored import check_maps
from DistillSegLib.training.together import (
    check_alike,
    check_domains,
    check_guides,
    check_names,
    check_plans,
    checkpoints_of,
    plan_together,
)

Report = Callable[[str, float], None]  # what is being done, and the share that is


def open_or_prepare(
    recipe: Recipe,
    data: Mapping[str, Path],
    folder: Path,
    *,
    begun: bool,
    device: torch.device,
    report: Report,
) -> dict[str, Cache]:
    """Caches that are given as data, those of a run that was begun, or new ones in `folder`.

    Returns:
        domain -> cache, in the order of the recipe's domains; "" -> cache if it names none.

    Raises:
        RecipeError, DatasetError: whatever in the recipe or the data would stop the training later.
    """
    domains = check_domains(recipe, data)
    check_guides(recipe, domains)
    given = {domain: Path(data[domain]) for domain in domains}
    (name, path), *_ = data.items()
    given, names = (given, domains) if domains else ({"": Path(path)}, (name,))
    folders = {domain: folder / domain for domain in given}
    elsewhere = [domain for domain, path in given.items() if (path / INDEX).is_file()]
    if len(elsewhere) == len(given):
        caches = {domain: _under(recipe, open_cache(path)) for domain, path in given.items()}
    elif elsewhere:
        raise RecipeError(
            f"The data of domain '{elsewhere[0]}' are a cache, those of others are data sets; "
            "give caches or data sets for all domains."
        )
    elif begun and all((path / INDEX).is_file() for path in folders.values()):
        caches = {domain: open_cache(path) for domain, path in folders.items()}
    else:
        datasets = {
            domain: read_dataset(path, domain=name)
            for (domain, path), name in zip(given.items(), names, strict=True)
        }
        caches = _prepare(recipe, datasets, folders, device, report)
    plans = {domain: cache.plan for domain, cache in caches.items()}
    check_alike({d: c.labels for d, c in caches.items()}, {d: p.channels for d, p in plans.items()})
    check_plans(plans)
    check_guides(recipe, domains, plans)
    for cache in caches.values():
        for maps in stored_maps(recipe):
            for case in cache.training_cases:
                cache.maps(case, maps)
    first = next(iter(caches.values()))
    plan = first.plan
    rehearse(recipe, len(plan.channels), first.labels, plan.preprocessing, plan.window)
    return caches


def _prepare(
    recipe: Recipe,
    datasets: Mapping[str, Dataset],
    folders: Mapping[str, Path],
    device: torch.device,
    report: Report,
) -> dict[str, Cache]:
    labels = {d: _labels(recipe, dataset.labels, dataset.name) for d, dataset in datasets.items()}
    check_alike(labels, {domain: dataset.channels for domain, dataset in datasets.items()})
    first = next(iter(datasets))
    channels, classes = len(datasets[first].channels), labels[first].classes
    rehearse(recipe, channels, labels[first])
    split = recipe.split
    splits = {d: data.split(split.folds, split.fold, split.seed) for d, data in datasets.items()}
    stored = stored_maps(recipe)
    if stored:
        check_names(datasets)
    for domain, dataset in datasets.items():
        check_cases(dataset, on_progress=_part(report, "checking", domain, datasets))
        for maps in stored:
            check_maps(maps, splits[domain][0], dataset.labels)
    config, reasons, limits = adopt(recipe, datasets[first])
    found = {
        domain: fingerprint(
            splits[domain][0],
            config.orientation or Preprocessing.orientation,
            labelled=labelled(splits[domain][0], split.labelled, split.seed),
            seed=recipe.seed,
            on_progress=_part(report, "measuring", domain, datasets),
        )
        for domain in datasets
    }
    networks = [*_networks(recipe, channels, classes), *limits]
    plans = plan_together(datasets, found, config, networks, reasons, device=device)
    return {
        domain: prepare(
            dataset,
            plans[domain],
            splits[domain][1],
            labels[domain],
            folders[domain],
            stored=stored,
            on_progress=_part(report, "preparing", domain, datasets),
        )
        for domain, dataset in datasets.items()
    }


def _part(
    report: Report, kind: str, domain: str, domains: Mapping[str, Dataset]
) -> Callable[[float], None]:
    """Progress within one domain as progress of all."""
    done = list(domains).index(domain)
    return lambda share: report(kind, (done + share) / len(domains))


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
    """All that will be trained or loaded, as one domain passes through them, without weights."""
    with torch.device("meta"):
        networks = [
            build_network(config, channels, classes)
            for stage in recipe.stages
            for config in stage.trained.values()
        ]
    networks += [load_network(path)[0].to("meta") for path in checkpoints_of(recipe)]
    return [next(iter(by_domain(network).values())) for network in networks]


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
