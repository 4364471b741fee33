"""What a study may compare: every file of a study, and what is refused."""

from __future__ import annotations

import re

import pytest
import study_design as studies

from DistillSegLib.errors import RecipeError
from DistillSegLib.package import load_package
from DistillSegLib.records import from_dict
from DistillSegLib.training.recipe import load_recipe
from Testing.training.small_study import ARMS, DONE, plain

NAMES = sorted(path.stem for path in studies.HERE.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_of_every_study_makes_a_recipe(name):
    study = studies.load_study(name)
    rates, structures = set(), set()
    for arm in study.arms:
        if arm.package or arm.nnunet:
            continue
        named = [setting.replace("{domains}", "['ct']") for setting in arm.set]
        sets = [re.sub(r"{\w+}", "x/y.pt", setting) for setting in named]
        recipe = load_recipe(studies.recipe_path(arm.recipe or study.recipe), sets)
        (scored,) = (stage for stage in recipe.stages if stage.name == study.stage)
        assert study.role in scored.trained
        if study.guides:
            structures.add(tuple(label.name for label in recipe.labels))
        for stage in recipe.stages:
            rates.add((stage.optim or recipe.optim).learning_rate)
            for link in stage.links.values():
                link.build()
    assert len(rates) == 1, "arms that learn at different rates are no comparison"
    for guide in study.guides.values():
        if guide.package:
            manifest = load_package(guide.package).manifest
            assert set(study.folds) == {manifest.provenance["split"]["fold"]}
            structures.add(tuple(label.name for label in manifest.labels))
            continue
        recipe = load_recipe(studies.recipe_path(guide.recipe), guide.set)
        (stage,) = (stage for stage in recipe.stages if stage.name == guide.stage)
        assert guide.role in stage.trained
        structures.add(tuple(label.name for label in recipe.labels))
    assert len(structures) <= 1, "a student takes no lesson from a guide that names others"


def test_each_arm_comes_once_before_any_comes_again(small):
    names = [run.name for run in studies.queue(small)]
    assert names == ["none-f0-s0", "maps-f0-s0", "none-f0-s1", "maps-f0-s1"]


def test_a_baseline_that_is_no_arm_is_named(small):
    with pytest.raises(RecipeError, match=r"baseline is 'nothing'; the arms are none, maps\."):
        from_dict(studies.Study, vars(small) | {"baseline": "nothing", "arms": ARMS, "guides": {}})


def test_a_guide_does_not_teach_data_sets_apart(small):
    arms = [ARMS[0] | {"apart": True}, ARMS[1]]
    with pytest.raises(RecipeError, match="a guide knows one only"):
        from_dict(studies.Study, plain(small) | {"arms": arms})


@pytest.mark.parametrize(
    "change",
    [{"package": "hippocampus-tiny"}, {"recipe": ""}, {"role": ""}, {"recipe": "", "set": []}],
)
def test_a_guide_is_a_stage_or_a_package(small, change):
    guide = vars(small.guides["teacher"]) | change
    with pytest.raises(RecipeError, match="a recipe's stage and role, or a package"):
        from_dict(studies.Study, plain(small) | {"guides": {"teacher": guide}})


@pytest.mark.parametrize("name", DONE)
def test_what_is_kept_belongs_to_the_study_as_it_is(name):
    study = studies.load_study(name)
    for run in studies.queue(study):
        path = studies.result_of(study, run)
        if path.is_file():
            studies.check_kept(study, run, path)
