"""Seeds: none is used for two purposes, and the first stage has those that it always had."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from DistillSegLib.training.seeds import mixed, seed_of
from DistillSegLib.training.stages import run

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ("stages.teacher.epochs=2", "stages.student.epochs=2")


@pytest.fixture
def seeds_of(tiny, data, tmp_path, monkeypatch):
    """Trains the tiny recipe with a seed: all that torch was seeded with, in order."""

    def found(seed: int) -> list[int]:
        given, seeded = [], torch.manual_seed
        with monkeypatch.context() as patch:
            patch.setattr(torch, "manual_seed", lambda s: [given.append(s), seeded(s)][1])
            run(tiny(*SHORT, f"seed={seed}"), {"": data}, tmp_path / str(seed))
        return given

    return found


def test_weights_and_dropout_of_each_stage_and_seed_are_drawn_apart(seeds_of):
    """The second stage of one seed had the weights of the first one of the next seed."""
    given = [*seeds_of(0), *seeds_of(1)]
    assert len(given) == 2 * 2 * (1 + 2)  # seeds, stages; weights, epochs
    assert len(set(given)) == len(given)


def test_a_single_stage_is_repeated_as_it_always_was(seeds_of, tiny):
    """Numbers of the version that trained the bundled models."""
    assert seeds_of(5)[:3] == [5, 16823399, 3796490668]
    recipe = tiny("seed=5")
    assert seed_of(recipe, recipe.stages[0]) == 5


def test_a_stage_has_no_seed_of_an_epoch_or_of_a_domain(tiny):
    stages = {seed_of(r, r.stages[1]) for r in (tiny(f"seed={seed}") for seed in range(20))}
    others = {mixed(*key) for key in product(range(20), range(5), range(3))}
    assert len(stages) == 20 and not stages & others
