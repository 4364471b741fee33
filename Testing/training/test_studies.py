"""Studies run: what is trained, scored and kept, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import study_design as studies
import study_guides
import study_table
from study import main, work_off

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import RecipeError
from DistillSegLib.records import from_dict
from Testing.datasets import write_decathlon
from Testing.training.small_study import ARMS, SMALL, plain


def test_a_study_runs_stops_and_goes_on(small, tmp_path):
    """Real training and evaluation, in processes of their own."""
    results = tmp_path / "results"
    data = write_decathlon(tmp_path / "data", cases=8)
    work = tmp_path / "work"
    assert not work_off(small, {"": data}, work, ["devices=1"], 0, results)
    first = small.seeds[:1]
    one = from_dict(studies.Study, json.loads(json.dumps(plain(small))) | {"seeds": first})
    assert work_off(one, {"": data}, work, [], 99, results)
    kept = sorted(path.name for path in (results / "small").iterdir())
    assert kept == ["maps-f0-s0.json", "none-f0-s0.json"]
    result = json.loads((results / "small" / "none-f0-s0.json").read_text())
    assert len(result["cases"]) == 2 and result["labelled_cases"] == 3
    assert all(len(scores["Ball"]) == 3 for scores in result["cases"].values())
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.json")}
    assert work_off(one, {"": data}, work, [], 99, results)  # nothing is left to do
    assert before == {p: p.stat().st_mtime_ns for p in results.rglob("*.json")}
    found = study_table.read(small, results)
    assert "2 of 4 runs are still to be done." in study_table.table(small, found)


def test_what_a_guide_says_may_be_stored_once(small, tmp_path, in_this_process):
    """Real training: the maps are those of the teacher, of its own cases, and a student learns."""
    guide = vars(small.guides["teacher"]) | {"stored": True}
    form = plain(small) | {"arms": ARMS[1:], "baseline": "maps", "seeds": [0]}
    study = from_dict(studies.Study, form | {"guides": {"teacher": guide}})
    data = write_decathlon(tmp_path / "data", cases=8)
    work = tmp_path / "work"
    assert work_off(study, {"": data}, work, ["devices=1"], 99, tmp_path)
    files = sorted((work / "teacher-f0" / "maps").iterdir())
    held_out = json.loads((tmp_path / "small" / "maps-f0-s0.json").read_text())["cases"]
    assert len(files) == 6 and not {file.stem for file in files} & set(held_out)
    case = next(case for case in read_dataset(data).cases if case.id == files[0].stem)
    found = np.load(files[0]).astype(np.float32)
    assert found.shape[1:] == sitk.GetArrayFromImage(sitk.ReadImage(str(case.label))).shape
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=2e-3)
    before = files[0].stat().st_mtime_ns
    study_guides.store_maps(study.guides["teacher"], work / "teacher-f0", {"": data})
    assert files[0].stat().st_mtime_ns == before


def test_an_arm_of_another_recipe_costs_all_its_stages(small, tmp_path, in_this_process):
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
    assert work_off(study, {"": data}, tmp_path / "work", ["devices=1"], 99, tmp_path)
    none, both = (
        json.loads((tmp_path / "small" / f"{arm}-f0-s0.json").read_text())
        for arm in ("none", "both")
    )
    assert both["parameters"] == none["parameters"] and both["epochs"] == 3
    spent = json.loads((tmp_path / "work" / "small" / "both-f0-s0" / "summary.json").read_text())
    seconds = sum(stage["cpu_seconds"] for stage in spent["stages"].values())
    assert both["cpu_minutes"] == pytest.approx(seconds / 60, abs=0.006)


def test_a_run_that_was_kept_under_other_settings_is_not_taken_for_this_one(small, tmp_path):
    run = next(studies.queue(small))
    path = studies.result_of(small, run, tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps(studies.settings(small, run)))
    studies.check_kept(small, run, path)
    longer = Path(small.recipe)
    longer.write_text(longer.read_text().replace("epochs = 1", "epochs = 2"))
    words = "'small' has now; delete it to repeat the run"
    with pytest.raises(RecipeError, match=rf"other settings \(recipe\) than the study {words}"):
        work_off(small, {"": tmp_path}, tmp_path, [], 0, tmp_path)
    path.write_text(json.dumps(studies.settings(small, run) | {"set": ["split.labelled=0.1"]}))
    with pytest.raises(RecipeError, match=r"other settings \(set\) than"):
        studies.check_kept(small, run, path)
    path.write_text("{}")  # which says nothing of what it was made with
    with pytest.raises(RecipeError, match=r"other settings \(set, recipe, package, guides\) than"):
        study_table.read(small, tmp_path)


def test_a_run_belongs_to_the_guides_that_its_arm_names(small, tmp_path):
    none, maps = (studies.Run(arm, fold=0, seed=0) for arm in small.arms)
    teacher = vars(small.guides["teacher"])
    other = from_dict(studies.Study, plain(small) | {"guides": {"teacher": teacher | {"set": []}}})
    path = tmp_path / "run.json"
    path.write_text(json.dumps(studies.settings(small, maps)))
    studies.check_kept(small, maps, path)
    with pytest.raises(RecipeError, match=r"other settings \(guides\) than"):
        studies.check_kept(other, maps, path)
    assert studies.settings(small, none) == studies.settings(other, none)


def test_an_arm_may_train_each_modality_apart_or_all_together(tmp_path, in_this_process):
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
    assert work_off(study, data, tmp_path / "work", ["devices=1"], 99, tmp_path)
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


def test_a_command_that_fails_ends_a_study_with_a_sentence(tmp_path, monkeypatch, capfd):
    """The real command, of a folder that is no data set."""
    (tmp_path / "nothing").mkdir()
    words = ["study.py", "tiny-long", "--data", str(tmp_path / "nothing")]
    monkeypatch.setattr("sys.argv", [*words, "--work", str(tmp_path)])
    monkeypatch.setattr("study.result_of", lambda study, run, results: tmp_path / "no.json")
    with pytest.raises(SystemExit, match=r"A command failed, for the reason above: .* it goes on"):
        main()
    assert "dataset.json" in "".join(capfd.readouterr())


def test_a_table_of_a_stale_run_is_refused_in_a_sentence(tmp_path, monkeypatch):
    stale = tmp_path / "run.json"
    stale.write_text("{}")
    monkeypatch.setattr("sys.argv", ["study.py", "tiny-long", "--table"])
    monkeypatch.setattr("study_table.result_of", lambda study, run, results: stale)
    with pytest.raises(SystemExit, match="was made with other settings"):
        main()
