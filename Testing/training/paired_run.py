"""Several data sets in one training, CT and MR mostly: one run, made once, and what tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.paired import PairedLoader, patch_loader
from DistillSegLib.training.recipe import load_recipe
from DistillSegLib.training.stages import PLAIN, Event, run
from Testing.datasets import write_decathlon
from Testing.training.small_recipes import EVERYWHERE

QUICK = [
    *EVERYWHERE,
    "optim.learning_rate=2e-2",
    "stages.student.trained.student.network=fast_unet",
    "stages.student.trained.student.settings={width=[8, 8]}",
]


def recipe(*overrides: str):
    return load_recipe("ct-mr", [*QUICK, "stages.student.epochs=2", *overrides])


@pytest.fixture(scope="session")
def modalities(tmp_path_factory) -> dict[str, Path]:
    """Three modalities with different numbers of cases; CT is named so and has fixed units."""
    folder = tmp_path_factory.mktemp("data")
    made = {"ct": ("CT", 12), "mr": ("MRI", 8), "pet": ("PET", 8)}
    return {
        domain: write_decathlon(
            folder / domain, cases=cases, channels=(channel,), spacing_mm=(1, 1, 1.25)
        )
        for domain, (channel, cases) in made.items()
    }


@pytest.fixture(scope="session")
def pair(modalities) -> dict[str, Path]:
    return {domain: modalities[domain] for domain in ("ct", "mr")}


@pytest.fixture(scope="session")
def joint(pair, tmp_path_factory) -> tuple[Path, list[Event]]:
    """One run on CT and MR, long enough to segment a phantom."""
    out, events = tmp_path_factory.mktemp("runs") / "run", []
    run(recipe("stages.student.epochs=10"), pair, out, on_event=events.append)
    return out, events


@pytest.fixture
def caches(joint):
    return {domain: open_cache(joint[0] / "cache" / domain) for domain in ("ct", "mr")}


def loader(caches, **settings) -> PairedLoader:
    settings = {"window": (8, 8, 8), "batch": 4, "seed": 3, "workers": 0} | settings
    return patch_loader(caches, PLAIN, **settings)
