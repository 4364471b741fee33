"""nnU-Net v2 as a teacher: real ones, trained by the package `nnunetv2`, held against its own."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from DistillSegLib.cli import main
from DistillSegLib.datasets import read_dataset
from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.export.packaging import build_package
from DistillSegLib.images import read_image
from DistillSegLib.labels import label_table
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.records import from_dict
from DistillSegLib.training.adoption import adopt, stored_orientation
from DistillSegLib.training.nnunet import read_results
from DistillSegLib.training.recipe import Recipe
from DistillSegLib.training.stages import run
from DistillSegLib.training.stored import Maps, find_maps, prepare_maps
from DistillSegLib.training.teachers import TeacherConfig, build_teacher
from Testing.training.phantom_nnunet import NAME, nnunet_at, plan, train
from Testing.training.phantom_run import CARD

pytest.importorskip("nnunetv2", reason="needs nnunetv2: pip install 'distillseg[nnunet]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # nnU-Net's and its dependencies' own

LABELS = label_table({1: "Ball", 2: "Tail"})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def mr(tmp_path_factory) -> Path:
    """MR, voxels like cubes: z-scores of each image."""
    return train(plan(tmp_path_factory.mktemp("mr")))


@pytest.fixture(scope="module")
def thick(tmp_path_factory) -> Path:
    """CT, thick along x: fixed values, and axes that nnU-Net turns (x first)."""
    root = tmp_path_factory.mktemp("ct")
    return plan(root, "CT", size=(20, 24, 8), spacing_mm=(1.0, 1.0, 4.0))


@pytest.fixture(scope="module")
def ct(thick) -> Path:
    return train(thick)


@pytest.fixture(scope="module")
def flat(thick) -> Path:
    """A 2-D configuration: slices across x."""
    return train(thick, "2d")


def guide(results: Path, **more):
    return build_teacher(TeacherConfig(nnunet=str(results), **more), 1, LABELS)


def raw(results: Path) -> Path:
    return results.parents[2] / "raw" / NAME


def plan_of(results: Path) -> Preprocessing:
    found = read_results(str(results), (0,), "checkpoint_final.pth")
    orientation = found.orientation or stored_orientation(read_dataset(raw(results)), found)
    return Preprocessing(found.spacing_mm, found.intensity, orientation)


def theirs(results: Path, case: str = "case_03") -> np.ndarray:
    """The case as nnU-Net preprocessed it, on disk: (C, …) along its own axes."""
    import blosc2

    configuration = results.name.split("__")[-1]
    folder = results.parents[2] / "preprocessed" / NAME / f"nnUNetPlans_{configuration}"
    return blosc2.open(urlpath=str(folder / f"{case}.b2nd"), mode="r")[:]


def ours(results: Path, case: str = "case_03") -> np.ndarray:
    image = read_image(raw(results) / "imagesTr" / f"{case}_0000.nii.gz")
    return plan_of(results).apply([image]).array


@pytest.mark.parametrize(("name", "axes"), [("mr", (0, 1, 2)), ("ct", (2, 0, 1)), ("flat", None)])
def test_our_preprocessing_makes_nnunet_s_arrays(request, name, axes):
    results = request.getfixturevalue(name)
    axes = axes or (2, 0, 1)
    found = read_results(str(results), (0,), "checkpoint_final.pth")
    assert found.axes == axes
    turned = ours(results).transpose(0, *(1 + axis for axis in axes))
    assert np.allclose(turned, theirs(results), atol=1e-4)


@pytest.mark.parametrize("name", ["mr", "ct", "flat"])
def test_our_logits_are_those_of_nnunet_s_own_predictor(request, name):
    results = request.getfixturevalue(name)
    with nnunet_at(results.parents[2]):
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=False, use_gaussian=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(results), (0,))
        array = torch.from_numpy(theirs(results))
        windowed = predictor.predict_sliding_window_return_logits(array).float()
        with torch.no_grad():
            exact = predictor.network.eval()(
                array[None] if name != "flat" else array.transpose(0, 1)
            )
    axes = read_results(str(results), (0,), "checkpoint_final.pth").axes
    with torch.no_grad():
        logits = guide(results).eval()(torch.from_numpy(ours(results))[None])[0]
    turned = logits.permute(0, *(1 + axis for axis in axes))
    exact = exact.transpose(0, 1) if name == "flat" else exact[0]
    largest = exact.abs().max().item()
    assert exact.std() > 0.05 * largest  # there is something to compare
    assert torch.allclose(turned, exact, atol=1e-5 * largest)
    assert torch.allclose(turned, windowed, atol=3e-3 * largest)  # summed in half precision


def test_probabilities_that_nnunet_stored_are_read_where_its_labels_lie(ct, tmp_path):
    with nnunet_at(ct.parents[2]):
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(ct), (0,))
        (tmp_path / "maps").mkdir()
        image = str(raw(ct) / "imagesTr" / "case_03_0000.nii.gz")
        predictor.predict_from_files_sequential(
            [[image]], [str(tmp_path / "maps" / "case_03")], save_probabilities=True
        )
    assert (tmp_path / "maps" / "case_03.npz").is_file()
    (tmp_path / "labels").mkdir()
    shutil.move(tmp_path / "maps" / "case_03.nii.gz", tmp_path / "labels")
    dataset = read_dataset(raw(ct))
    case = dataset.cases[3]
    (soft, maps), (hard, labels) = (
        prepare_maps(stored, case, find_maps(stored, [case])[case.id], dataset.labels, plan_of(ct))
        for stored in (Maps(str(tmp_path / "maps")), Maps(str(tmp_path / "labels")))
    )
    assert (soft, hard) == (False, True)
    assert len(np.unique(labels.argmax(axis=0))) > 1
    assert (maps.argmax(axis=0) == labels.argmax(axis=0)).mean() > 0.999  # half precision: ties


def test_features_lie_along_our_axes(ct):
    net = guide(ct, taps={"encoder/1": "encoder.stages.1"}).eval()
    image = torch.randn(1, 1, 16, 24, 8)
    view = Tapped(net, ["encoder/1"]).eval()(Batch(image, torch.zeros(1, 16, 24, 8)))
    inner = net.net.encoder(image.permute(0, 1, 4, 2, 3))[1]  # x, z, y
    assert torch.allclose(view.taps["encoder/1"], inner.permute(0, 1, 3, 4, 2), atol=1e-6)


def test_slices_features_become_volumes(flat):
    net = guide(flat, taps={"encoder/1": "encoder.stages.1"}).eval()
    view = Tapped(net, ["encoder/1"]).eval()(
        Batch(torch.randn(2, 1, 16, 24, 8), torch.zeros(2, 16, 24, 8))
    )
    assert view.taps["encoder/1"].shape == (2, 8, 8, 12, 8)


def test_several_folds_give_their_mean_probability(mr, tmp_path):
    folder = tmp_path / mr.name
    shutil.copytree(mr, folder)
    data = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    data["network_weights"] = {n: w * 1.5 for n, w in data["network_weights"].items()}
    (folder / "fold_1").mkdir()
    torch.save(data, folder / "fold_1" / "checkpoint_final.pth")
    image = torch.randn(1, 1, 8, 12, 16)
    with torch.no_grad():
        one, two, both = (
            guide(folder, folds=folds).eval()(image).softmax(1) for folds in ((0,), (1,), (0, 1))
        )
    assert not torch.allclose(one, two, atol=1e-3)
    assert torch.allclose(both, (one + two) / 2, atol=1e-6)
    with pytest.raises(RecipeError, match="features of 2 folds cannot be averaged"):
        guide(folder, folds=(0, 1), taps={"encoder/1": "encoder.stages.1"})


def recipe(results: Path, *, epochs: int = 1, teacher: dict | None = None, **plan) -> Recipe:
    student = {"network": "fast_unet", "settings": {"width": [4, 4]}}
    return from_dict(
        Recipe,
        {
            "name": "from-nnunet",
            "precision": "32-true",
            "accelerator": "cpu",
            "workers": 0,
            "split": {"folds": 3},
            "plan": {"batch": 2, **plan},
            "stages": [
                {
                    "name": "student",
                    "epochs": epochs,
                    "trained": {"student": student},
                    "frozen": {"teacher": {"nnunet": str(results), **(teacher or {})}},
                    "links": {"label": {"term": "label"}, "maps": {"term": "prediction_maps"}},
                }
            ],
        },
    )


def test_a_student_adopts_the_plans_and_goes_on_without_its_teacher(ct, tmp_path):
    events, out = [], tmp_path / "run"
    run(recipe(ct), {"": raw(ct)}, out, on_event=events.append)
    plan = json.loads((out / "plan.json").read_text())
    found = json.loads((ct / "plans.json").read_text())
    measured = found["foreground_intensity_properties_per_channel"]["0"]
    assert plan["preprocessing"]["spacing_mm"] == [1.0, 1.0, 4.0]
    (intensity,) = plan["preprocessing"]["intensity"]
    assert intensity["clip"] == [measured["percentile_00_5"], measured["percentile_99_5"]]
    assert (intensity["mean"], intensity["std"]) == (measured["mean"], measured["std"])
    for key in ("spacing_mm", "intensity", "orientation"):
        assert plan["reasons"][key] == "as the nnU-Net was trained, which teaches"
    texts = {event.kind: event.text for event in events}
    assert "could not be checked" in texts["rehearsal"]
    shutil.move(ct, tmp_path / "away")  # from here on nobody needs it
    try:
        main(["evaluate", str(out), "--data", str(raw(ct)), "--csv", str(tmp_path / "s.csv")])
        card, package = tmp_path / "card.toml", tmp_path / "student.distillseg"
        card.write_text(CARD)
        build_package(out, stage="student", card=card, out=package)
    finally:
        shutil.move(tmp_path / "away", ct)
    assert (tmp_path / "s.csv").read_text().count("\n") > 2
    assert package.is_file()


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"spacing_mm": [2.0, 1.0, 1.0]}, r"was trained with the spacing_mm \(1.0, 1.0, 1.0\)"),
        ({"orientation": "RAS"}, "was trained with the orientation LPS, the recipe gives RAS"),
        ({"intensity": [{"scheme": "image", "clip": [1, 99]}]}, "the student adopts the teacher's"),
        ({"window": [10, 8, 8]}, r"window is 10 x 8 x 8; the networks need multiples of 4"),
    ],
)
def test_a_recipe_that_contradicts_the_plans_is_refused_in_words(mr, tmp_path, plan, sentence):
    with pytest.raises(RecipeError, match=sentence):
        run(recipe(mr, **plan), {"": raw(mr)}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_of_another_data_set_is_refused(mr):
    other = replace(plan_of(mr), spacing_mm=(1.0, 1.0, 2.0))
    with pytest.raises(RecipeError, match=r"the plan has \(1.0, 1.0, 2.0\); leave plan.spacing_mm"):
        build_teacher(TeacherConfig(nnunet=str(mr)), 1, LABELS, other)
    with pytest.raises(RecipeError, match="needs sizes that divide by 4 x 4 x 4"):
        guide(mr)(torch.zeros(1, 1, 8, 8, 10))


def test_images_stored_along_different_axes_are_refused(mr, tmp_path):
    shutil.copytree(raw(mr), tmp_path / "mixed")
    for kind, name in (("imagesTr", "case_02_0000"), ("labelsTr", "case_02")):
        file = str(tmp_path / "mixed" / kind / f"{name}.nii.gz")
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(file), "RAS"), file)
    with pytest.raises(RecipeError, match=r"different axes \('case_00' LPS, 'case_02' RAS\)"):
        adopt(recipe(mr), read_dataset(tmp_path / "mixed"))


def test_labels_are_matched_by_name(mr):
    swapped = build_teacher(TeacherConfig(nnunet=str(mr)), 1, label_table({1: "tail", 2: "Ball"}))
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(swapped.eval()(image), guide(mr).eval()(image)[:, [0, 2, 1]])
    with pytest.raises(RecipeError, match="not 'Liver'"):
        build_teacher(TeacherConfig(nnunet=str(mr)), 1, label_table({1: "Liver"}))
    with pytest.raises(RecipeError, match=r"takes 1 channels \(MRI\), the data set has 2"):
        build_teacher(TeacherConfig(nnunet=str(mr)), 2, LABELS)


def changed(results: Path, folder: Path, plans=None, dataset=None) -> str:
    """A copy of a results folder whose plans or data set say something else."""
    folder = folder / results.name
    shutil.copytree(results, folder)
    for name, change in (("plans", plans), ("dataset", dataset)):
        if change:
            data = json.loads((folder / f"{name}.json").read_text())
            change(data)
            (folder / f"{name}.json").write_text(json.dumps(data))
    return str(folder)


def fullres(**values):
    return lambda plans: plans["configurations"]["3d_fullres"].update(values)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"plans": fullres(use_mask_for_norm=[True])}, "within a mask of non-zero voxels"),
        (
            {"plans": fullres(normalization_schemes=["RescaleTo01Normalization"])},
            "scales channel 0",
        ),
        ({"plans": fullres(previous_stage="3d_lowres")}, "second stage of a cascade"),
        ({"plans": lambda plans: plans["configurations"].clear()}, "no configuration '3d_fullres'"),
        ({"dataset": lambda d: d["labels"].update(ignore=3)}, "an 'ignore' label"),
        ({"dataset": lambda d: d["labels"].update(Both=[1, 2])}, "regions that overlap"),
        ({"dataset": lambda d: d["labels"].update(Ball="one")}, "not as nnU-Net v2 writes it"),
        ({"plans": lambda plans: plans.pop("transpose_forward")}, "KeyError: 'transpose_forward'"),
        ({"plans": lambda plans: plans.update(transpose_forward=[0, 1])}, "copy the results"),
        ({"plans": fullres(normalization_schemes=None)}, "copy the results folder again"),
    ],
)
def test_an_nnunet_that_cannot_teach_is_refused_in_words(mr, tmp_path, change, sentence):
    folder = changed(mr, tmp_path, **change)
    with pytest.raises(RecipeError, match=sentence):
        read_results(folder, (0,), "checkpoint_final.pth")


def test_schemes_without_statistics_are_ours_too(mr, tmp_path):
    for number, (scheme, expected) in enumerate(
        {
            "NoNormalization": (0.0, 1.0),
            "RGBTo01Normalization": (0.0, 255.0),
        }.items()
    ):
        folder = changed(mr, tmp_path / str(number), fullres(normalization_schemes=[scheme]))
        (intensity,) = read_results(folder, (0,), "checkpoint_final.pth").intensity
        assert isinstance(intensity, Intensity)
        assert (intensity.scheme, intensity.mean, intensity.std) == ("fixed", *expected)


def test_a_folder_that_is_no_result_is_refused(mr, tmp_path):
    with pytest.raises(RecipeError, match="give a results folder of nnU-Net v2"):
        guide(tmp_path)
    with pytest.raises(RecipeError, match=r"no 'fold_3/checkpoint_final.pth'; it has fold_0/"):
        guide(mr, folds=(3,))


def test_without_the_package_one_sentence_says_what_to_install(mr, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "nnunetv2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    with pytest.raises(RecipeError, match=r'pip install "distillseg\[nnunet\]"'):
        read_results(str(mr), (0,), "checkpoint_final.pth")
