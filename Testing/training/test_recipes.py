"""Every bundled recipe trains, stage by stage, to a sensible Dice on small generated phantoms."""

from __future__ import annotations

import json

import pytest

from DistillSegLib.places import recipes
from DistillSegLib.training.recipe import load_recipe
from DistillSegLib.training.stages import run
from Testing.datasets import write_decathlon
from Testing.training.small_recipes import EVERYWHERE, SMALL


@pytest.mark.parametrize("name", sorted(recipes()))
def test_a_bundled_recipe_learns_a_phantom(tmp_path, name):
    small = SMALL[name]
    recipe = load_recipe(name, [*EVERYWHERE, *small.overrides])
    data = {
        domain: write_decathlon(tmp_path / f"data{domain}", cases=16, channels=channels)
        for domain, channels in small.data
    }
    run(recipe, data, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    last = summary["stages"][recipe.stages[-1].name]["held_out_dice"]
    for role, structures in last.items():
        assert structures and min(structures.values()) > small.dice, (role, structures)
