"""Data sets of both layouts are read as they are; what is wrong with one is a sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.datasets import Case, Dataset, check_case, read_dataset, stem
from DistillSegLib.errors import DatasetError
from DistillSegLib.labels import label_table


def write_volume(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def write_decathlon(folder: Path, names: list[str], **changes) -> Path:
    """A tiny data set in the Decathlon layout; `changes` replace keys of its dataset.json."""
    image = np.random.default_rng(1).normal(100, 20, (4, 5, 6)).astype(np.float32)
    label = np.zeros((4, 5, 6), np.uint8)
    label[1:3, 1:4, 2] = 1
    for name in names:
        write_volume(folder / "imagesTr" / f"{name}.nii.gz", image)
        write_volume(folder / "labelsTr" / f"{name}.nii.gz", label)
    described = {
        "name": "Tiny",
        "licence": "CC0",
        "reference": "made by a test",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Blob"},
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in names
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(described | changes), encoding="utf-8")
    return folder


def write_nnunet(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        image = np.full((3, 4, 5), number + 1, np.int16)
        write_volume(folder / "imagesTr" / f"{name}_0000.nrrd", image)
        write_volume(folder / "imagesTr" / f"{name}_0001.nrrd", image)
        write_volume(folder / "labelsTr" / f"{name}.nrrd", np.ones((3, 4, 5), np.uint8))
    described = {
        "channel_names": {"1": "T1", "0": "FLAIR"},
        "labels": {"background": 0, "tumour": 2, "oedema": 1},
        "numTraining": len(names),
        "file_ending": ".nrrd",
    }
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def of_patients(*names: str) -> Dataset:
    cases = tuple(Case(name, (Path(f"{name}.nii.gz"),), None) for name in names)
    return Dataset("Tiny", cases, label_table({1: "Blob"}), ("MRI",), "", "", Path())


def test_a_decathlon_folder_is_read_as_it_is(tmp_path):
    dataset = read_dataset(write_decathlon(tmp_path, ["b", "a"]), domain="mr")
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0] == Case(
        "a",
        (tmp_path / "imagesTr" / "a.nii.gz",),
        tmp_path / "labelsTr" / "a.nii.gz",
        domain="mr",
        patient="a",
    )
    assert [(label.value, label.name) for label in dataset.labels] == [(1, "Blob")]
    assert (dataset.name, dataset.channels) == ("Tiny", ("MRI",))
    assert (dataset.licence, dataset.reference) == ("CC0", "made by a test")


def test_an_nnunet_folder_is_read_with_its_channels_in_order(tmp_path):
    folder = write_nnunet(tmp_path / "Dataset007_Brain", ["p2", "p1"])
    (folder / "imagesTr" / "._p1_0000.nrrd").write_bytes(b"left by macOS")
    dataset = read_dataset(folder)
    assert [case.id for case in dataset.cases] == ["p1", "p2"]
    assert [file.name for file in dataset.cases[0].images] == ["p1_0000.nrrd", "p1_0001.nrrd"]
    assert dataset.channels == ("FLAIR", "T1")
    assert [(label.value, label.name) for label in dataset.labels] == [(1, "oedema"), (2, "tumour")]
    assert dataset.name == "Dataset007_Brain"


def test_labels_may_name_a_json_file_and_a_case_its_patient(tmp_path):
    folder = write_decathlon(tmp_path, ["a", "b"], labels="labels.json")
    (folder / "labels.json").write_text('{"1": "spleen", "5": "liver"}', encoding="utf-8")
    described = json.loads((folder / "dataset.json").read_text())
    described["training"][1]["patient"] = "a"
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    dataset = read_dataset(folder / "dataset.json")
    assert [(label.value, label.name) for label in dataset.labels] == [(1, "spleen"), (5, "liver")]
    assert [case.patient for case in dataset.cases] == ["a", "a"]


@pytest.mark.parametrize(
    ("id", "patient"),
    [
        ("SC-HF-I-01_ED", "SC-HF-I-01"),
        ("SC-HF-I-01_ES", "SC-HF-I-01"),
        ("p7_t0", "p7"),
        ("p7_frame12", "p7"),
        ("hippocampus_001", "hippocampus_001"),
        ("FRED", "FRED"),
    ],
)
def test_a_phase_or_time_point_makes_no_other_patient(id, patient):
    assert Case(id, (), None).patient == patient


def test_a_data_set_may_say_who_is_who(tmp_path):
    """Left and right side of one person, whose ids do not tell."""
    names = ["left", "other", "right"]
    for wrong in ({"nobody": "p1"}, {"left": 1}, ["left"]):
        with pytest.raises(DatasetError, match='"patients" must give the name of the patient'):
            read_dataset(write_decathlon(tmp_path, names, patients=wrong))
    patients = {"left": "p1", "right": "p1"}
    dataset = read_dataset(write_decathlon(tmp_path, names, patients=patients))
    assert [case.patient for case in dataset.cases] == ["p1", "other", "p1"]
    train, held_out = dataset.split(folds=2)
    assert {len(train), len(held_out)} == {1, 2}


def test_a_split_never_divides_a_patient_and_every_case_is_held_out_once():
    dataset = of_patients(*(f"p{n}_{phase}" for n in range(7) for phase in ("ED", "ES")))
    held_out = []
    for fold in range(3):
        train, held = dataset.split(folds=3, fold=fold, seed=4)
        assert not {case.patient for case in train} & {case.patient for case in held}
        assert len(train) + len(held) == 14
        held_out += held
    assert sorted(held_out, key=lambda case: case.id) == list(dataset.cases)


def test_the_split_is_the_same_on_every_computer_and_in_every_order():
    dataset = of_patients(*"abcdefghij")
    _, held = dataset.split(folds=5, fold=0, seed=0)
    assert [case.id for case in held] == ["e", "h"]  # written down once: a change breaks old runs
    backwards = replace(dataset, cases=dataset.cases[::-1])
    assert {case.id for case in backwards.split(folds=5, fold=0, seed=0)[1]} == {"e", "h"}
    assert {case.id for case in dataset.split(folds=5, fold=0, seed=1)[1]} != {"e", "h"}


def test_one_patient_cannot_be_split():
    with pytest.raises(DatasetError, match=r"one patient only \('a'\)"):
        of_patients("a").split(folds=2)


@pytest.mark.parametrize(("folds", "fold"), [(4, 0), (1, 0), (2, 2), (2, -1)])
def test_a_split_that_cannot_be_made_is_refused(folds, fold):
    with pytest.raises(DatasetError, match=r"patients|does not exist"):
        of_patients("a", "b", "c").split(folds=folds, fold=fold)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"modality": {}}, "does not say what its images are"),
        ({"labels": {}}, "no label but the background"),
        ({"labels": {"0": "background"}}, "no label but the background"),
        ({"labels": ["a"]}, "names no labels"),
        ({"labels": "absent.json"}, r"absent\.json' could not be read"),
        ({"labels": {"whole": [1, 2]}}, "region of several values"),
        ({"labels": {"one": "Blob"}}, "'one', which is not a number"),
        ({"labels": {"a": 1, "b": 1}}, "share the label value 1"),
        ({"labels": {"a": -1}}, "use 1 to 65535"),
        ({"training": []}, "lists no training cases"),
        ({"training": [{"label": "x"}]}, r"training\[0\] names no image"),
        ({"training": ["a.nii.gz"]}, r"training\[0\] names no image"),
        ({"training": [{"image": "imagesTr/a.nii.gz"}]}, "names no label map"),
        ({"modality": {"0": "T1", "1": "T2"}}, "1 image files for 2 channels"),
    ],
)
def test_a_description_that_contradicts_itself_is_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(DatasetError, match=sentence) as refused:
        read_dataset(write_decathlon(tmp_path, ["a"], **changes))
    assert "\n" not in str(refused.value)


def test_missing_files_are_counted_and_the_first_is_named(tmp_path):
    folder = write_decathlon(tmp_path, ["a", "b", "c"])
    (folder / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 label maps are missing.*b\.nii\.gz"):
        read_dataset(folder)
    (folder / "imagesTr" / "c.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 images are missing.*c\.nii\.gz"):
        read_dataset(folder)


@pytest.mark.parametrize("lost", ["imagesTr/p1_0001.nrrd", "labelsTr/p1.nrrd"])
def test_an_nnunet_case_without_its_label_or_a_channel_is_named(tmp_path, lost):
    folder = write_nnunet(tmp_path, ["p1", "p2"])
    (folder / lost).unlink()
    with pytest.raises(DatasetError, match=Path(lost).name):
        read_dataset(folder)


def test_two_cases_of_one_name_and_names_that_leave_the_folder_are_refused(tmp_path):
    folder = write_decathlon(tmp_path, ["a"])
    described = json.loads((folder / "dataset.json").read_text())
    entry = described["training"][0]
    for training, sentence in (
        ([entry, entry], "two cases 'a'"),
        ([entry | {"id": "../a"}], "cannot be a file name"),
    ):
        text = json.dumps(described | {"training": training})
        (folder / "dataset.json").write_text(text, encoding="utf-8")
        with pytest.raises(DatasetError, match=sentence):
            read_dataset(folder)


def test_a_folder_without_description_names_those_inside(tmp_path):
    write_decathlon(tmp_path / "CT", ["a"])
    with pytest.raises(DatasetError, match=r"holds no dataset\.json.*CT"):
        read_dataset(tmp_path)
    with pytest.raises(DatasetError, match="no data set at"):
        read_dataset(tmp_path / "absent")
    (tmp_path / "broken.json").write_text('{"name": ', encoding="utf-8")
    with pytest.raises(DatasetError, match="not valid JSON"):
        read_dataset(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DatasetError, match="describes no data set"):
        read_dataset(tmp_path / "list.json")


def test_check_case_finds_a_foreign_grid_and_a_strange_value(tmp_path):
    dataset = read_dataset(write_decathlon(tmp_path, ["a"]))
    case = dataset.cases[0]
    assert check_case(case, dataset.labels) == ""
    assert "no label map" in check_case(replace(case, label=None), dataset.labels)
    write_volume(case.label, np.ones((4, 5, 7), np.uint8))
    assert "does not lie on the grid of the image" in check_case(case, dataset.labels)
    write_volume(case.label, np.full((4, 5, 6), 9, np.uint8))
    assert "9" in check_case(case, dataset.labels)
    case.label.write_bytes(b"")
    assert check_case(case, dataset.labels).startswith("Case 'a': ")


def test_stem_takes_double_endings_as_one():
    assert stem("a/b.c.nii.gz") == "b.c"
    assert stem("b.seg.nrrd") == "b"
    assert stem("B.NII.GZ") == "B"
    assert stem("plain") == "plain"


@pytest.mark.parametrize(
    ("name", "cases", "patients", "labels", "held_out"),
    [
        ("hippocampus", 200, 200, 2, 40),
        ("left_ventricle", 64, 32, 1, 14),
        ("left_ventricle/dataset_ed.json", 32, 32, 2, 7),
        ("sarcoma_ct_mr/CT", 16, 16, 1, 4),
        ("sarcoma_ct_mr/MR_T1", 16, 16, 1, 4),
    ],
)
def test_real_data_sets_are_read(shared_data, name, cases, patients, labels, held_out):
    dataset = read_dataset(shared_data / name)
    assert (len(dataset.cases), len(dataset.labels)) == (cases, labels)
    assert len({case.patient for case in dataset.cases}) == patients
    assert len(dataset.split(folds=5, fold=0, seed=0)[1]) == held_out
    assert dataset.licence and dataset.reference
    assert check_case(dataset.cases[0], dataset.labels) == ""


def test_real_data_sets_with_plain_folders_are_read(shared_data):
    spleen = read_dataset(shared_data / "msd_spleen_crop")
    assert [label.name for label in spleen.labels] == ["spleen"]
    many = read_dataset(shared_data / "totalsegmentator_examples")
    assert len(many.labels) == 117
    assert all(check_case(case, many.labels) == "" for case in many.cases)


def test_the_defective_hippocampus_cases_are_each_one_sentence(shared_data, tmp_path):
    defective = shared_data / "hippocampus" / "defective"
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        read_dataset(defective)
    foreign = Case(
        "hippocampus_281",
        (shared_data / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz",),
        defective / "labels" / "hippocampus_281.nii.gz",
    )
    table = label_table({1: "Anterior", 2: "Posterior"})
    assert check_case(foreign, table).startswith("Case 'hippocampus_281'")
    assert "does not lie on the grid" in check_case(foreign, table) or "holds the values" in (
        check_case(foreign, table)
    )
    folder = write_decathlon(tmp_path, ["hippocampus_118", "hippocampus_010"])
    (folder / "labelsTr" / "hippocampus_118.nii.gz").unlink()
    shutil.copy(defective / "images" / "hippocampus_118.nii.gz", folder / "imagesTr")
    with pytest.raises(DatasetError, match="hippocampus_118"):
        read_dataset(folder)
