"""Teachers from elsewhere, by a module's import path; what does not fit."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training.recipe import Recipe
from DistillSegLib.training.stages import run
from DistillSegLib.training.teachers import TeacherConfig, build_teacher
from Testing.datasets import write_decathlon
from Testing.training.teacher_cases import LABELS, SIZE, logits, recipe

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, classes, width=4):
        super().__init__()
        self.inner = nn.Conv3d(channels, width, 3, padding=1)
        self.head = nn.Conv3d(width, classes, 1)

    def forward(self, image):
        return self.head(self.inner(image).relu())

def pair(channels, classes):
    class Pair(Net):
        def forward(self, image):
            return super().forward(image), image
    return Pair(channels, classes)

def halved(channels, classes):
    return nn.Sequential(Net(channels, classes), nn.MaxPool3d(2))

def four(channels):
    return Net(channels, 4)

def number():
    return 3

def broken(channels):
    raise OSError("no licence")

def leaves(channels):
    raise SystemExit(3)

def failing(channels, classes):
    class Failing(Net):
        def forward(self, image):
            return {}["there"]
    return Failing(channels, classes)

def whole(channels, classes):
    class Whole(Net):
        def forward(self, image):
            return super().forward(image).argmax(1, keepdim=True)
    return Whole(channels, classes)

def endless(channels, classes):
    class Endless(Net):
        def forward(self, image):
            return super().forward(image) / 0
    return Endless(channels, classes)

def scaled(channels, classes):
    class Scaled(Net):
        def forward(self, image):
            return super().forward((image - image.mean()) / image.std())
    return Scaled(channels, classes)
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A package of somebody else, importable, and the weights of its network."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "their_nets.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    import their_nets

    torch.manual_seed(0)
    for name, net in {
        "net": their_nets.Net(1, 3),
        "four": their_nets.Net(1, 4),
        "halved": their_nets.halved(1, 3),
    }.items():
        torch.save(net.state_dict(), folder / f"{name}.pth")
    yield folder
    sys.path.remove(str(folder))
    del sys.modules["their_nets"]


def theirs(outside, call="Net", weights="net", **more) -> TeacherConfig:
    return TeacherConfig(
        module=f"their_nets:{call}", weights=str(outside / f"{weights}.pth"), **more
    )


# The recipe's form


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({}, "one source, found none"),
        ({"module": "a:b", "bundle": "c"}, "one source, found bundle, module"),
        ({"modul": "a:b"}, "did you mean 'module'"),
        ({"module": "a:b", "folds": [1]}, "'folds' belongs to nnunet, not to module"),
        ({"bundle": "a", "settings": {"x": 1}}, "'settings' belongs to module"),
        ({"stored": "a", "taps": {"encoder/1": "x"}}, "no features"),
        ({"package": "a", "taps": {"encoder/1": "x"}}, "have their names already"),
        ({"stored": "a", "smoothing": 1.0}, "smoothing is 1.0"),
        ({"bundle": "a", "classes": [0, 1, 1]}, "different numbers"),
        ({"nnunet": "a", "folds": []}, "folds is empty"),
    ],
)
def test_a_table_that_names_no_teacher_is_refused(table, sentence):
    with pytest.raises(RecipeError, match=sentence):
        from_dict(TeacherConfig, table)


def test_a_recipe_with_a_teacher_survives_the_way_through_json(outside):
    made = recipe(to_dict(theirs(outside)))
    assert isinstance(made.stages[0].frozen["teacher"], TeacherConfig)
    again = from_dict(Recipe, json.loads(json.dumps(to_dict(made))))
    assert to_dict(again) == to_dict(made)


# Modules


def test_a_module_gives_its_own_logits_in_our_order(outside):
    import their_nets

    net = their_nets.Net(1, 4)
    net.load_state_dict(torch.load(outside / "four.pth", weights_only=True))
    guide = build_teacher(theirs(outside, "four", "four", classes=(0, 3, 1)), 1, LABELS)
    image = torch.randn(2, 1, *SIZE)
    assert torch.equal(logits(guide, image), logits(net, image)[:, [0, 3, 1]])


@pytest.mark.parametrize("key", ["state_dict", "model", "network_weights"])
def test_weights_are_found_inside_a_table_and_under_a_prefix(outside, tmp_path, key):
    plain = torch.load(outside / "net.pth", weights_only=True)
    wrapped = {key: {f"module.{name}": w for name, w in plain.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    config = TeacherConfig(module="their_nets:Net", weights=str(tmp_path / "wrapped.pth"))
    found = build_teacher(config, 1, LABELS).net.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in plain.items())


def test_features_of_a_module_are_tapped_by_path(outside):
    guide = build_teacher(theirs(outside, taps={"encoder/0": "inner"}), 1, LABELS)
    image = torch.randn(1, 1, *SIZE)
    view = Tapped(guide, ["encoder/0"]).eval()(Batch(image, torch.zeros(1, *SIZE)))
    assert torch.equal(view.taps["encoder/0"], guide.net.inner(image))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"module": "their_nets.Net"}, "write package.module:callable"),
        ({"module": "absent_nets:Net"}, "install it, or set PYTHONPATH"),
        ({"module": "their_nets:Nett"}, "did you mean 'Net'"),
        ({"module": "their_nets:number"}, "returns a int; a torch.nn.Module is needed"),
        ({"module": "their_nets:broken"}, "OSError: no licence"),
        ({"module": "their_nets:leaves"}, "SystemExit: 3"),
        ({"module": "their_nets:Net", "settings": {"widht": 4}}, "did you mean 'width'"),
        ({"module": "their_nets:Net"}, 'untrained teacher teaches nothing; give weights = "…"'),
        ({"module": "their_nets:Net", "weights": "absent.pth"}, "there is no file 'absent.pth'"),
        ({"module": "their_nets:Net", "weights": "four.pth"}, "2 of another size"),
        ({"module": "their_nets:Net", "weights": "halved.pth"}, "4 missing .head.bias"),
        ({"module": "their_nets:Net", "weights": "their_nets.py"}, "save the network's state_dict"),
        (
            {"module": "their_nets:Net", "weights": "net.pth", "taps": {"encoder/0": "iner"}},
            "did you mean 'inner'",
        ),
        (
            {"module": "their_nets:Net", "weights": "net.pth", "classes": [0, 1]},
            "names 2 channels for 3 classes",
        ),
    ],
)
def test_a_module_that_does_not_fit_is_refused_in_words(outside, config, sentence):
    if (outside / config.get("weights", "absent.pth")).is_file():
        config = config | {"weights": str(outside / config["weights"])}
    with pytest.raises(RecipeError, match=sentence):
        build_teacher(from_dict(TeacherConfig, config), 1, LABELS)


def test_weights_that_would_run_code_are_not_loaded(tmp_path, outside):
    import their_nets

    torch.save(their_nets.Net(1, 3), tmp_path / "pickled.pth")
    config = TeacherConfig(module="their_nets:Net", weights=str(tmp_path / "pickled.pth"))
    with pytest.raises(RecipeError, match=r"holds a whole network .* would run code and is not"):
        build_teacher(config, 1, LABELS)


@pytest.mark.parametrize(
    ("call", "weights", "sentence"),
    [
        ("pair", "net", "gives a tuple, not logits alone"),
        ("halved", "halved", "answers with 1 x 3 x 4 x 4 x 4 numbers"),
        ("four", "four", "has 4 classes, the data set has 3 with the background"),
        ("failing", "net", "KeyError: 'there'"),
        ("whole", "net", "numbers of the kind torch.int64; logits are needed"),
        ("endless", "net", "not finite, so its weights or its code are broken"),
    ],
)
def test_what_a_module_answers_is_checked_before_training(
    outside, tmp_path, call, weights, sentence
):
    made = recipe(to_dict(theirs(outside, call, weights)))
    data = write_decathlon(tmp_path / "data")
    with pytest.raises(RecipeError, match=sentence):
        run(made, {"": data}, tmp_path / "run")
    assert not (tmp_path / "run" / "student").exists()


def test_a_module_that_scales_its_images_itself_is_tried_on_an_image_that_it_can_scale(outside):
    guide = build_teacher(theirs(outside, "scaled"), 1, LABELS)
    guide.try_on(1, (4, 4, 4), 3)


def test_a_student_learns_from_a_module(outside, tmp_path):
    events = []
    made = recipe(to_dict(theirs(outside)))
    networks = run(made, {"": write_decathlon(tmp_path / "data")}, tmp_path / "run",
                   on_event=events.append)  # fmt: skip
    (text,) = [event.text for event in events if event.kind == "rehearsal"]
    assert "could not be checked" in text
    assert networks["student/student"].is_file()
