"""Recipes: what is misspelt is named before anything is computed (law 9), and the rest is data."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields, replace

import pytest

from DistillSegLib.distill import TERMS
from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import Label, label_table
from DistillSegLib.networks import NETWORKS
from DistillSegLib.places import recipes
from DistillSegLib.preprocessing import Intensity
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training.assembly import rehearse
from DistillSegLib.training.recipe import (
    AugmentationConfig,
    LinkConfig,
    OptimConfig,
    PlanConfig,
    Recipe,
    SplitConfig,
    Stage,
    load_recipe,
    tomllib,
)
from DistillSegLib.training.teachers import TeacherConfig

BUNDLED = list(recipes())
TEXT = """
name = "mine"
seed = 3

[plan]
window = [16, 16, 16]

[[stages]]
name = "teacher"
epochs = 2
[stages.trained.teacher]
network = "unet"
settings = { width = [4, 8] }
[stages.links.label]
term = "label"
student = "teacher"

[[stages]]
name = "student"
epochs = 1
[stages.trained.student]
network = "unet"
settings = { width = [4, 4] }
[stages.frozen]
teacher = "teacher/teacher"
[stages.links.maps]
term = "prediction_maps"
settings = { temperature = 4.0 }
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


def try_out(recipe: Recipe, classes: int = 3) -> None:
    names = {value: f"structure {value}" for value in range(1, classes)}
    rehearse(recipe, 1, label_table(names))


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_recipe_loads_and_can_be_put_together(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    try_out(recipe)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_recipe_survives_the_way_through_a_run_s_json(name):
    recipe = load_recipe(name)
    again = from_dict(Recipe, json.loads(json.dumps(to_dict(recipe))))
    assert to_dict(again) == to_dict(recipe)


# The reference of all keys


def uncommented() -> str:
    """`distil.toml` with the keys that it shows commented out."""
    text = recipes()["distil"].read_text(encoding="utf-8")
    return re.sub(r"^# (?=\[|\w+ += )", "", text, flags=re.MULTILINE)


def test_the_reference_shows_the_defaults():
    shown, plain = from_dict(Recipe, tomllib.loads(uncommented())), load_recipe("distil")
    assert shown.labels and shown.plan != plain.plan  # examples
    assert replace(shown, labels=(), plan=plain.plan, stages=plain.stages) == plain
    for ours, theirs in zip(shown.stages, plain.stages, strict=True):
        links = [{n: link.build() for n, link in s.links.items()} for s in (ours, theirs)]
        assert links[0] == links[1]
        assert replace(ours, links=theirs.links) == theirs


@pytest.mark.parametrize(
    "kind",
    [
        *(Recipe, Stage, LinkConfig, SplitConfig, PlanConfig, AugmentationConfig, OptimConfig),
        *(Label, Intensity, TeacherConfig, *TERMS.values()),
    ],
)
def test_the_reference_shows_every_key(kind):
    text = uncommented()
    for field in fields(kind):
        assert re.search(rf"\b{field.name}\b(?: *=|\]|\.\w+\])", text), field.name


def test_the_reference_shows_every_network_and_its_settings():
    text = uncommented()
    for name, network in NETWORKS.items():
        assert f'"{name}"' in text
        for setting in list(inspect.signature(network).parameters)[2:]:  # after channels, classes
            assert re.search(rf"\b{setting} = ", text), setting
    for term in TERMS:
        assert f'"{term}"' in text, term


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("sede=1", "seed"),
        ("optim.learning_rat=1", "learning_rate"),
        ("plan.windwo=[8, 8, 8]", "window"),
        ("split.flod=1", "fold"),
        ("augmentation.rotatoin=[0, 0, 0]", "rotation"),
        ("precision=bf16", "bf16-mixed"),
        ("stages.student.epoch=1", "epochs"),
        ("stages.student.optim.warmpu=0.1", "warmup"),
        ("stages.student.trained.student.netwrok=unet", "network"),
        ("stages.student.links.maps.wieght=1", "weight"),
        ("stages.studnet.epochs=1", "student"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(mine, override, nearest):
    with pytest.raises(RecipeError, match=f"did you mean '{nearest}'"):
        load_recipe(mine, [override])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stages.student.links.maps.term=prediction_map", "did you mean 'prediction_maps'"),
        ("stages.student.links.maps.settings.temprature=2.0", "did you mean 'temperature'"),
        ("stages.student.links.maps.settings.temperature=0.0", "use a positive number"),
        ("stages.student.links.maps.settings.taps=['encoder/9']", "has no tap 'encoder/9'"),
        ("stages.student.links.maps.student=studnet", "did you mean 'student'"),
        ("stages.student.links.maps.teacher=tacher", "did you mean 'teacher'"),
        ("stages.student.trained.student.domains=['ct', 'ct']", "name of its own"),
        ("stages.student.trained.student.network=unett", "did you mean 'unet'"),
        ("stages.student.trained.student.settings.widht=[4]", "did you mean 'width'"),
        ("stages.student.trained.student.settings.width=4", "width must be a list, found int 4"),
        (
            "stages.student.trained.student.settings.width=['a', 4]",
            r"width\[0\] must be of type int",
        ),
        ("stages.student.trained.student.settings.width=[-4, 4]", "each 1 or more"),
        ("stages.student.trained.student.settings.dims=4", "dims is 4; Known: 2, 3"),
        ("stages.student.frozen.teacher=teacher/taecher", "did you mean 'teacher/teacher'"),
        ("stages.student.frozen.teacher=absent.pt", "no checkpoint 'absent.pt'"),
        ("stages.student.start.student=teacher/teacher", r"width \[4, 8\] cannot grow to \[4, 4\]"),
        ("stages.student.start.stduent=teacher/teacher", "did you mean 'student'"),
    ],
)
def test_a_mistake_in_a_later_stage_is_found_before_the_first_is_trained(mine, override, sentence):
    recipe = load_recipe(mine, [override])
    with pytest.raises(RecipeError, match=f"^Stage 'student': .*{sentence}"):
        try_out(recipe)


def test_overrides_are_toml_and_a_bare_word_is_text(mine):
    recipe = load_recipe(
        mine,
        [
            "seed=7",
            "description=a b = c",
            "plan.spacing_mm=[2, 1, 1.5]",
            "stages.student.epochs=5",
            "stages.student.links.maps.weight=0.5",
            "stages.student.links.maps.settings.temperature=1.0",
            "optim.schedule=poly",
        ],
    )
    assert (recipe.seed, recipe.description) == (7, "a b = c")
    assert recipe.plan.spacing_mm == (2.0, 1.0, 1.5)
    assert recipe.plan.window == (16, 16, 16)  # what is not named stays
    assert [stage.epochs for stage in recipe.stages] == [2, 5]
    link = recipe.stages[1].links["maps"]
    assert (link.weight, link.build().term.temperature) == (0.5, 1.0)
    assert recipe.optim.schedule == "poly"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed", "write key=value"),
        ("=1", "write key=value"),
        ("seed.x=1", "'seed' holds a value"),
        ("stages=1", "stages must be a list"),
        ("stages.student=1", "name an entry and its key"),
        ("plan.window.x.y=1", "no 'x'"),
        ("seed=many", "seed must be of type int"),
        ("seed=-1", "use 0 or more"),
        ("seed=99999999999999999999", "a seed below 2\\^62"),
        ("stages.student.epochs=0", "needs epochs"),
        ("validate_every=0", "validate_every is 0"),
        ("plan.batch=0", "use 1 or more"),
        ("plan.orientation=LLL", "one letter each"),
        ("plan.spacing_mm=[0, 1, 1]", "must be above zero"),
        ("plan.scope.contrast=[5, 2]", r"\[5, 2\] is no range"),
        ("optim.warmup=1.0", "a warmup below 1"),
        ("optim.hold=-0.1", "hold -0.1"),
        ("stages.student.growth_noise=-1", "growth_noise -1.0; use 0 or more"),
        ("optim.weight_decay=-1.0", "weight_decay is -1.0"),
        ("optim.weight_decay=inf", "weight_decay is inf"),
        ("optim.learning_rate=inf", "learning_rate is inf"),
        ("stages.student.links={maps={term='label', weight=0}}", "its links weigh 0"),
        ("stages.student.links.maps.weight=-1", "weight is -1.0; use 0 or more"),
        ("stages.student.links.maps.weight=nan", "weight is nan"),
        ("workers=-2", "workers -2"),
        ("augmentation.noise=1.5", "noise is 1.5"),
        ("stages.student.name=../up", "use letters, digits"),
        ("stages.student.name=teacher", "names of their own"),
    ],
)
def test_a_value_that_cannot_be_is_refused(mine, override, sentence):
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(mine, [override])


def test_an_unknown_recipe_names_the_nearest_bundled_one():
    with pytest.raises(RecipeError, match="did you mean 'hippocampus'"):
        load_recipe("hipocampus")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b""])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stages.student.links.maps.settings.taps=['encoder/9']", "no tap 'encoder/9'"),
        ('stages.student.links.maps.teacher="assistant"', "needs a guide, found 'assistant'"),
        ('stages.student.links.maps.student="pupil"', "trains 'pupil'"),
    ],
)
def test_a_link_that_fits_no_role_is_answered_with_the_table_of_roles(mine, override, sentence):
    with pytest.raises(RecipeError, match=sentence) as stopped:
        try_out(load_recipe(mine, [override]))
    (table,) = stopped.value.__notes__
    rows = " ".join(table.split())
    assert "student" in rows and "encoder/1 (2, 4, 32, 32, 32)" in rows
    assert "teacher" in rows and "frozen" in rows
