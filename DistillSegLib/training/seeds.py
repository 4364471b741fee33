"""Seeds from seeds: what is drawn for one purpose has little in common with what another draws.

NumPy fills keys up with zeros, so that (seed, epoch) and (seed, epoch, 0) are one key: the order of
an epoch and its first patch are drawn from one stream. It stays so, lest the same recipe train
another network than before. What is new takes a key that ends in a number above 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from DistillSegLib.training.recipe import Recipe, Stage


def mixed(*numbers: int) -> int:
    """One seed from several, so that neighbours have nothing in common; below 2^32."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_of(recipe: Recipe, stage: Stage) -> int:
    """The seed of a stage's weights, patches and dropout; of the first the recipe's own.

    Neither another stage has it, nor a stage of the next seed.
    """
    number = [each.name for each in recipe.stages].index(stage.name)
    return mixed(recipe.seed, number, 0, 1) if number else recipe.seed  # no (seed, epoch, rank)
