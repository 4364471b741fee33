"""Where a run's networks come from: what their checkpoints and packages tell."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from DistillSegLib import __version__
from DistillSegLib.records import to_dict
from DistillSegLib.training.cache import Cache
from DistillSegLib.training.checkpoints import Origin
from DistillSegLib.training.recipe import Recipe

PACKAGES = ("torch", "monai", "lightning-fabric", "numpy")


def origin_of(recipe: Recipe, caches: Mapping[str, Cache], command: str) -> Origin:
    """The origin of a run; of several domains, the whole and that of each.

    Args:
        command: how the run was started.
    """
    data = to_dict(recipe)
    each = {
        domain: Origin(cache.plan, cache.labels, data, _provenance(recipe, cache, command))
        for domain, cache in caches.items()
    }
    (first, origin), *others = each.items()
    if not others and not first:
        return origin
    for domain, one in each.items():  # a package of one domain has learnt from all
        together = {
            other: f"{cache.source.name} ({cache.source.licence or 'licence not stated'})"
            for other, cache in caches.items()
        }
        one.provenance.update(domain=domain, trained_on=together)
    provenance = {"domains": {domain: one.provenance for domain, one in each.items()}}
    return Origin(origin.plan, origin.labels, data, provenance, each)


def _provenance(recipe: Recipe, cache: Cache, command: str) -> dict[str, Any]:
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
        "labelled_cases": len(cache.labelled_cases(recipe.split.labelled, recipe.split.seed)),
        "held_out_cases": list(cache.held_out),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
