"""Studies: what runs, what is kept, and that the tables say what the results hold."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import examine
import numpy as np
import plots
import pytest
import SimpleITK as sitk
import study as studies
import study_peers
import study_table
import torch
import train_nnunet
from scipy.stats import wilcoxon

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.records import from_dict
from DistillSegLib.training.recipe import load_recipe
from Testing.datasets import write_decathlon

FOLDER = Path(__file__).resolve().parents[1] / "studies"

NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))
SMALL = """
name = "small"
precision = "32-true"
accelerator = "cpu"
workers = 0
plan.window = [8, 8, 8]
plan.batch = 2
split.folds = 4
[[stages]]
name = "student"
epochs = 1
trained.student = { network = "unet", settings = { width = [4, 8] } }
links.label = { term = "label" }
"""
ARMS = [
    {"name": "none", "title": "alone", "set": ["split.labelled=0.5"]},
    {
        "name": "maps",
        "title": "with a teacher",
        "set": [
            "stages.student.frozen.teacher={teacher}",
            "stages.student.links.maps={term='prediction_maps'}",
        ],
    },
]


@pytest.fixture
def small(tmp_path) -> studies.Study:
    """Two arms, one fold, two seeds; the teacher is a network like the student."""
    (tmp_path / "small.toml").write_text(SMALL)
    recipe = str(tmp_path / "small.toml")
    guide = {"recipe": recipe, "stage": "student", "role": "student", "set": ["seed=9"]}
    form = {"title": "A small study", "recipe": recipe, "stage": "student", "baseline": "none"}
    form |= {"name": "small", "arms": ARMS, "seeds": [0, 1], "guides": {"teacher": guide}}
    return from_dict(studies.Study, form | {"size": "Far too small."})


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
        recipe = load_recipe(studies.recipe_path(guide.recipe), guide.set)
        (stage,) = (stage for stage in recipe.stages if stage.name == guide.stage)
        assert guide.role in stage.trained
        structures.add(tuple(label.name for label in recipe.labels))
    assert len(structures) <= 1, "a student takes no lesson from a guide that names others"


@pytest.mark.parametrize("name", [n for n in NAMES if (studies.RESULTS / n).is_dir()])
def test_published_tables_are_those_of_the_kept_results(name):
    study = studies.load_study(name)
    text = (study_table.OUT / f"{name}.md").read_text(encoding="utf-8")
    assert text.endswith(study_table.table(study, study_table.read(study)))


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
    study = from_dict(studies.Study, _plain(small) | {"guides": guides})
    folders = [studies.folder_of(study, name, 1, tmp_path).name for name in guides]
    assert folders == ["teacher-f1", "teacher-f1", "wide-f1"]


def test_a_guide_does_not_teach_data_sets_apart(small):
    arms = [ARMS[0] | {"apart": True}, ARMS[1]]
    with pytest.raises(RecipeError, match="a guide knows one only"):
        from_dict(studies.Study, _plain(small) | {"arms": arms})


def test_a_study_runs_stops_and_goes_on(small, tmp_path):
    """Real training and evaluation, in processes of their own."""
    results = tmp_path / "results"
    data = write_decathlon(tmp_path / "data", cases=8)
    work = tmp_path / "work"
    assert not studies.work_off(small, {"": data}, work, ["devices=1"], 0, results)
    first = small.seeds[:1]
    one = from_dict(studies.Study, json.loads(json.dumps(_plain(small))) | {"seeds": first})
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
    form = _plain(small) | {"arms": ARMS[1:], "baseline": "maps", "seeds": [0]}
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
    form = _plain(small) | {"arms": arms, "guides": {}, "seeds": [0]}
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


def test_a_package_is_not_scored_on_cases_that_it_knows(small, tmp_path):
    arm = studies.Arm("reference", "as bundled", package="hippocampus-reference")
    words = "trained on fold 0 of 5 .*, the run 'reference-f1-s0' is of fold 1 of 5"
    with pytest.raises(DatasetError, match=words):
        studies.do(_study(small, arm), studies.Run(arm, 1, 0), {"": tmp_path}, tmp_path, [])


def test_predictions_made_elsewhere_are_scored_as_ours_are(small, tmp_path):
    """The references themselves, but for one case of which a structure is left out."""
    data = write_decathlon(tmp_path / "data", cases=10)
    dataset = read_dataset(data)
    _, held_out = dataset.split(5, 0, seed=0)
    ball = next(iter(dataset.labels)).value
    for number, case in enumerate(held_out):
        made = sitk.ReadImage(str(case.label))
        if number == 0:
            made *= sitk.Cast(made != ball, made.GetPixelID())
        sitk.WriteImage(made, str(tmp_path / f"{case.id}.nii.gz"))
    arm = studies.Arm("nnunet", "nnU-Net", nnunet=("--features=8",))
    run, scores = studies.Run(arm, 0, 0), tmp_path / "scores.json"
    (tmp_path / "named.toml").write_text(
        SMALL.replace(
            "[[stages]]",
            f'[[labels]]\nvalue = {ball}\nname = "Sphere"\ncolor = [1, 2, 3]\n[[stages]]',
            1,
        )
    )
    study = from_dict(studies.Study, _plain(small) | {"recipe": str(tmp_path / "named.toml")})
    found = study_peers.predicted(study, run, data, tmp_path, scores)
    assert found["labelled_cases"] == 8 and len(found["cases"]) == 2
    first, second = found["cases"].values()
    assert first["Sphere"] == [0, None, 0] and second["Sphere"] == [1, 0, 1]
    (tmp_path / f"{held_out[1].id}.nii.gz").unlink()
    with pytest.raises(DatasetError, match=f"nnU-Net's '{held_out[1].id}' has no scores"):
        study_peers.predicted(study, run, data, tmp_path, scores)


def test_an_nnunet_is_not_continued_with_other_settings(tmp_path):
    asked = {"features": 8, "batch": 2, "epochs": 40}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    train_nnunet.check_asked(tmp_path / "asked.json", asked)
    words = "begun with features 8, now 16; epochs 40, now 20; give the same, or another --out"
    with pytest.raises(SystemExit, match=words):
        train_nnunet.check_asked(tmp_path / "asked.json", asked | {"features": 16, "epochs": 20})
    with pytest.raises(SystemExit, match="whose settings are not known; give another --out"):
        train_nnunet.check_asked(tmp_path / "older" / "asked.json", asked)


@pytest.mark.parametrize("heads", [1, 2])
def test_an_nnunet_in_sixteen_bits_has_logits_and_gradients_of_32(heads):
    """And is itself again after it: predictions are made in 32 bits."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv3d(1, 2, 3)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = convolution

        def forward(self, images):
            self.seen = self.convolution(images)
            return self.seen if heads == 1 else [self.seen] * heads

    network, images = Network(), torch.randn(2, 1, 6, 6, 6)
    exact = convolution(images)
    with train_nnunet.sixteen_bits(network):
        found = network(images)
        assert network.seen.dtype == torch.bfloat16
    for logits in [found] if heads == 1 else found:
        assert logits.dtype == torch.float32
        assert 0 < (logits - exact).abs().max() < 0.02
    (found if heads == 1 else found[-1]).sum().backward()
    assert convolution.weight.grad.dtype == torch.float32
    network(images)
    assert torch.equal(network.seen, exact)


def test_what_an_nnunet_costs_counts_all_its_pieces(tmp_path):
    """A trainer that is stopped after two epochs and goes on for one."""

    class Trainer:
        def on_epoch_end(self):
            time.sleep(0.01)

    path = tmp_path / "spent-f0.json"
    first, second = Trainer(), Trainer()
    train_nnunet.counted(first, path, resume=True)
    first.on_epoch_end()
    first.on_epoch_end()
    before = json.loads(path.read_text())["seconds"]
    assert before >= 0.02
    cost = train_nnunet.counted(second, path, resume=True)
    assert cost["seconds"] == before
    second.on_epoch_end()
    assert cost["seconds"] >= before + 0.01
    assert train_nnunet.counted(Trainer(), path, resume=False)["seconds"] == 0


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


@pytest.mark.parametrize("name", [n for n in NAMES if (studies.RESULTS / n).is_dir()])
def test_what_is_kept_belongs_to_the_study_as_it_is(name):
    study = studies.load_study(name)
    for run in studies.queue(study):
        path = studies.result_of(study, run)
        if path.is_file():
            studies.check_kept(study, run, path)


def _study(small, *arms) -> studies.Study:
    form = {"arms": [vars(arm) for arm in arms], "baseline": arms[0].name, "guides": {}}
    return from_dict(studies.Study, _plain(small) | form)


def _plain(study) -> dict:
    form = dict(vars(study))
    form["arms"] = [vars(arm) for arm in study.arms]
    form["guides"] = {name: vars(guide) for name, guide in study.guides.items()}
    return form


def result(arm: str, seed: int, *dice: float) -> dict:
    """A run that scored cases a, b, … so on one structure; a Dice of zero has no distance."""
    cases = {
        chr(97 + n): {"Ball": [value, None if value == 0 else 2.0, value]}
        for n, value in enumerate(dice)
    }
    form = {"arm": arm, "fold": 0, "seed": seed, "parameters": 1234, "labelled_cases": 6}
    return form | {
        "cpu_minutes": 1.5,
        "machine": "a laptop",
        "metrics": ["dice", "hd95_mm", "nsd"],
        "cases": cases,
    }


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


def test_the_table_says_what_the_results_hold(small):
    found = {
        "none": [result("none", 0, 0.5, 0.6, 0.7, 0.8), result("none", 1, 0.7, 0.8, 0.9, 0.4)],
        "maps": [result("maps", 0, 0.6, 0.8, 0.9, 0.3)],
    }
    base, maps = (study_table.row_of("x", found[name]) for name in ("none", "maps"))
    mean, sd = base.dice["Ball"]
    assert (mean, sd) == (pytest.approx(0.675), pytest.approx(0.05 / math.sqrt(2)))
    assert base.by_patient == pytest.approx({"a": 0.6, "b": 0.7, "c": 0.8, "d": 0.6})
    assert (maps.missed, maps.hd95_mm) == (0, {"Ball": 2.0, "": 2.0})
    found_gap = study_table.against(maps, base)
    # of the baseline's two runs the one of the same seed: .1, .2, .2, -.5
    assert (found_gap.mean, found_gap.better, found_gap.patients) == (pytest.approx(0), 3, 4)
    assert found_gap.p == wilcoxon([0.1, 0.2, 0.2, -0.5]).pvalue
    low, high = found_gap.interval
    assert low == pytest.approx(-0.325, abs=0.03) and high == pytest.approx(0.2, abs=0.03)
    lost = [result("maps", 0, 0.6, 0.8, 0.9, 0.0)]
    assert study_table.row_of("x", lost).missed == 1
    assert "| 2.00 (1 missed) |" in study_table.table(small, found | {"maps": lost})
    other = study_table.row_of("x", [result("maps", 7, 0.7, 0.9)])
    assert study_table.against(other, base) is None
    text = study_table.table(small, found)
    assert "| with a teacher | 1 | 0.6500 | 2.00 | +0.00 | -" in text
    assert "| alone | 2 | 0.6750 ± 0.0354 | 2.00 |  |  |  |  | 1,234 | 6 | 1.5 |" in text
    assert "1 of 4 runs are still to be done." in text and "Far too small." in text


def test_an_arm_may_be_tested_against_another_than_the_baseline(small):
    arms = [*ARMS, ARMS[1] | {"name": "more", "title": "longer", "against": "maps"}]
    study = from_dict(studies.Study, _plain(small) | {"arms": arms})
    found = {arm["name"]: [result(arm["name"], 0, n / 10)] for n, arm in enumerate(arms, 6)}
    text = study_table.table(study, found)
    assert (
        "| longer | 1 | 0.8000 | 2.00 | +10.00 to *with a teacher* | +10.00 to +10.00 | 1 of"
        in text
    )
    assert "| with a teacher | 1 | 0.7000 | 2.00 | +10.00 | +10.00 to +10.00 | 1 of 1 |" in text
    words = "arm 'more' is tested against 'less'; the arms are none, maps, more"
    with pytest.raises(RecipeError, match=words):
        from_dict(studies.Study, _plain(small) | {"arms": [*ARMS, arms[2] | {"against": "less"}]})


def test_two_time_points_are_one_patient():
    """Two patients at end diastole and end systole: two values, not four."""
    runs = [result("none", 0, 0.5, 0.7, 0.8, 0.9)]
    names = ("p1_ED", "p1_ES", "p2_ED", "p2_ES")
    runs[0]["cases"] = dict(zip(names, runs[0]["cases"].values(), strict=True))
    row = study_table.row_of("x", runs)
    assert row.by_patient == pytest.approx({"p1": 0.6, "p2": 0.85})
    assert row.dice["Ball"][0] == pytest.approx(0.725)


def test_a_structure_that_is_in_neither_mask_counts_nowhere(small):
    """Tail is in case b of the second run only; case a holds nothing at all in the first."""
    runs = [result("none", seed, 0.5, 0.6) for seed in (0, 1)]
    runs[0]["cases"]["a"]["Ball"] = [None, None, None]
    for run in runs:
        run["cases"]["b"]["Tail"] = [None, None, None]
    runs[1]["cases"]["b"]["Tail"] = [0.8, 3.0, 0.9]
    row = study_table.row_of("x", runs)
    assert row.dice["Ball"][0] == pytest.approx((0.6 + 0.55) / 2)
    assert row.dice["Tail"][0] == 0.8 and math.isnan(row.dice["Tail"][1])
    assert row.by_patient == pytest.approx({"a": 0.5, "b": (0.6 + 0.7) / 2})
    assert row.by_run == pytest.approx({(0, 0): 0.6, (0, 1): (0.55 + 0.8) / 2})
    assert row.missed == 0
    text = study_table.table(small, {"none": runs[:1], "maps": [result("maps", 0, 0.5, 0.6)]})
    assert "| alone | 1 | 0.6000 | – |" in text and "| with a teacher | 1 | 0.5500 | – |" in text
    study_table.picture(small, {"none": runs, "maps": []})


def test_runs_alike_have_no_difference_to_test(small):
    row = study_table.row_of("x", [result("none", 0, 0.5, 0.6)])
    assert study_table.against(row, row) == study_table.Difference(0.0, (0.0, 0.0), 0, 2, 1.0)


def test_confidence_is_held_against_what_is_right():
    """Four voxels of 0.55 of which one is right, one of 0.97 that is."""
    bins = examine.binned(np.array([0.55] * 4 + [0.97]), np.array([1, 0, 0, 0, 1], bool))
    assert bins[0] == pytest.approx([4, 2.2, 1]) and bins[5] == pytest.approx([1, 0.97, 1])
    assert bins.sum() == pytest.approx(5 + 3.17 + 2)
    assert examine.expected_error(bins) == pytest.approx((4 * 0.3 + 0.03) / 5)
    assert examine.binned(np.array([1.0]), np.array([True]))[-1].tolist() == [1, 1, 1]


def test_an_examination_names_the_worst_and_tells_the_groups_apart():
    findings = [
        examine.Finding(f"p{n}_{'ED' if n % 2 else 'ES'}", "Ball", n / 10, 5.0, 10.0 - n, e, n / 10)
        for n, e in enumerate((0.5, -0.1, 0.1, -0.1, 0.1, -0.5), start=4)
    ]
    bins = examine.binned(np.array([0.9, 0.9]), np.array([True, False]))
    near = examine.binned(np.array([0.7]), np.array([True]))
    text = examine.report(findings, bins, near, {"diastole": "_ED$", "systole": "_ES$"})
    assert "**Ball**: Dice median 0.650" in text
    assert (
        "Volume +0.0 % on average (-50 % to +50 % in single cases; mean absolute error 23.3 %)"
        in text
    )
    assert text.index("| p4_ES | 0.400 | 5.0 | 6.00 | +50 % |") < text.index("| p5_ED | 0.500")
    assert "p7" not in text
    assert "| diastole | 0.700 ± 0.200 (n = 3) |" in text
    assert "| small third by volume | 0.850 ± 0.071 (n = 2) |" in text
    assert "over the cases: 1.00." in text
    assert "Expected calibration error 40.0 %; over all voxels within 2 of a structure" in text
    assert "of model or reference 30.0 %" in text
    assert "misses its Dice by 0.000 (bias +0.000)" in text


def test_a_structure_that_was_missed_has_no_distance():
    """Its confidence is not known either."""
    found = [
        examine.Finding("p1", "Tumour", 0.0, math.inf, 9.0, -1.0, None),
        examine.Finding("p2", "Tumour", 0.7, 8.0, 9.0, 0.1, 0.8),
        examine.Finding("p3", "Tumour", 0.8, 5.0, 9.0, 0.0, 0.9),
        examine.Finding("p4", "Tumour", 0.9, 5.0, 9.0, 0.0, 1.0),
    ]
    bins = examine.binned(np.array([0.9, 0.9]), np.array([True, False]))
    text = examine.report(found, bins, bins, {})
    assert "| p1 | 0.000 | missed | 9.00 | -100 % |" in text
    assert "misses its Dice by 0.100 (bias +0.100). Rank correlation over the cases: 1.00." in text
    text = examine.report(found[:3], bins, bins, {})
    assert text.endswith("(bias +0.100).\n")  # two cases have no rank to speak of


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.81, 0.89, [0.82, 0.84, 0.86, 0.88]), (0, 5, [0, 1, 2, 3, 4, 5]), (1, 1.05, None)],
)
def test_ticks_are_round_and_few(low, high, expected):
    found = plots.ticks(low, high)
    assert expected is None or found == expected
    assert 3 <= len(found) <= 6 and low <= found[0] and found[-1] <= high + 1e-9


def test_a_row_of_dots_has_one_for_each_run():
    page = ElementTree.fromstring(
        plots.dots([plots.Series("a", [0.8, 0.9]), plots.Series("b", [1])], "x")
    )
    assert len([e for e in page if e.tag.endswith("circle")]) == 3
