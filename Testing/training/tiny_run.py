"""A run of two stages on phantoms that takes seconds: fixtures, made once for all files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.recipe import load_recipe
from DistillSegLib.training.stages import Event, run
from Testing.datasets import write_decathlon

RECIPE = """
name = "tiny"
precision = "32-true"
accelerator = "cpu"
workers = 0
split = { folds = 4 }
plan = { batch = 3 }
optim = { learning_rate = 1e-2 }

[[stages]]
name = "teacher"
epochs = 3
[stages.trained.teacher]
network = "unet"
settings = { width = [4, 8], dropout = 0.2 }
[stages.links.label]
term = "label"
student = "teacher"

[[stages]]
name = "student"
epochs = 3
[stages.trained.student]
network = "fast_unet"
settings = { width = [4, 4] }
[stages.frozen]
teacher = "teacher/teacher"
[stages.links.label]
term = "label"
[stages.links.maps]
term = "prediction_maps"
"""


@contextmanager
def single_threaded() -> Iterator[None]:
    """Sums in one order, so that results can be compared to the bit across processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread():
    with single_threaded():
        yield


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def tiny(recipe_file):
    """Makes the recipe, with overrides."""
    return lambda *overrides: load_recipe(recipe_file, overrides)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_decathlon(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def finished(tiny, data, tmp_path_factory) -> tuple[Path, list[Event]]:
    """The folder and the events of one run that nothing interrupted."""
    out, events = tmp_path_factory.mktemp("runs") / "whole", []
    with single_threaded():
        run(tiny(), {"": data}, out, on_event=events.append, command="distillseg train tiny")
    return out, events


@pytest.fixture
def cache(finished):
    return open_cache(finished[0] / "cache")


class Killed(Exception):
    """What ends a run in the middle."""


def killed_after(stage: str, number: int):
    """A watcher that ends the run when that epoch is over."""

    def watch(event: Event) -> None:
        if event.kind == "epoch" and (event.stage, event.epoch.number) == (stage, number):
            raise Killed

    return watch
