"""Several data sets in one training: which domain is which, what they must share, one plan each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from DistillSegLib.datasets import Dataset
from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.records import to_dict
from DistillSegLib.training.checkpoints import load
from DistillSegLib.training.plan import Fingerprint, Plan, make_plan
from DistillSegLib.training.recipe import PlanConfig, Recipe, teachers

SHARED = ("spacing_mm", "orientation", "window", "batch")  # of a plan; intensities are each its own


def domains_of(recipe: Recipe) -> tuple[str, ...]:
    """The domains that a recipe's networks are trained on; none: one data set, without a name.

    Raises:
        RecipeError: its networks name different ones, or one is no name of a folder.
    """
    named = {
        f"{stage.name}/{role}": config.domains
        for stage in recipe.stages
        for role, config in stage.trained.items()
    }
    (first, domains), *others = named.items()
    for role, theirs in others:
        if theirs != domains:
            raise RecipeError(
                f"Recipe '{recipe.name}': '{first}' has the domains {_listed(domains)}, '{role}' "
                f"has {_listed(theirs)}; give all networks the same, in the same order."
            )
    for domain in domains:
        if not re.fullmatch(r"[A-Za-z]\w*", domain):
            raise RecipeError(
                f"Recipe '{recipe.name}': '{domain}' names no domain; use letters, digits and _."
            )
    return domains


def check_domains(recipe: Recipe, data: Mapping[str, Path]) -> tuple[str, ...]:
    """The recipe's domains. RecipeError if the data are not of these, one data set for each."""
    domains = domains_of(recipe)
    if not domains and len(data) != 1:
        raise RecipeError(
            f"Recipe '{recipe.name}' trains on one data set, found {len(data)}; give one --data, "
            f"or name their domains in each of its networks: domains = {sorted(data)}."
        )
    if domains and set(data) != set(domains):
        found = ", ".join(sorted(filter(None, data))) or "data without a domain"
        raise RecipeError(
            f"Recipe '{recipe.name}' trains on the domains {_listed(domains)} at once, found "
            f"{found}; give --data {' '.join(f'{domain}=DIR' for domain in domains)}, or other "
            "`domains` in the recipe."
        )
    return domains


def check_guides(
    recipe: Recipe, domains: Sequence[str], plans: Mapping[str, Plan] | None = None
) -> None:
    """RecipeError unless what the recipe starts from or learns from fits all its domains.

    A package and an nnU-Net know one data set's images, and are refused where there are several.

    Args:
        plans: of each domain, once they are made; a guide must have seen such images of each.
    """
    for teacher in teachers(recipe) if domains else ():
        if single := teacher.package or teacher.nnunet:
            raise RecipeError(
                f"'{single}' was trained on images of one kind, the recipe's domains are "
                f"{_listed(domains)}; let it segment the images of its kind and give the folder as "
                "stored, or train on each data set by itself."
            )
    for path in checkpoints_of(recipe):
        data = load(path)
        theirs = data.get("domains", {})
        if theirs and tuple(theirs) != tuple(domains):
            raise RecipeError(
                f"'{path}' was trained on the domains {_listed(tuple(theirs))}, the recipe's are "
                f"{_listed(domains)}; they must be the same, in the same order."
            )
        for domain, plan in (plans or {}).items() if domains else ():
            seen = theirs.get(domain, data)["plan"]["preprocessing"]
            if seen != to_dict(plan.preprocessing):
                raise RecipeError(
                    f"'{path}' was trained on images with the preprocessing {seen}, those of "
                    f"'{domain}' have {to_dict(plan.preprocessing)}; a guide must have seen such "
                    "images of every domain."
                )


def checkpoints_of(recipe: Recipe) -> list[Path]:
    """The checkpoints from elsewhere that a recipe names, to learn from or to start from."""
    names = [
        name
        for stage in recipe.stages
        for name in (*stage.frozen.values(), *stage.start.values())
        if isinstance(name, str) and name.endswith(".pt")
    ]
    return [Path(name) for name in dict.fromkeys(names)]


def check_names(datasets: Mapping[str, Dataset]) -> None:
    """RecipeError if two data sets have a case of one name: stored maps are found by names."""
    owner: dict[str, str] = {}
    for domain, dataset in datasets.items():
        for case in dataset.cases:
            if case.id in owner:
                raise RecipeError(
                    f"The domains '{owner[case.id]}' and '{domain}' both have a case '{case.id}', "
                    "so that a stored map of this name may be of either; rename the cases of one."
                )
            owner[case.id] = domain


def check_alike(labels: Mapping[str, LabelTable], channels: Mapping[str, Sequence[str]]) -> None:
    """RecipeError unless all domains show the same structures, in as many images of a case."""
    (first, ours), *others = labels.items()
    for domain, table in others:
        names, theirs = ([label.name for label in each] for each in (ours, table))
        if names != theirs:
            raise RecipeError(
                f"Domain '{first}' is labelled with {len(names)} structures ({', '.join(names)}), "
                f"'{domain}' with {len(theirs)} ({', '.join(theirs)}); both must have the same, in "
                "the order of their values. Names can be given in the recipe as [[labels]]."
            )
        if len(channels[domain]) != len(channels[first]):
            raise RecipeError(
                f"Domain '{first}' has {len(channels[first])} images of a case "
                f"({', '.join(channels[first])}), '{domain}' has {len(channels[domain])} "
                f"({', '.join(channels[domain])}); both must have as many."
            )


def check_plans(plans: Mapping[str, Plan]) -> None:
    """RecipeError unless the plans, of caches prepared elsewhere, have one grid and one batch."""
    (first, plan), *others = plans.items()
    for domain, theirs in others:
        for key in SHARED:
            here, there = (
                getattr(p, key, getattr(p.preprocessing, key, None)) for p in (plan, theirs)
            )
            if here != there:
                raise RecipeError(
                    f"The cache of domain '{first}' has the {key} {here}, that of '{domain}' "
                    f"{there}; give both in the recipe's [plan], or prepare them in one run."
                )
    _check_batch(plan.batch, plans)


def plan_together(
    datasets: Mapping[str, Dataset],
    found: Mapping[str, Fingerprint],
    config: PlanConfig,
    networks: Sequence[nn.Module],
    adopted: Mapping[str, str],
    *,
    device: torch.device,
) -> dict[str, Plan]:
    """One plan for each domain: intensities of its own; spacing, window and batch of all together.

    Args:
        networks: as one domain passes through them.
        adopted: value -> why, of what a teacher decided.
    """
    first = next(iter(datasets))
    measured = tuple(one for domain in datasets for one in found[domain].measured)
    shared = make_plan(
        datasets[first], replace(found[first], measured=measured), config, networks, device=device
    )
    shared = replace(shared, reasons=shared.reasons | dict(adopted))
    if len(datasets) == 1:
        return {first: shared}
    batch = config.batch or max(shared.batch // len(datasets), 1) * len(datasets)
    _check_batch(batch, datasets)
    common = replace(
        config,
        spacing_mm=shared.preprocessing.spacing_mm,
        orientation=shared.preprocessing.orientation,
        window=shared.window,
        batch=batch,
    )
    reasons = {key: f"{shared.reasons[key]}; the same for all domains" for key in SHARED}
    plans = {}
    for domain, dataset in datasets.items():
        plan = make_plan(dataset, found[domain], common, networks, device=device)
        plans[domain] = replace(plan, reasons=plan.reasons | dict(adopted) | reasons)
    return plans


def _check_batch(batch: int, domains: Mapping) -> None:
    if batch % len(domains):
        raise RecipeError(
            f"plan.batch is {batch}, which {len(domains)} domains cannot share; give a multiple of "
            f"{len(domains)}."
        )


def _listed(domains: Sequence[str]) -> str:
    return ", ".join(domains) or "none"
