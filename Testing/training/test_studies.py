"""Studies: what runs, what is kept, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import study as studies
import study_table

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import RecipeError
from DistillSegLib.inference import Segmenter
from DistillSegLib.package import load_package
from DistillSegLib.places import resources
from DistillSegLib.records import from_dict
from DistillSegLib.training.recipe import load_recipe
from Testing.datasets import write_decathlon
from Testing.training.small_study import ARMS, DONE, SMALL, plain

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


def test_guides_share_a_run_only_if_recipe_and_settings_agree(small, tmp_path):
    guide = vars(small.guides["teacher"])
    guides = {"teacher": guide, "assistant": guide | {"stage": "other"}}
    guides["wide"] = guide | {"set": ["seed=8"]}
    study = from_dict(studies.Study, plain(small) | {"guides": guides})
    folders = [studies.folder_of(study, name, 1, tmp_path).name for name in guides]
    assert folders == ["teacher-f1", "teacher-f1", "wide-f1"]


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


def test_a_package_does_not_teach_a_fold_whose_answers_it_has_seen(small, tmp_path):
    guides = {"teacher": {"package": "hippocampus-reference"}}
    form = plain(small) | {"guides": guides, "recipe": "recipes/tiny-long.toml"}
    study = from_dict(studies.Study, form)
    folders = studies.train_guides(study, 0, {"": tmp_path}, tmp_path, [])  # trains nothing
    word = studies.teacher_of(study, "teacher", folders["teacher"])
    assert word == "{package='hippocampus-reference'}"
    assert folders["teacher"].name == "hippocampus-reference-1.0.0-f0"
    with pytest.raises(RecipeError, match=r"'fold': 0, .* 'small' asks it to teach .*'fold': 1,"):
        studies.train_guides(study, 1, {"": tmp_path}, tmp_path, [])


def test_a_study_runs_stops_and_goes_on(small, tmp_path):
    """Real training and evaluation, in processes of their own."""
    results = tmp_path / "results"
    data = write_decathlon(tmp_path / "data", cases=8)
    work = tmp_path / "work"
    assert not studies.work_off(small, {"": data}, work, ["devices=1"], 0, results)
    first = small.seeds[:1]
    one = from_dict(studies.Study, json.loads(json.dumps(plain(small))) | {"seeds": first})
    assert studies.work_off(one, {"": data}, work, [], 99, results)
    kept = sorted(path.name for path in (results / "small").iterdir())
    assert kept == ["maps-f0-s0.json", "none-f0-s0.json"]
    result = json.loads((results / "small" / "none-f0-s0.json").read_text())
    assert len(result["cases"]) == 2 and result["labelled_cases"] == 3
    assert all(len(scores["Ball"]) == 3 for scores in result["cases"].values())
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.json")}
    assert studies.work_off(one, {"": data}, work, [], 99, results)  # nothing is left to do
    assert before == {p: p.stat().st_mtime_ns for p in results.rglob("*.json")}
    found = study_table.read(small, results)
    assert "2 of 4 runs are still to be done." in study_table.table(small, found)


def test_what_a_guide_says_may_be_stored_once(small, tmp_path):
    """Real training: the maps are those of the teacher, of its own cases, and a student learns."""
    guide = vars(small.guides["teacher"]) | {"stored": True}
    form = plain(small) | {"arms": ARMS[1:], "baseline": "maps", "seeds": [0]}
    study = from_dict(studies.Study, form | {"guides": {"teacher": guide}})
    data = write_decathlon(tmp_path / "data", cases=8)
    work = tmp_path / "work"
    assert studies.work_off(study, {"": data}, work, ["devices=1"], 99, tmp_path)
    files = sorted((work / "teacher-f0" / "maps").iterdir())
    held_out = json.loads((tmp_path / "small" / "maps-f0-s0.json").read_text())["cases"]
    assert len(files) == 6 and not {file.stem for file in files} & set(held_out)
    case = next(case for case in read_dataset(data).cases if case.id == files[0].stem)
    found = np.load(files[0]).astype(np.float32)
    assert found.shape[1:] == sitk.GetArrayFromImage(sitk.ReadImage(str(case.label))).shape
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=2e-3)
    before = files[0].stat().st_mtime_ns
    studies.store_maps(study.guides["teacher"], work / "teacher-f0", {"": data})
    assert files[0].stat().st_mtime_ns == before


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
    studies.store_maps(guide, tmp_path, {"": tmp_path})
    (file,) = (tmp_path / "maps").iterdir()
    assert file.stem == cases[0]
    found = np.load(file).astype(np.float32).argmax(axis=0)
    assert (found == sitk.GetArrayFromImage(expected)).mean() > 0.999
    assert len(np.unique(found)) == 3


def test_an_arm_of_another_recipe_costs_all_its_stages(small, tmp_path):
    """Real training: an assistant first, then it and the student, which alone is scored."""
    unet = '{ network = "unet", settings = { width = [4, 8] } }'
    stages = f"""
[[stages]]
name = "before"
epochs = 1
trained.assistant = {unet.replace("8", "16")}
links.label = {{ term = "label", student = "assistant" }}
[[stages]]
name = "student"
epochs = 2
trained.assistant = {unet.replace("8", "16")}
trained.student = {unet}
start = {{ assistant = "before/assistant" }}
links.label = {{ term = "label" }}
links.lesson = {{ term = "prediction_maps", teacher = "assistant" }}
links.assistant = {{ term = "label", student = "assistant" }}
"""
    (tmp_path / "both.toml").write_text(SMALL.split("[[stages]]")[0] + stages)
    arms = [ARMS[0], {"name": "both", "title": "both", "recipe": str(tmp_path / "both.toml")}]
    form = plain(small) | {"arms": arms, "guides": {}, "seeds": [0]}
    study = from_dict(studies.Study, form)
    data = write_decathlon(tmp_path / "data", cases=8)
    assert studies.work_off(study, {"": data}, tmp_path / "work", ["devices=1"], 99, tmp_path)
    none, both = (
        json.loads((tmp_path / "small" / f"{arm}-f0-s0.json").read_text())
        for arm in ("none", "both")
    )
    assert both["parameters"] == none["parameters"] and both["epochs"] == 3
    spent = json.loads((tmp_path / "work" / "small" / "both-f0-s0" / "summary.json").read_text())
    seconds = sum(stage["cpu_seconds"] for stage in spent["stages"].values())
    assert both["cpu_minutes"] == pytest.approx(seconds / 60, abs=0.006)


@pytest.mark.parametrize(("name", "fold"), [("hippocampus", 1), ("small", 0)])
def test_a_guide_of_another_recipe_or_fold_is_refused(small, tmp_path, name, fold):
    """Two studies that share a folder may call their guides alike."""
    folder = studies.folder_of(small, "teacher", 1, tmp_path)
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "student.pt").touch()
    (folder / "recipe.json").write_text(json.dumps({"name": name, "split": {"fold": fold}}))
    words = rf"'{name}', fold {fold}; .* is of 'small', fold 1\. Give another --work\."
    with pytest.raises(RecipeError, match=words):
        studies.train_guides(small, 1, {"": tmp_path}, tmp_path, [])


def test_a_run_that_was_kept_under_other_settings_is_not_taken_for_this_one(small, tmp_path):
    run = next(studies.queue(small))
    path = studies.result_of(small, run, tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps(studies.settings(small, run)))
    studies.check_kept(small, run, path)
    longer = Path(small.recipe)
    longer.write_text(longer.read_text().replace("epochs = 1", "epochs = 2"))
    words = "'small' has now; delete it to repeat the run"
    with pytest.raises(RecipeError, match=f"with another recipe than the study {words}"):
        studies.work_off(small, {"": tmp_path}, tmp_path, [], 0, tmp_path)
    path.write_text(json.dumps({"set": ["split.labelled=0.1"]}))
    with pytest.raises(RecipeError, match="with another set than"):
        studies.check_kept(small, run, path)


@pytest.mark.parametrize("name", DONE)
def test_what_is_kept_belongs_to_the_study_as_it_is(name):
    study = studies.load_study(name)
    for run in studies.queue(study):
        path = studies.result_of(study, run)
        if path.is_file():
            studies.check_kept(study, run, path)


def test_an_arm_may_train_each_modality_apart_or_all_together(tmp_path):
    """Real training and evaluation of two data sets; each structure is scored by data set."""
    recipe = SMALL.replace("plan.batch = 2", "plan.batch = 4").replace(
        'network = "unet"', 'domains = ["ct", "mr"], network = "unet"'
    )
    (tmp_path / "two.toml").write_text(recipe.replace('"label" }', '"domain_label" }'))
    arms = [
        {"name": "apart", "title": "a network each", "apart": True},
        {"name": "shared", "title": "one", "set": ["stages.student.trained.student.norms=shared"]},
    ]
    arms[0]["set"] = ["stages.student.trained.student.domains={domains}"]
    form = {"name": "two", "title": "Two", "recipe": str(tmp_path / "two.toml"), "arms": arms}
    form |= {"stage": "student", "baseline": "apart", "size": "Far too small.", "seeds": [0]}
    study = from_dict(studies.Study, form)
    data = {name: write_decathlon(tmp_path / name, cases=8) for name in ("ct", "mr")}
    assert studies.work_off(study, data, tmp_path / "work", ["devices=1"], 99, tmp_path)
    apart, shared = (
        json.loads((tmp_path / "two" / f"{arm}-f0-s0.json").read_text())
        for arm in ("apart", "shared")
    )
    assert apart["parameters"] == 2 * shared["parameters"]
    assert apart["labelled_cases"] == shared["labelled_cases"] == 12
    assert list(apart["cases"]) == list(shared["cases"])
    assert [name.partition(" ")[0] for name in shared["cases"]] == ["ct", "ct", "mr", "mr"]
    row = study_table.row_of("one", [shared])
    assert list(row.dice) == ["ct Ball", "ct Tail", "mr Ball", "mr Tail"]
    mr = [scores["mr Ball"][0] for scores in shared["cases"].values() if "mr Ball" in scores]
    assert row.dice["mr Ball"][0] == pytest.approx(np.mean(mr))
