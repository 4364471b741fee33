"""Corrected segmentations as a data set to train with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.corrections import case_id, relabelled, save_correction
from DistillSegLib.datasets import check_case, read_dataset
from DistillSegLib.errors import DatasetError, ImageError
from DistillSegLib.labels import LabelTable, label_table
from DistillSegLib.package import read_package
from DistillSegLib.segmentations import Segmentation, read_segmentation
from Testing.models import LABELS, expected_labels, phantom, write_tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return read_package(
        write_tiny_package(tmp_path_factory.mktemp("package") / "threshold.distillseg")
    )


def given(labels: LabelTable = LABELS) -> tuple[sitk.Image, Segmentation]:
    """A phantom and what the model makes of it, oblique and away from the origin."""
    image = phantom()
    turned = sitk.Euler3DTransform((0, 0, 0), 0.15, -0.2, 0.1)
    image.SetDirection(turned.GetMatrix())
    image.SetOrigin((-31.0, 12.5, 88.0))
    labelmap = sitk.GetImageFromArray(expected_labels(image).astype(np.uint8))
    labelmap.CopyInformation(image)
    return image, Segmentation(labelmap, labels)


def corrected_by(raw: Segmentation, value: int) -> Segmentation:
    """The same with the first 30 voxels of a structure erased."""
    voxels = sitk.GetArrayFromImage(raw.image)
    voxels[tuple(np.argwhere(voxels == value)[:30].T)] = 0
    image = sitk.GetImageFromArray(voxels)
    image.CopyInformation(raw.image)
    return replace(raw, image=image)


def test_a_correction_is_a_data_set_that_training_reads(tmp_path, package):
    image, raw = given()
    corrected = corrected_by(raw, 7)
    saved = save_correction(tmp_path, [image], corrected, raw, package)
    dataset = read_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == [saved.case] and saved.cases == 1
    assert dataset.channels == package.manifest.channels
    assert {label.value: label.name for label in dataset.labels} == {3: "Middle", 7: "Bright"}
    assert check_case(dataset.cases[0], dataset.labels) == ""
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(read_segmentation(saved.label, dataset.labels).image),
        sitk.GetArrayFromImage(corrected.image),
    )
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(saved.images[0]))), sitk.GetArrayFromImage(image)
    )


def test_the_record_says_what_changed_and_whose_output_it_was(tmp_path, package):
    image, raw = given()
    saved = save_correction(tmp_path, [image], corrected_by(raw, 7), raw, package)
    record = json.loads(saved.record.read_text(encoding="utf-8"))
    assert record["model"] == "threshold@1.0.0"
    assert record["package"]["model.onnx"] == package.digests["model.onnx"]
    assert record["changed_voxels"] == 30
    assert record["changed_ml"] == pytest.approx(30 * np.prod(image.GetSpacing()) / 1000)
    middle, bright = record["structures"]
    count = np.count_nonzero(sitk.GetArrayFromImage(raw.image) == 7)
    assert middle["dice"] == 1
    assert bright["dice"] == pytest.approx(2 * (count - 30) / (2 * count - 30))


def test_the_same_image_replaces_its_own_correction(tmp_path, package):
    image, raw = given()
    save_correction(tmp_path, [image], corrected_by(raw, 7), raw, package)
    saved = save_correction(tmp_path, [image], corrected_by(raw, 3), raw, package)
    other = image + 1
    third = save_correction(tmp_path, [other], raw, raw, package)
    assert (saved.cases, third.cases) == (1, 2)
    assert len(list((tmp_path / "labelsTr").iterdir())) == 2
    assert sorted(case.id for case in read_dataset(tmp_path).cases) == sorted(
        [saved.case, third.case]
    )


def test_names_of_files_tell_no_patient_and_follow_the_voxels(package):
    image, _raw = given()
    moved = sitk.Image(image)
    moved.SetOrigin((0.0, 0.0, 1.0))
    assert case_id([image]) == case_id([sitk.Image(image)])
    assert len({case_id([each]) for each in (image, image + 1, moved)}) == 3


def test_segments_are_found_by_name_and_others_are_left_out(package):
    image, raw = given()
    voxels = sitk.GetArrayFromImage(raw.image)
    shuffled = np.select([voxels == 3, voxels == 7], [2, 1])
    shuffled[0, 0, :5] = 3
    labelmap = sitk.GetImageFromArray(shuffled.astype(np.uint8))
    labelmap.CopyInformation(image)
    theirs = label_table({1: "bright", 2: "MIDDLE", 3: "Lesion"})
    found, left_out = relabelled(Segmentation(labelmap, theirs), LABELS, image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.image), voxels)
    assert left_out == ("Lesion",)


def test_an_equal_value_alone_matches_nothing(package):
    image, raw = given(label_table({3: "Middle", 7: "Something else"}))
    found, left_out = relabelled(raw, LABELS, image)
    assert set(np.unique(sitk.GetArrayFromImage(found.image))) == {0, 3}
    assert left_out == ("Something else",)


def test_another_data_set_is_never_added_to(tmp_path, package):
    image, raw = given()
    theirs = '{"name": "Task04", "labels": {"0": "background", "1": "Liver"}}'
    (tmp_path / "dataset.json").write_text(theirs)
    with pytest.raises(DatasetError, match="choose another folder"):
        save_correction(tmp_path, [image], raw, raw, package)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]
    assert (tmp_path / "dataset.json").read_text() == theirs


def test_corrections_of_a_model_with_other_structures_go_elsewhere(tmp_path, package):
    image, raw = given()
    save_correction(tmp_path, [image], raw, raw, package)
    other = replace(
        package, manifest=replace(package.manifest, id="liver", labels=label_table({1: "Liver"}))
    )
    with pytest.raises(DatasetError, match="other channels or labels than 'liver'"):
        save_correction(tmp_path, [image], raw, raw, other)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, package):
    image, raw = given()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ImageError, match="could not be written"):
        save_correction(Path(tmp_path, "file"), [image], raw, raw, package)
