"""Teachers from elsewhere: a module by its import path and a MONAI bundle; what does not fit."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.networks.nets import BasicUNet, SegResNet
from torch import nn

from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import label_table
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training.bundle import turned
from DistillSegLib.training.foreign import Foreign
from DistillSegLib.training.recipe import Recipe
from DistillSegLib.training.stages import run
from DistillSegLib.training.teachers import TeacherConfig, build_teacher
from Testing.datasets import write_decathlon

LABELS = label_table({3: "Ball", 7: "Tail"})
SIZE = (8, 12, 16)
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


def logits(net: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net.eval()(image)


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


def recipe(teacher: object, **plan) -> Recipe:
    return from_dict(
        Recipe,
        {
            "name": "foreign",
            "precision": "32-true",
            "accelerator": "cpu",
            "workers": 0,
            "split": {"folds": 4},
            "plan": {"batch": 3, "window": [8, 8, 8], **plan},
            "stages": [
                {
                    "name": "student",
                    "epochs": 1,
                    "trained": {"student": {"network": "fast_unet", "settings": {"width": [4, 4]}}},
                    "frozen": {"teacher": teacher},
                    "links": {"label": {"term": "label"}, "maps": {"term": "prediction_maps"}},
                }
            ],
        },
    )


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


# MONAI bundles


def write_bundle(folder: Path, net: dict, steps: list, **metadata) -> nn.Module:
    """A bundle as MONAI lays them out; returns its network."""
    config = {
        "bundle_root": ".",
        "spacing": [1.0, 1.0, 1.0],
        "network_def": net,
        "network": "$@network_def.to('cuda')",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
    }
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    settings = {key: value for key, value in net.items() if key != "_target_"}
    torch.manual_seed(1)
    made = {"SegResNet": SegResNet, "BasicUNet": BasicUNet}[net["_target_"]](**settings)
    torch.save(made.state_dict(), folder / "models" / "model.pt")
    return made


NET = {"_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
       "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}  # fmt: skip
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": "@spacing", "mode": "bilinear"},
    {"_target_": "NormalizeIntensityd", "keys": "image"},
]
FORMAT = {
    "inputs": {"image": {"num_channels": 1}},
    "outputs": {"pred": {"channel_def": {"0": "background", "1": "tail", "2": "ball"}}},
}
PLAN = Preprocessing((1.0, 1.0, 1.0), (Intensity("image", (0.0, 100.0)),), "LPS")


@pytest.fixture
def bundle(tmp_path):
    net = write_bundle(tmp_path / "bundle", NET, STEPS, network_data_format=FORMAT)
    return tmp_path / "bundle", net


def test_a_bundle_sees_its_own_axes_and_answers_along_ours(bundle):
    folder, net = bundle
    config = TeacherConfig(bundle=str(folder), taps={"encoder/1": "down_layers.1"})
    guide = build_teacher(config, 1, LABELS, PLAN)
    image = torch.randn(1, 1, *SIZE)  # z, y, x to S, P, L
    # MONAI: x, y, z to R, A, S
    seen = torch.flip(image.permute(0, 1, 4, 3, 2), [2, 3])
    expected = torch.flip(logits(net, seen), [2, 3]).permute(0, 1, 4, 3, 2)[:, [0, 2, 1]]
    assert torch.allclose(logits(guide, image), expected, atol=1e-5)
    view = Tapped(guide, ["encoder/1"]).eval()(Batch(image, torch.zeros(1, *SIZE)))
    assert view.taps["encoder/1"].shape == (1, 16, 4, 6, 8)
    assert guide.notes == ()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("LPS", ((2, 1, 0), [])),
        ("RAS", ((2, 1, 0), [0, 1])),
        ("SPL", ((0, 1, 2), [])),
        ("PIR", ((1, 0, 2), [1, 2])),
    ],
)
def test_axes_are_found_by_their_letters(code, expected):
    assert turned(code, PLAN) == expected


def test_axes_that_follow_the_slices_have_no_letters():
    with pytest.raises(RecipeError, match=r"give plan.orientation = 'RAS'"):
        turned("RAS", replace(PLAN, orientation="slices"))


def test_turning_there_and_back_changes_nothing():
    image = torch.randn(1, 3, *SIZE)
    axes, flipped = turned("PIR", PLAN)
    assert torch.equal(Foreign("It", nn.Identity(), axes=axes, flipped=flipped)(image), image)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spacing_mm": (3.0, 1.0, 1.0)}, r"give plan.spacing_mm = \[1.0, 1.0, 1.0\]"),
        (
            {"intensity": (Intensity("image", (0.5, 99.5)),)},
            r"give plan.intensity = .*clip = \[0.0, 100.0\]",
        ),
        (
            {"intensity": (Intensity("fixed", (0.0, 200.0), 50.0, 20.0),)},
            r'give plan.intensity = \[\{ scheme = "image", clip = \[0.0, 100.0\] \}\]',
        ),
    ],
)
def test_a_plan_that_a_bundle_was_not_trained_on_is_refused(bundle, change, sentence):
    plan = Preprocessing(**({"spacing_mm": PLAN.spacing_mm, "intensity": PLAN.intensity} | change))
    with pytest.raises(RecipeError, match=sentence):
        build_teacher(TeacherConfig(bundle=str(bundle[0])), 1, LABELS, plan)


def test_a_range_of_ct_values_is_the_plan_s_fixed_scheme(tmp_path):
    steps = [{"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -100, "a_max": 300,
              "b_min": 0.0, "b_max": 1.0, "clip": True}]  # fmt: skip
    write_bundle(tmp_path / "ct", NET, steps, network_data_format=FORMAT)
    config = TeacherConfig(bundle=str(tmp_path / "ct"))
    same = Intensity("fixed", (-100.0, 300.0), -100.0, 400.0)  # (v + 100) / 400
    build_teacher(config, 1, LABELS, Preprocessing((1.0, 1.0, 1.0), (same,)))
    with pytest.raises(RecipeError, match=r"mean = -100, std = 400"):
        build_teacher(config, 1, LABELS, PLAN)


def test_what_a_bundle_does_not_say_is_said(tmp_path):
    steps = [{"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}]
    write_bundle(tmp_path / "bundle", NET, steps)
    guide = build_teacher(TeacherConfig(bundle=str(tmp_path / "bundle")), 1, LABELS, PLAN)
    text = " ".join(guide.notes)
    for word in ("'CropForegroundd'", "spacing", "orientation", "intensities", "order of its cl"):
        assert word in text, word


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"net": NET | {"_target_": "SegResNett"}}, "its network cannot be built"),
        ({"weights": {"x": torch.zeros(1)}}, "weights of another network"),
        ({"channels": 2}, "takes 1 channels, the data set has 2"),
        ({"labels": {1: "Liver"}}, r"not 'Liver'; say by classes = \[0"),
        ({"folder": "absent"}, "no configs/inference.json"),
        ({"config": "{"}, "'inference.json' cannot be read"),
        ({"metadata": "{"}, "'metadata.json' cannot be read"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_in_words(bundle, change, sentence):
    folder, _ = bundle
    file = folder / "configs" / "inference.json"
    if "net" in change:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"network_def": change["net"]}))
    if "weights" in change:
        torch.save(change["weights"], folder / "models" / "model.pt")
    if "config" in change:
        file.write_text(change["config"])
    if "metadata" in change:
        (folder / "configs" / "metadata.json").write_text(change["metadata"])
    labels = label_table(change["labels"]) if "labels" in change else LABELS
    with pytest.raises(RecipeError, match=sentence):
        build_teacher(
            TeacherConfig(bundle=str(folder / change.get("folder", "."))),
            change.get("channels", 1),
            labels,
            PLAN,
        )


@pytest.mark.parametrize(
    "described",
    [
        {"inputs": [], "outputs": []},
        {"outputs": {"pred": []}},
        {"outputs": {"pred": {"channel_def": ["background", "Ball", "Tail"]}}},
        {"outputs": {"pred": {"channel_def": {"first": "background"}}}},
    ],
)
def test_a_bundle_that_describes_itself_otherwise_leaves_the_classes_unchecked(bundle, described):
    folder, _ = bundle
    meta = {"network_data_format": described}
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta))
    guide = build_teacher(TeacherConfig(bundle=str(folder)), 1, LABELS, PLAN)
    assert "the order of its classes could not be checked" in " ".join(guide.notes)


def test_a_student_learns_from_a_bundle(bundle, tmp_path):
    plan = {"spacing_mm": [1.0, 1.0, 1.0], "intensity": [{"scheme": "image", "clip": [0, 100]}]}
    made = recipe({"bundle": str(bundle[0])}, **plan)
    networks = run(made, {"": write_decathlon(tmp_path / "data")}, tmp_path / "run")
    assert networks["student/student"].is_file()
