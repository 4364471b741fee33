"""Guides of a study: which are shared, refused, stored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import study_design as studies
import study_guides

from DistillSegLib.errors import RecipeError
from DistillSegLib.inference import Segmenter
from DistillSegLib.package import load_package
from DistillSegLib.places import resources
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training.recipe import load_recipe
from Testing.datasets import write_decathlon
from Testing.training.small_study import plain


def test_guides_share_a_run_only_if_recipe_and_settings_agree(small, tmp_path):
    guide = vars(small.guides["teacher"])
    guides = {"teacher": guide, "assistant": guide | {"stage": "other"}}
    guides["wide"] = guide | {"set": ["seed=8"]}
    study = from_dict(studies.Study, plain(small) | {"guides": guides})
    folders = [study_guides.folder_of(study, name, 1, tmp_path).name for name in guides]
    assert folders == ["teacher-f1", "teacher-f1", "wide-f1"]


def test_a_package_does_not_teach_a_fold_whose_answers_it_has_seen(small, tmp_path):
    guides = {"teacher": {"package": "hippocampus-reference"}}
    form = plain(small) | {"guides": guides, "recipe": "recipes/tiny-long.toml"}
    study = from_dict(studies.Study, form)
    first = studies.Run(study.arms[1], fold=0, seed=0)
    folders = study_guides.train_guides(
        study, first, {"": tmp_path}, tmp_path, []
    )  # trains nothing
    word = study_guides.teacher_of(study, "teacher", folders["teacher"])
    assert word == "{package='hippocampus-reference'}"
    assert folders["teacher"].name == "hippocampus-reference-1.0.0-f0"
    with pytest.raises(RecipeError, match=r"'fold': 0, .* 'small' asks it to teach .*'fold': 1,"):
        study_guides.train_guides(study, replace(first, fold=1), {"": tmp_path}, tmp_path, [])


@pytest.mark.parametrize(
    "word",
    ["split.fold=0", "seed=8", "stages.student.epochs=2"],
    ids=["another fold", "another seed", "a longer one"],
)
def test_a_guide_that_was_trained_otherwise_is_refused(small, tmp_path, word):
    """Two studies that share a folder may call their guides alike."""
    run = studies.Run(small.arms[1], fold=1, seed=0)
    folder = study_guides.folder_of(small, "teacher", 1, tmp_path)
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "student.pt").touch()
    settings = study_guides.settings_of(small.guides["teacher"], 1, [])
    for words in (settings, [*settings, word]):
        recipe = to_dict(load_recipe(small.recipe, words))
        (folder / "recipe.json").write_text(json.dumps(recipe))
        if word not in words:
            assert study_guides.train_guides(small, run, {}, tmp_path, [])["teacher"] == folder
    place, _, _ = word.partition("=")
    words = rf"recipe: '{place}' differs\. .* the guide 'teacher' .* fold 1; --work gives another"
    with pytest.raises(RecipeError, match=words):
        study_guides.train_guides(small, run, {}, tmp_path, [])


def test_an_arm_waits_for_the_guides_alone_that_it_names(small, tmp_path, in_this_process):
    """Real training, of the teacher: nothing is trained for the arm without one."""
    data = {"": write_decathlon(tmp_path / "data", cases=8)}
    none, maps = (studies.Run(arm, fold=0, seed=0) for arm in small.arms)
    folders = study_guides.train_guides(small, none, data, tmp_path / "work", [])
    assert not (tmp_path / "work").exists()
    assert folders == study_guides.train_guides(small, maps, data, tmp_path / "work", [])
    assert (folders["teacher"] / "student" / "student.pt").is_file()


def test_what_a_package_says_may_be_stored_too(tmp_path):
    """The maps are the package's answers to the cases that it was trained on, and to no others."""
    package = load_package("hippocampus-tiny")
    cases = package.manifest.provenance["training_cases"][0], "a stranger"
    sample = sitk.ReadImage(str(resources() / "Samples" / "hippocampus-mean.nii.gz"))
    expected = Segmenter(package).segment(sample).image
    for case in cases:
        for folder, image in {"imagesTr": sample, "labelsTr": expected}.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            sitk.WriteImage(image, str(tmp_path / folder / f"{case}.nii.gz"))
    described = {
        "name": "Samples",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Front", "2": "Back"},
        "training": [
            {"image": f"imagesTr/{case}.nii.gz", "label": f"labelsTr/{case}.nii.gz"}
            for case in cases
        ],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    guide = studies.Guide(package="hippocampus-tiny", stored=True)
    study_guides.store_maps(guide, tmp_path, {"": tmp_path})
    (file,) = (tmp_path / "maps").iterdir()
    assert file.stem == cases[0]
    found = np.load(file).astype(np.float32).argmax(axis=0)
    assert (found == sitk.GetArrayFromImage(expected)).mean() > 0.999
    assert len(np.unique(found)) == 3
