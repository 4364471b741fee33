"""Export: ONNX that gives torch's numbers at any size, and a package that checks itself."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from DistillSegLib.errors import PackageError, RecipeError
from DistillSegLib.export import packaging
from DistillSegLib.export.card import read_card
from DistillSegLib.export.onnx import compare, export_onnx, slow_operators
from DistillSegLib.export.packaging import build_package, check_window, published_recipe
from DistillSegLib.inference import self_check
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters, lcovnet
from DistillSegLib.networks.lcovnet import DenseBlock, LightweightBlock
from DistillSegLib.package import read_package
from DistillSegLib.runtime import Session
from DistillSegLib.training.checkpoints import Origin, save_network
from Testing.training.phantom_run import CARD, LABELS, phantom_plan

WINDOW = (8, 12, 16)
DEEPEST = ["Conv (depthwise, 3-D)"]  # LCOV-Net's deepest block has one, on the fewest voxels


class SmallUNet(nn.Module):
    """Strided stem, BatchNorm, transposed convolution, skips by sum and by concatenation."""

    multiple = 4

    def __init__(self, classes: int = 3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, 8, 2, 2), nn.BatchNorm3d(8), nn.LeakyReLU(0.01))
        self.down = nn.Sequential(
            nn.Conv3d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm3d(16), nn.ReLU(inplace=True)
        )
        self.up = nn.ConvTranspose3d(16, 8, 2, 2)
        self.reduce = nn.Conv3d(16, 8, 1)
        self.mix = nn.Sequential(nn.Conv3d(16, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.head = nn.Conv3d(8, classes, 1)

    def forward(self, image):
        fine = self.stem(image)
        deep = self.down(fine)
        wide = functional.interpolate(self.reduce(deep), scale_factor=2.0, mode="trilinear")
        logits = self.head(self.mix(torch.cat([fine + self.up(deep), wide], dim=1)))
        return functional.interpolate(logits, scale_factor=2.0, mode="trilinear")


def trained(net: nn.Module) -> nn.Module:
    """With statistics as after training, so that a BatchNorm that is not folded rightly shows."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm3d)):
            layer.running_mean.normal_(std=0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
    return net


class Blocks(nn.Module):
    """LCOV-Net in two levels, with each of its blocks once; the whole takes a minute to export."""

    multiple, minimum = 2, 4

    def __init__(self):
        super().__init__()
        self.fine = LightweightBlock(1, 2, dropout=0.2)
        self.pool = nn.MaxPool3d(2)
        self.deep = LightweightBlock(2, 4, dropout=0.2, deepest=True)
        self.up = lcovnet.interpolating_up(4, 2, 0.2)
        self.dense_up = lcovnet.transposed_up(4, 2, 0.2)
        self.decoder = DenseBlock(6, 3, dropout=0.2)

    def forward(self, image):
        fine = self.fine(image)
        deep = self.deep(self.pool(fine))
        return self.decoder(torch.cat((self.up(deep), self.dense_up(deep), fine), dim=1))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small network, its file, and how near both are."""
    net = trained(SmallUNet()).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    path = tmp_path_factory.mktemp("export") / "日本 model.onnx"
    real = np.random.default_rng(5).normal(size=(1, 1, 20, 8, 12)).astype(np.float32)
    parity = export_onnx(net, WINDOW, path, multiple=4, real=[real])
    assert net.training  # exporting leaves the network as it was
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return net.eval(), path, parity


def test_a_network_gives_the_same_logits_at_any_size(small):
    net, path, parity = small
    assert parity.windows == 4 and parity.max_difference < 1e-5
    image = torch.randn(2, 1, 12, 4, 24)
    with torch.no_grad():
        expected = net(image).numpy()
    np.testing.assert_allclose(Session(path)(image.numpy()), expected, atol=1e-4)


def test_the_file_is_of_a_version_that_onnx_runtime_1_19_reads_and_holds_no_paths(small):
    _, path, _ = small
    model = onnx.load(path)
    assert model.ir_version <= 10
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert b".py" not in path.read_bytes()
    operators = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in operators  # folded into the convolutions
    assert slow_operators(path) == []
    sizes = [
        dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim
    ]
    assert sizes == ["n", 1, "d", "h", "w"]


@pytest.mark.parametrize(
    "name, settings, slow",
    [
        ("unet", {"width": [4, 4, 8], "deep_supervision": True}, []),
        ("unet", {"width": [4, 8], "dims": 2, "norm": "instance"}, []),
        ("fast_unet", {"width": [16, 16]}, []),
        ("blocks of lcovnet", {}, DEEPEST),
    ],
)
def test_our_networks_export_without_slow_operators(tmp_path, name, settings, slow):
    net = build_network(NetworkConfig(name, settings), 1, 3) if settings else Blocks()
    path = tmp_path / "model.onnx"
    coarse = getattr(net, "stride", 1) > 1
    export_onnx(trained(net), (8, 8, 12), path, multiple=net.multiple, coarse=coarse)
    assert slow_operators(path) == slow
    weights = sum(np.prod(each.dims) for each in onnx.load(path).graph.initializer)
    assert weights < count_parameters(net) + 100  # side heads are dropped, not brought along


@pytest.mark.slow
def test_the_whole_lcov_net_exports(tmp_path):
    config = NetworkConfig("lcovnet", {"width": [2, 2, 4, 4, 4], "deep_supervision": False})
    net = build_network(config, 1, 3)
    parity = export_onnx(trained(net), (32, 32, 32), tmp_path / "model.onnx", multiple=16)
    assert parity.max_difference < 1e-4
    assert slow_operators(tmp_path / "model.onnx") == DEEPEST


def test_slow_operators_are_named(tmp_path):
    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv3d(1, 3, 1), nn.PReLU(3)

        def forward(self, image):
            wide = functional.interpolate(image, scale_factor=2.0, mode="nearest")
            return self.act(self.conv(wide)).softmax(1)

    path = tmp_path / "model.onnx"
    export_onnx(Slow(), WINDOW, path, multiple=4)
    assert slow_operators(path) == ["PRelu", "Resize (nearest)", "Softmax"]


def test_rounding_is_judged_by_the_size_of_the_logits():
    net = nn.Conv3d(1, 3, 1)
    nn.init.constant_(net.bias, 50.0)
    window = np.zeros((1, 1, 2, 2, 2), np.float32)
    off = compare(
        net, lambda windows: net(torch.from_numpy(windows)).detach().numpy() + 2e-3, [window]
    )
    assert off.max_difference == pytest.approx(4e-5, rel=0.01)


def test_a_network_that_fixes_its_size_is_refused(tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bias = nn.Conv3d(1, 3, 1), nn.Parameter(torch.randn(*WINDOW))

        def forward(self, image):
            return self.conv(image) + self.bias

    with pytest.raises(PackageError):
        export_onnx(Fixed(), WINDOW, tmp_path / "model.onnx", multiple=4)
    assert list(tmp_path.iterdir()) == []


def test_other_numbers_than_torchs_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    class Wrong(Session):
        def __call__(self, windows):
            return super().__call__(windows) + 1e-2

    monkeypatch.setattr("DistillSegLib.export.onnx.Session", Wrong)
    with pytest.raises(PackageError, match=r"differ from torch's by 0\.00\d+, more than 1e-04 of"):
        export_onnx(nn.Conv3d(1, 3, 1), WINDOW, tmp_path / "model.onnx", multiple=4)
    assert list(tmp_path.iterdir()) == []


# --- packages ---


@pytest.fixture
def run(tmp_path):
    """A run folder as training leaves it, with one stage of a small network of the fast family."""
    config = NetworkConfig("fast_unet", {"width": [16, 16]})
    torch.manual_seed(0)
    net = trained(build_network(config, 1, 3))
    provenance = {
        "dataset": "Phantoms",
        "command": "distillseg train phantom",
        "split": {"folds": 5, "fold": 0, "seed": 7, "labelled": 0.5},
        "training_cases": ["a", "b"],
        "held_out_cases": ["c", "d"],
    }
    folder = tmp_path / "run" / "student"
    folder.mkdir(parents=True)
    origin = Origin(phantom_plan(net, WINDOW), LABELS, {"name": "phantom"}, provenance)
    save_network(folder / "student.pt", net, config, origin)
    recipe = {"name": "phantom", "stages": [{"name": "student", "trained": {"student": {}}}]}
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe))
    (tmp_path / "card.toml").write_text(CARD)
    return tmp_path / "run"


@pytest.fixture
def no_export(monkeypatch):
    """What is refused must be refused before the minute that an export takes."""
    monkeypatch.delattr(packaging, "export_onnx")


def scores(**changes) -> dict:
    """What `distillseg evaluate --json` writes."""
    values = {"dice": (0.9, 0.02), "hd95_mm": (1.5, None), "nsd": (0.95, 0.03), "volume_ml": (3, 1)}
    return {
        "dataset": "Phantoms",
        "cases_chosen": "held out from training",
        "tolerance_mm": 1.0,
        "cases": [{"case": case, "structure": name} for case in "cd" for name in ("Front", "Back")],
        "failures": [],
        "summary": [
            {
                "structure": name,
                "metric": metric,
                "mean": mean,
                "sd": sd,
                "cases": 2,
                "empty": 0,
                "infinite": 0,
            }
            for name in ("Front", "Back")
            for metric, (mean, sd) in values.items()
        ],
    } | changes


def test_a_stage_becomes_a_package_that_its_user_can_run(run, tmp_path):
    with (tmp_path / "card.toml").open("a") as card:
        card.write('scores = "student.json"\nanalysis = "student.md"\n')
    (tmp_path / "student.md").write_text("It fails on **left** ears.\n")
    (tmp_path / "student.json").write_text(json.dumps(scores()))
    out = build_package(
        run, stage="student", card=tmp_path / "card.toml", out=tmp_path / "phantom.distillseg"
    )
    package = read_package(out)
    package.check_digests()
    assert self_check(package) < package.manifest.tolerance
    manifest, variant = package.manifest, package.variant()
    assert (manifest.id, manifest.modality, manifest.single_pass) == ("phantom-fast", "MR", True)
    assert (manifest.multiple, variant.stride) == (4, 2)
    assert 4 < variant.bytes_per_voxel < 5000
    assert manifest.provenance["split"]["seed"] == 7
    assert [(s.structure, s.metric, s.mean) for s in manifest.test.scores[:2]] == [
        ("Front", "dice", 0.9),
        ("Front", "hd95_mm", 1.5),
    ]
    for words in (
        "| Front | 0.900 ± 0.020 (n = 2) | 1.500 (n = 2) | 0.950 ± 0.030 (n = 2) |",
        "2 cases: Phantoms, held out from training; split: folds 5, fold 0, seed 7. Mean",
        "| command | distillseg train phantom |",
        "## Known failures\n\nAll patients.",
        "## Analysis\n\nIt fails on **left** ears.\n\n## Training",
        "phantoms (phantom)",
    ):
        assert words in package.card


def test_an_analysis_that_is_not_there_is_refused(run, tmp_path, no_export):
    (tmp_path / "card.toml").write_text(CARD + 'analysis = "none.md"\n')
    with pytest.raises(PackageError, match=r"none\.md' could not be read .* check the card's"):
        build_package(run, stage="student", card=tmp_path / "card.toml", out=tmp_path / "x")


def test_scores_of_training_cases_are_refused(run, tmp_path, no_export):
    (tmp_path / "card.toml").write_text(CARD + 'scores = "s.json"\n')
    leaked = scores()
    leaked["cases"].append({"case": "a", "structure": "Front"})
    (tmp_path / "s.json").write_text(json.dumps(leaked))
    with pytest.raises(PackageError, match="1 cases that the model was trained on, such as 'a'"):
        build_package(run, stage="student", card=tmp_path / "card.toml", out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "found, words",
    [
        ("{", "evaluate the model again"),
        (json.dumps({"cases": []}), "evaluate the model again"),
        (json.dumps(scores(summary=[])), "lack the structure 'Back'"),
    ],
)
def test_scores_that_are_none_are_refused(run, tmp_path, no_export, found, words):
    (tmp_path / "card.toml").write_text(CARD + 'scores = "s.json"\n')
    (tmp_path / "s.json").write_text(found)
    with pytest.raises(PackageError, match=words):
        build_package(run, stage="student", card=tmp_path / "card.toml", out=tmp_path / "x")


@pytest.mark.parametrize(
    "text, words",
    [
        ("id = ", "is not valid TOML .* its keys are id, version, title"),
        (CARD.replace("title", "titel"), "did you mean 'title'"),
        (CARD.replace("licence", "#"), "lacks the field 'licence'"),
    ],
)
def test_a_card_that_lacks_something_is_refused(tmp_path, text, words):
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(PackageError, match=words):
        read_card(tmp_path / "card.toml")


def test_a_stage_that_was_not_trained_is_named(run, tmp_path):
    files = {"card": tmp_path / "card.toml", "out": tmp_path / "x"}
    with pytest.raises(RecipeError, match="has no stage 'studnet'; did you mean 'student'"):
        build_package(run, stage="studnet", **files)
    with pytest.raises(RecipeError, match="trained no role 'teacher'; Known: student"):
        build_package(run, stage="student", role="teacher", **files)
    with pytest.raises(RecipeError, match="is no folder of `distillseg train`"):
        build_package(tmp_path / "nowhere", stage="student", **files)
    (run / "student" / "student.pt").unlink()
    with pytest.raises(RecipeError, match="train that stage first"):
        build_package(run, stage="student", **files)


def test_a_recipe_is_published_without_the_users_folders():
    stage = {"name": "s", "frozen": {"teacher": "/home/jane/t.pt", "other": "a/b"}}
    stage["frozen"]["far"] = {"stored": "/home/jane/maps", "taps": {"encoder/1": "a.b"}}
    told = published_recipe({"stages": [stage], "seed": 1})
    assert told["stages"][0]["frozen"].pop("far") == {
        "stored": "maps",
        "taps": {"encoder/1": "a.b"},
    }
    assert told["stages"][0]["frozen"] == {"teacher": "t.pt", "other": "a/b"}


def test_the_check_window_is_no_patient_and_always_the_same():
    window = check_window(2, WINDOW)
    assert window.shape == (1, 2, *WINDOW) and window.dtype == np.float32
    np.testing.assert_array_equal(window, check_window(2, WINDOW))
    assert 0.3 < window.std() < 3
