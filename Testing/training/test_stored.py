"""Stored teachers: maps on disk, matched by name, checked against the image, moved with it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import store_maps
import torch

from DistillSegLib.datasets import read_dataset
from DistillSegLib.distill.views import Batch
from DistillSegLib.errors import RecipeError
from DistillSegLib.images import read_image
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.records import from_dict
from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.recipe import AugmentationConfig, Recipe
from DistillSegLib.training.stages import PLAIN, run
from DistillSegLib.training.stored import Maps, StoredTeacher, check_maps, find_maps, prepare_maps
from Testing.datasets import write_decathlon

SIZE = (10, 12, 8)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_decathlon(tmp_path / "data", size=SIZE)


def one_hot(data: Path, case: str = "case_01") -> np.ndarray:
    """(3, D, H, W) float32 of the reference."""
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "labelsTr" / f"{case}.nii.gz")))
    return np.stack([values == value for value in (0, 3, 7)]).astype(np.float32)


def soft(data: Path, case: str = "case_01") -> np.ndarray:
    """Probabilities that are not those of the reference alone."""
    random = np.random.default_rng(int(case[-2:]))
    values = one_hot(data, case) * 3
    values += random.random(values.shape, dtype=np.float32)
    return values / values.sum(axis=0)


def on_grid(array: np.ndarray, data: Path, case: str) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(sitk.ReadImage(str(data / "imagesTr" / f"{case}_0000.nii.gz")))
    return image


def write_maps(folder: Path, data: Path, kind: str, case: str = "case_01") -> Path:
    """One case's map in one of the forms that are read; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    array, file = soft(data, case), folder / case
    if kind in (".npz", ".npy"):
        file = Path(f"{file}{kind}")
        logits = np.log(array) + 2  # some are negative
        np.savez(file, probabilities=array) if kind == ".npz" else np.save(file, logits)
        return file
    if kind == "hard":
        file = folder / f"{case}.nii.gz"
        shutil.copy(data / "labelsTr" / f"{case}.nii.gz", file)
        return file
    classes = [on_grid(each, data, case) for each in array]
    file = folder / f"{case}{'.nii.gz' if kind == '4-D' else '.nrrd'}"
    sitk.WriteImage(sitk.JoinSeries(classes) if kind == "4-D" else sitk.Compose(classes), str(file))
    return file


def read(maps: Maps, data: Path, plan: Preprocessing | None = None, case: str = "case_01"):
    dataset = read_dataset(data)
    plan = plan or Preprocessing((1.0, 1.0, 1.0), (Intensity("image", (0.0, 100.0)),))
    of = next(each for each in dataset.cases if each.id == case)
    return prepare_maps(maps, of, find_maps(maps, [of])[case], dataset.labels, plan)


# Reading


@pytest.mark.parametrize("kind", ["hard", "4-D", "vector", ".npz", ".npy"])
def test_every_form_gives_probabilities_in_our_order(data, tmp_path, kind):
    write_maps(tmp_path / "maps", data, kind)
    hard, maps = read(Maps(str(tmp_path / "maps")), data)
    assert hard == (kind == "hard")
    assert maps.dtype == np.float16 and maps.shape == (3, *SIZE)
    expected = one_hot(data) if kind == "hard" else soft(data)
    assert np.allclose(maps, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["hard", "4-D", ".npz"])
def test_channels_are_put_in_the_order_that_the_recipe_names(data, tmp_path, kind):
    write_maps(tmp_path / "maps", data, kind)
    classes = (0, 7, 3) if kind == "hard" else (0, 2, 1)
    _, maps = read(Maps(str(tmp_path / "maps"), classes), data)
    expected = one_hot(data) if kind == "hard" else soft(data)
    assert np.allclose(maps, expected[[0, 2, 1]], atol=1e-3)


def test_logits_are_softened_over_all_channels_before_ours_are_chosen(data, tmp_path):
    (tmp_path / "maps").mkdir()
    logits = np.random.default_rng(0).normal(size=(4, *SIZE)).astype(np.float32)
    np.save(tmp_path / "maps" / "case_01.npy", logits)
    _, maps = read(Maps(str(tmp_path / "maps"), (0, 3, 1)), data)
    expected = torch.from_numpy(logits).softmax(0).numpy()[[0, 3, 1]]
    assert np.allclose(maps, expected, atol=1e-3)


def test_values_that_the_recipe_does_not_name_are_background(data, tmp_path):
    write_maps(tmp_path / "maps", data, "hard")
    _, maps = read(Maps(str(tmp_path / "maps"), (0, 3, 5)), data)
    assert np.array_equal(maps[1], one_hot(data)[1])
    assert not maps[2].any() and np.array_equal(maps[0] + maps[1], np.ones(SIZE))


@pytest.mark.parametrize("code", ["RAS", "SPL"])
def test_maps_lie_where_the_preprocessed_label_lies(data, tmp_path, code):
    write_maps(tmp_path / "maps", data, "hard")
    plan = Preprocessing((1.0, 1.0, 1.0), (Intensity("image", (0.0, 100.0)),), code)
    _, maps = read(Maps(str(tmp_path / "maps")), data, plan)
    label = plan.apply_label(read_image(data / "labelsTr" / "case_01.nii.gz"))
    assert np.array_equal(maps.argmax(axis=0), np.searchsorted([0, 3, 7], label))


def test_maps_are_interpolated_to_the_plan_s_grid(data, tmp_path):
    write_maps(tmp_path / "maps", data, "4-D")
    plan = Preprocessing((2.0, 2.0, 2.0), (Intensity("image", (0.0, 100.0)),))
    _, maps = read(Maps(str(tmp_path / "maps")), data, plan)
    blocks = soft(data).reshape(3, 5, 2, 6, 2, 4, 2).mean(axis=(2, 4, 6))
    assert np.allclose(maps, blocks, atol=1e-3)  # a voxel of 2 mm lies amid eight of 1 mm


def test_two_processes_may_store_the_maps_of_one_case(data, tmp_path, monkeypatch):
    """The second begins and ends while the first writes."""
    file, save = tmp_path / "maps" / "case_01.npy", np.save
    found = soft(data).astype(np.float16)

    def slow_save(stream, array):
        monkeypatch.setattr(np, "save", save)
        store_maps.store(found, file)
        save(stream, array)

    monkeypatch.setattr(np, "save", slow_save)
    store_maps.store(found, file)
    assert np.array_equal(np.load(file), found)
    assert list(file.parent.iterdir()) == [file]


# What does not fit


def test_missing_maps_are_counted_and_the_first_is_named(data, tmp_path):
    maps = Maps(str(tmp_path / "maps"))
    cases = read_dataset(data).cases
    with pytest.raises(RecipeError, match=r"no folder '.*maps' of stored maps"):
        find_maps(maps, cases)
    for case in ("case_00", "case_05"):
        write_maps(tmp_path / "maps", data, ".npy", case)
    with pytest.raises(RecipeError, match="lacks the maps of 6 of 8 cases, the first is 'case_01'"):
        find_maps(maps, cases)


def test_names_are_matched_with_and_without_the_channel_s_suffix(data, tmp_path):
    first = read_dataset(data).cases[0]
    file = write_maps(tmp_path / "maps", data, "hard", "case_00")
    renamed = file.rename(tmp_path / "maps" / "case_00_0000.nii.gz")
    maps = Maps(str(tmp_path / "maps"))
    assert find_maps(maps, [first]) == {"case_00": renamed}
    longer = replace(first, id="case_00_0001")
    shutil.copy(renamed, tmp_path / "maps" / "case_00.nii.gz")
    assert find_maps(maps, [longer])["case_00_0001"].name == "case_00.nii.gz"
    numbered = [replace(first, id=f"case_{number:04d}") for number in (1, 2)]  # no channels
    for case in numbered:
        shutil.copy(renamed, tmp_path / "maps" / f"{case.id}.nii.gz")
    assert {k: f.name for k, f in find_maps(maps, numbered).items()} == {
        "case_0001": "case_0001.nii.gz",
        "case_0002": "case_0002.nii.gz",
    }


def test_probabilities_are_taken_where_labels_lie_beside_them(data, tmp_path):
    write_maps(tmp_path / "maps", data, "hard")
    write_maps(tmp_path / "maps", data, ".npz")
    assert read(Maps(str(tmp_path / "maps")), data)[0] is False


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda image: image[:, :, 1:], r"lies on 8x12x9 voxels.*the image on 8x12x10 voxels"),
        (lambda image: image.SetSpacing((1, 1, 2)), "of 1x1x2 mm.*the image on .* of 1x1x1 mm"),
        (lambda image: image.SetOrigin((0, 5, 0)), r"at \(0.0, 5.0, 0.0\).*at \(0.0, 0.0, 0.0\)"),
        (
            lambda image: image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1)),
            "1x1x1 mm, RPS.*1x1x1 mm, LPS",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["hard", "vector"])
def test_a_map_on_another_grid_is_refused_with_both_grids(data, tmp_path, kind, change, sentence):
    file = write_maps(tmp_path / "maps", data, kind)
    image = sitk.ReadImage(str(file))
    sitk.WriteImage(change(image) or image, str(file))
    with pytest.raises(RecipeError, match=f"^Case 'case_01', stored map '{file.name}'.*{sentence}"):
        read(Maps(str(tmp_path / "maps")), data)


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("case_01.npy", np.zeros((3, 10, 12, 9)), r"shape \(3, 10, 12, 9\), the image has \(10"),
        ("case_01.npy", np.ones((3, *SIZE)), "sum to 3 to 3 at a voxel"),
        ("case_01.npy", np.full((3, *SIZE), np.nan), "not finite"),
        ("case_01.npy", np.full((2, *SIZE), 0.5), "it has 2 classes, the data set has 3"),
        ("case_01.nii.gz", np.full(SIZE, 0.5, np.float32), "it holds fractions"),
        ("case_01.nii.gz", np.full(SIZE, 5, np.uint8), r"the values \[5\], which the label table"),
        ("case_01.npy", b"not numpy", "it is damaged or holds no numbers. Store it again"),
        ("case_01.npz", b"", "it is damaged"),
        ("case_01.npz", b"PK\x03\x04 not zip", "it is damaged"),
        ("case_01.npy", np.full((3, *SIZE), 0.3 + 1j), "it holds complex128, not real numbers"),
        ("case_01.nii.gz", np.zeros(SIZE, np.uint8), "None of the 1 maps .* shows a structure"),
        ("case_01.nii.gz", b"not nifti", "not a NIfTI file"),
    ],
)
def test_a_file_that_is_no_map_is_refused_in_words(data, tmp_path, name, array, sentence):
    file = tmp_path / "maps" / name
    file.parent.mkdir()
    if isinstance(array, bytes):
        file.write_bytes(array)
    elif name.endswith(".npy"):
        np.save(file, array)
    else:
        sitk.WriteImage(on_grid(array, data, "case_01"), str(file))
    dataset = read_dataset(data)
    with pytest.raises(RecipeError, match=sentence):
        check_maps(Maps(str(tmp_path / "maps")), [dataset.cases[1]], dataset.labels)


def test_classes_that_no_map_has_are_refused(data, tmp_path):
    write_maps(tmp_path / "maps", data, "hard")
    dataset = read_dataset(data)
    check_maps(Maps(str(tmp_path / "maps"), (0, 3, 5)), [dataset.cases[1]], dataset.labels)
    with pytest.raises(RecipeError, match=r"not those that classes = \[0, 1, 2\] names"):
        check_maps(Maps(str(tmp_path / "maps"), (0, 1, 2)), [dataset.cases[1]], dataset.labels)


# Moving along with the image


def recipe(folder: Path, *, epochs: int = 1, more: dict | None = None, **plan) -> Recipe:
    student = {"network": "fast_unet", "settings": {"width": [16, 16]}}
    return from_dict(
        Recipe,
        {
            "name": "stored",
            "precision": "32-true",
            "accelerator": "cpu",
            "workers": 0,
            "split": {"folds": 4},
            "plan": {"batch": 2, **plan},
            "optim": {"learning_rate": 5e-3},
            "validate_every": 1000,
            "stages": [
                {
                    "name": "student",
                    "epochs": epochs,
                    "trained": {"student": student},
                    "frozen": {"teacher": {"stored": str(folder), **(more or {})}},
                    "links": {"maps": {"term": "prediction_maps"}},
                }
            ],
        },
    )


def stored(tmp_path: Path, kind: str, **size) -> tuple[Path, Path]:
    """A data set and the maps of its training cases only."""
    data = write_decathlon(tmp_path / "data", **(size or {"size": SIZE}))
    training, _ = read_dataset(data).split(4, 0, 0)
    for case in training:
        write_maps(tmp_path / "maps", data, kind, case.id)
    return data, tmp_path / "maps"


def test_maps_are_cut_and_varied_with_the_image(tmp_path):
    data, folder = stored(tmp_path, "hard")
    out = tmp_path / "run"
    run(recipe(folder, window=[8, 8, 8]), {"": data}, out)
    vary = AugmentationConfig(flips=(0.5, 0.5, 0.5), affine=1.0, rotation=(30.0, 30.0, 30.0))
    loader = PatchLoader(
        open_cache(out / "cache"),
        vary,
        window=(8, 8, 8),
        batch=6,
        seed=3,
        workers=0,
        stored={"teacher": Maps(str(folder), smoothing=0.0), "soft": Maps(str(folder))},
    )
    for number in range(3):
        (batch,) = loader.epoch(number)
        maps = batch.stored["teacher"]
        assert maps.shape == (6, 3, 8, 8, 8) and maps.dtype == torch.float32
        assert torch.allclose(maps.sum(1), torch.ones(6, 8, 8, 8), atol=1e-3)
        value, index = maps.max(1)
        sure = value > 0.99
        assert torch.equal(index[sure], batch.label[sure])
        assert sure.float().mean() > 0.2 and batch.label[sure].max() == 2
        assert torch.allclose(batch.stored["soft"], 0.95 * maps + 0.05 / 3, atol=1e-6)


def test_beyond_the_image_there_is_background(tmp_path):
    data, folder = stored(tmp_path, ".npz")
    out = tmp_path / "run"
    run(recipe(folder, window=[16, 16, 16]), {"": data}, out)  # larger than the images
    loader = PatchLoader(
        open_cache(out / "cache"),
        PLAIN,
        window=(16, 16, 16),
        batch=6,
        seed=3,
        workers=0,
        stored={"teacher": Maps(str(folder))},
    )
    (batch,) = loader.epoch(0)
    view = StoredTeacher(str(folder))(batch)
    probabilities = batch.stored["teacher"]
    outside = (batch.image == 0).all(1)
    assert 0 < outside.float().mean() < 1
    assert (probabilities[:, 0][outside] == 1).all()
    inside = probabilities[:, 0][~outside]
    assert inside.max() < 1  # soft everywhere
    assert torch.allclose(view.logits.softmax(1), probabilities, atol=5e-4)
    assert (view.logits.argmax(1) == probabilities.argmax(1)).all()


def test_a_student_learns_from_labels_that_were_stored(tmp_path):
    data, folder = stored(tmp_path, "hard", cases=12)
    run(recipe(folder, epochs=10), {"": data}, tmp_path / "run")  # no link to the reference
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stages"]["student"]["held_out_dice"]["student"]["Ball"] > 0.7


def test_a_carried_cache_needs_neither_the_maps_nor_simpleitk(tmp_path, monkeypatch):
    data, folder = stored(tmp_path, ".npz")
    made = recipe(folder)
    run(made, {"": data}, tmp_path / "run")
    shutil.move(tmp_path / "run" / "cache", tmp_path / "carried")
    shutil.rmtree(folder)
    shutil.rmtree(data)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    networks = run(made, {"": tmp_path / "carried"}, tmp_path / "again")
    assert networks["student/student"].read_bytes()
    with pytest.raises(RecipeError, match="holds no maps of 'elsewhere' for case 'case_0"):
        run(recipe(Path("elsewhere")), {"": tmp_path / "carried"}, tmp_path / "third")


def test_maps_that_changed_are_cached_anew(tmp_path):
    data, folder = stored(tmp_path, ".npz")
    run(recipe(folder), {"": data}, tmp_path / "run")
    first = open_cache(tmp_path / "run" / "cache").training_cases[0]
    np.savez(folder / f"{first.id}.npz", probabilities=one_hot(data, first.id))
    shutil.rmtree(tmp_path / "run" / "student")
    shutil.move(tmp_path / "run" / "cache", tmp_path / "second" / "cache")
    run(recipe(folder), {"": data}, tmp_path / "second")
    cache = open_cache(tmp_path / "second" / "cache")
    _, maps = cache.maps(cache.training_cases[0], Maps(str(folder)))
    assert np.array_equal(maps, one_hot(data, first.id))
    with pytest.raises(
        RecipeError, match=f"lacks the maps of 1 of 6 cases, the first is '{first.id}'"
    ):
        (folder / f"{first.id}.npz").unlink()
        run(recipe(folder), {"": data}, tmp_path / "third")


def test_stored_maps_have_no_features(tmp_path):
    data, folder = stored(tmp_path, "hard")
    made = recipe(folder)
    link = replace(
        made.stages[0].links["maps"], term="channel_wise", settings={"taps": ["encoder/1"]}
    )
    stage = replace(made.stages[0], links={"features": link})
    with pytest.raises(RecipeError, match="role 'teacher': stored maps have no tap 'encoder/1'"):
        run(replace(made, stages=(stage,)), {"": data}, tmp_path / "run")


def test_a_batch_without_its_maps_is_refused():
    with pytest.raises(RecipeError, match="the batch holds no map of it"):
        StoredTeacher("maps")(Batch(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 2, 2, 2)))
