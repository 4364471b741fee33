"""Training from end to end, on phantoms: what is learnt, kept, resumed, refused and written."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.images import read_image
from DistillSegLib.metrics import dice
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.segmentations import read_segmentation
from DistillSegLib.training import checkpoints, stages
from DistillSegLib.training.assembly import rehearse
from DistillSegLib.training.augment import Augmentation
from DistillSegLib.training.cache import open_cache, prepare
from DistillSegLib.training.checkpoints import load_network
from DistillSegLib.training.fit import make_optimizer, set_learning_rate
from DistillSegLib.training.folder import check_recipe
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.preparation import open_or_prepare
from DistillSegLib.training.recipe import AugmentationConfig, OptimConfig, Recipe, load_recipe
from DistillSegLib.training.stages import PLAIN, Event, run
from DistillSegLib.training.validation import (
    single_pass,
    torch_predictor,
    validate,
    volume_logits,
)
from Testing.datasets import write_decathlon, write_image

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
name = "tiny"
precision = "32-true"
accelerator = "cpu"
workers = 0
split = { folds = 4 }
plan = { batch = 3 }
optim = { learning_rate = 1e-2 }

[[stages]]
name = "teacher"
epochs = 3
[stages.trained.teacher]
network = "unet"
settings = { width = [4, 8], dropout = 0.2 }
[stages.links.label]
term = "label"
student = "teacher"

[[stages]]
name = "student"
epochs = 3
[stages.trained.student]
network = "fast_unet"
settings = { width = [4, 4] }
[stages.frozen]
teacher = "teacher/teacher"
[stages.links.label]
term = "label"
[stages.links.maps]
term = "prediction_maps"
"""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums in one order, so that results can be compared to the bit across processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def tiny(recipe_file):
    """Makes the recipe, with overrides."""
    return lambda *overrides: load_recipe(recipe_file, overrides)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_decathlon(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tiny, data, tmp_path_factory) -> tuple[Path, list[Event]]:
    """The folder and the events of one run that nothing interrupted."""
    out, events = tmp_path_factory.mktemp("runs") / "whole", []
    run(tiny(), {"": data}, out, on_event=events.append, command="distillseg train tiny")
    return out, events


@pytest.fixture
def cache(finished):
    return open_cache(finished[0] / "cache")


class Killed(Exception):
    pass


def killed_after(stage: str, number: int):
    """A watcher that ends the run when that epoch is over."""

    def watch(event: Event) -> None:
        if event.kind == "epoch" and (event.stage, event.epoch.number) == (stage, number):
            raise Killed

    return watch


def weights(run_folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_network(run_folder / f"{name}.pt")[0].state_dict()


def assert_same_weights(a: Path, b: Path) -> None:
    for name in ("teacher/teacher", "student/student"):
        ours, theirs = weights(a, name), weights(b, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def rows(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# A whole run


def test_two_stages_leave_networks_that_rebuild_themselves(finished):
    out, _ = finished
    for name, network in (("teacher/teacher", "UNet"), ("student/student", "FastUNet")):
        net, checkpoint = load_network(out / f"{name}.pt")
        assert type(net).__name__ == network
        assert not net.training
        assert [label["value"] for label in checkpoint["labels"]["labels"]] == [3, 7]
        assert checkpoint["plan"]["window"] == [16, 20, 16]
        assert checkpoint["provenance"]["command"] == "distillseg train tiny"
        assert len(checkpoint["provenance"]["held_out_cases"]) == 2
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["stages"]) == ["teacher", "student"]
    assert set(summary["stages"]["student"]["held_out_dice"]["student"]) == {"Ball", "Tail"}


def test_the_teacher_learns(finished):
    events = [event for event in finished[1] if event.kind == "epoch" and event.stage == "teacher"]
    losses = [event.epoch.losses["total"] for event in events]
    assert losses[-1] < losses[0]


def test_a_run_tells_what_it_does_in_order(finished):
    kinds = list(dict.fromkeys((event.kind, event.stage) for event in finished[1]))
    each = ("rehearsal", "epoch", "trained")
    assert kinds == [
        *((kind, "") for kind in ("checking", "measuring", "preparing", "plan")),
        *((kind, "teacher") for kind in each),
        *((kind, "student") for kind in each),
    ]


def test_losses_and_dice_are_written_as_a_table_and_for_tensorboard(finished):
    out, events = finished
    for stage in ("teacher", "student"):
        told = [event.epoch for event in events if event.kind == "epoch" and event.stage == stage]
        table = rows(out / stage / "metrics.csv")
        assert [int(row["epoch"]) for row in table] == [1, 2, 3]
        assert [float(row["loss/total"]) for row in table] == [e.losses["total"] for e in told]
        assert float(table[-1][f"dice/{stage}/Ball"]) == told[-1].scores[stage]["Ball"]
        assert list((out / stage).glob("events.out.tfevents.*"))


# Resuming


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_run_that_is_killed_goes_on_to_the_same_weights(tiny, data, finished, tmp_path, stage):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(tiny(), {"": data}, out, on_event=killed_after(stage, 2))
    assert (out / stage / "state.pt").is_file()
    events = []
    run(tiny(), {"": data}, out, resume=True, on_event=events.append)
    again = [
        event.epoch.number for event in events if (event.kind, event.stage) == ("epoch", stage)
    ]
    assert again == [3]
    assert not {"checking", "preparing"} & {event.kind for event in events}  # the cache is there
    assert_same_weights(out, finished[0])
    assert not list(out.rglob("state.pt"))
    table = rows(out / stage / "metrics.csv")
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    summary = json.loads((out / stage / "summary.json").read_text())
    seconds = sum(float(row["seconds"]) for row in table)  # before and after the kill
    assert summary["seconds"] == pytest.approx(seconds, abs=0.06)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of Unix")
def test_a_cache_suffices_without_simpleitk_and_a_real_kill_does_no_harm(
    recipe_file, tiny, finished, tmp_path
):
    cache = finished[0] / "cache"
    program = f"""
import os, signal, sys
sys.modules["SimpleITK"] = None  # importing it raises ImportError
import torch
torch.set_num_threads(1)
from pathlib import Path
from DistillSegLib.training.recipe import load_recipe
from DistillSegLib.training.stages import run

def watch(event):
    if event.kind == "epoch" and event.stage == "student":
        os.kill(os.getpid(), signal.SIGKILL)

run(load_recipe({str(recipe_file)!r}), {{"": Path({str(cache)!r})}}, Path("run"), on_event=watch)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "run" / "cache").exists()
    run(tiny(), {"": cache}, tmp_path / "run", resume=True)
    assert_same_weights(tmp_path / "run", finished[0])


def test_a_finished_stage_is_skipped(tiny, data, finished):
    out, events = finished[0], []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}
    networks = run(tiny(), {"": data}, out, resume=True, on_event=events.append)
    assert [(event.kind, event.stage) for event in events] == [
        ("plan", ""),
        ("skipped", "teacher"),
        ("skipped", "student"),
    ]
    assert set(networks.values()) == set(before)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}


def test_a_folder_that_holds_a_run_is_not_touched_without_resume(tiny, data, finished):
    with pytest.raises(RecipeError, match="holds a run already; give --resume"):
        run(tiny(), {"": data}, finished[0])


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("seed=1", "seed"),
        ("stages.student.epochs=9", "stages.student.epochs"),
        (
            "stages.student.links.maps.settings.temperature=1.0",
            "stages.student.links.maps.settings",
        ),
        ("plan.window=[16, 16, 16]", "plan.window"),
        ("validate_every=2", "validate_every"),
    ],
)
def test_resuming_with_another_recipe_names_what_differs(tiny, data, finished, override, place):
    with pytest.raises(RecipeError, match=f"another recipe: '{place}' differs"):
        run(tiny(override), {"": data}, finished[0], resume=True)


def test_resuming_on_another_machine_may_use_what_it_has(tiny, finished):
    machine = ("workers=4", "accelerator=auto", "devices=2", "nodes=3", "strategy=ddp")
    assert check_recipe(tiny(*machine), finished[0], True)


def test_resuming_with_other_data_is_refused(tiny, finished, tmp_path):
    write_decathlon(tmp_path / "other", size=(24, 24, 24))
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(Killed):
        run(tiny(), {"": tmp_path / "other"}, elsewhere, on_event=killed_after("teacher", 1))
    with pytest.raises(RecipeError, match="another plan: 'window' differs"):
        run(tiny(), {"": elsewhere / "cache"}, finished[0], resume=True)


# What is kept


def test_keep_best_returns_the_weights_of_the_best_epoch(tiny, finished, tmp_path, monkeypatch):
    seen, scores = [], iter([0.1, 0.9, 0.3])

    def scripted(net, _cache, _forward):
        seen.append({name: weight.clone() for name, weight in net.state_dict().items()})
        return {"Ball": next(scores), "Tail": 0.0}

    monkeypatch.setattr(stages, "validate", scripted)
    recipe = tiny("keep=best")
    recipe = replace(recipe, stages=recipe.stages[:1])
    cache = {"": finished[0] / "cache"}
    with pytest.raises(Killed):
        run(recipe, cache, tmp_path / "run", on_event=killed_after("teacher", 2))
    run(recipe, cache, tmp_path / "run", resume=True)
    kept = weights(tmp_path / "run", "teacher/teacher")
    assert len(seen) == 3
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
    summary = json.loads((tmp_path / "run/teacher/summary.json").read_text())
    assert summary["kept_epoch"] == 2
    assert summary["held_out_dice"] == {"teacher": {"Ball": 0.9, "Tail": 0.0}}


def test_16_bits_on_the_processor_train_without_a_word(tiny, finished, tmp_path, capfd, caplog):
    recipe = tiny("precision=bf16-mixed", "stages.teacher.epochs=1")
    recipe = replace(recipe, stages=recipe.stages[:1])
    with caplog.at_level(logging.INFO):
        run(recipe, {"": finished[0] / "cache"}, tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("lightning")]
    dtypes = {weight.dtype for weight in weights(tmp_path / "run", "teacher/teacher").values()}
    assert dtypes == {torch.float32, torch.int64}  # int64: BatchNorm's counters


def test_16_bits_are_refused_where_the_processor_gets_gradients_wrong(tiny, finished, tmp_path):
    """Two slices at the deepest level, a kernel of three: see `gradients_checked`."""
    deep = ["stages.teacher.epochs=1", "stages.teacher.trained.teacher.settings.width=[4, 4, 4, 4]"]
    cache = {"": finished[0] / "cache"}
    for precision, refused in (("bf16-mixed", True), ("32-true", False)):
        recipe = tiny(f"precision={precision}", "plan.window=[16, 16, 16]", *deep)
        recipe = replace(recipe, stages=recipe.stages[:1])
        if refused:
            with pytest.raises(RecipeError, match=r"kernel of 3 slices and sees 2\); set"):
                run(recipe, cache, tmp_path / precision)
        else:
            run(recipe, cache, tmp_path / precision)


def test_a_batch_of_one_that_norms_cannot_take_is_refused(tiny, finished, tmp_path):
    """One sample, one voxel at the deepest level: no deviation to normalise by."""
    deep = "stages.teacher.trained.teacher.settings.width=[4, 4, 4, 4, 4]"
    recipe = tiny("plan.batch=1", "plan.window=[16, 16, 16]", deep)
    recipe = replace(recipe, stages=recipe.stages[:1])
    with pytest.raises(RecipeError, match="give a larger plan"):
        run(recipe, {"": finished[0] / "cache"}, tmp_path / "run")


def test_a_slice_wise_student_learns_from_a_volumetric_teacher(tiny, finished, tmp_path):
    recipe = tiny(
        "stages.student.trained.student.network=unet",
        "stages.student.trained.student.settings={width=[4, 8], dims=2}",
        "stages.student.epochs=1",
        f"stages.student.frozen.teacher='{finished[0] / 'teacher/teacher.pt'}'",
    )
    recipe = replace(recipe, stages=recipe.stages[1:])
    run(recipe, {"": finished[0] / "cache"}, tmp_path / "run")
    assert load_network(tmp_path / "run/student/student.pt")[0].dims == 2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("distil", {"teacher": "{width=[4, 8, 8]}", "student": "{width=[4, 4, 8]}"}),
    ],
)
def test_the_bundled_recipes_train_on_data_they_do_not_know(data, tmp_path, name, settings):
    small = [f"stages.{role}.epochs=1" for role in settings]
    small += [f"stages.{role}.trained.{role}.settings={s}" for role, s in settings.items()]
    run(load_recipe(name, [*small, "workers=0", "split.folds=4"]), {"": data}, tmp_path / "run")
    dice = json.loads((tmp_path / "run/summary.json").read_text())["stages"]["student"]
    assert set(dice["held_out_dice"]["student"]) == {"Ball", "Tail"}


def test_a_stage_can_start_from_the_weights_of_another(tiny, finished, tmp_path):
    teacher = finished[0] / "teacher/teacher.pt"
    recipe = tiny(f"stages.teacher.start.teacher='{teacher}'", "optim.learning_rate=1e-30")
    recipe = replace(recipe, stages=recipe.stages[:1])
    run(recipe, {"": finished[0] / "cache"}, tmp_path / "run")
    ours, theirs = (weights(out, "teacher/teacher") for out in (tmp_path / "run", finished[0]))
    learnt = [name for name in ours if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in learnt)


# What is refused, in one sentence and before the work


@pytest.mark.parametrize(
    ("links", "sentence"),
    [
        ('{a = {term = "domain_agreement"}}', "Link 'a': the agreement between modalities needs"),
        (
            '{a = {term = "channel_wise", settings = {taps = ["encoder/1"]}}}',
            r"Link 'a': 'encoder/1' is .* \(2, 4, .* of the student and \(2, 8, .* of the teach",
        ),
        ('{a = {term = "region_dice", student = "student"}}', "has no tap 'regions/0'"),
    ],
)
def test_what_a_later_stage_s_terms_refuse_is_said_before_the_first_is_trained(
    tiny, data, tmp_path, links, sentence
):
    events = []
    recipe = tiny(f"stages.student.links={links}")
    with pytest.raises(RecipeError, match=f"^Stage 'student': .*{sentence}") as problem:
        run(recipe, {"": data}, tmp_path / "run", on_event=lambda event: events.append(event.kind))
    assert "epoch" not in events
    assert "student" in problem.value.__notes__[0] and "frozen" in problem.value.__notes__[0]


def test_a_label_map_of_another_patient_is_refused_before_anything_is_computed(tiny, tmp_path):
    data = write_decathlon(tmp_path / "data")
    write_image(data / "labelsTr/case_05.nii.gz", np.zeros((5, 6, 7), np.uint8), (1.0, 1.0, 1.0))
    events = []
    with pytest.raises(DatasetError, match=r"^1 case\(s\) cannot be trained on. Case 'case_05': "):
        run(tiny(), {"": data}, tmp_path / "run", on_event=events.append)
    assert {event.kind for event in events} == {"checking"}
    assert not (tmp_path / "run").exists()


def test_a_case_without_a_label_map_is_refused_before_anything_is_computed(tiny, tmp_path):
    data = write_decathlon(tmp_path / "data")
    (data / "labelsTr/case_03.nii.gz").unlink()
    with pytest.raises(DatasetError, match="1 of 8 label maps are missing"):
        run(tiny(), {"": data}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_mistake_in_the_recipe_is_found_before_the_data_are_read(tiny, data, tmp_path):
    events = []
    with pytest.raises(RecipeError, match="did you mean 'prediction_maps'"):
        recipe = tiny("stages.student.links.maps.term=prediction")
        run(recipe, {"": data}, tmp_path / "run", on_event=events.append)
    assert not events
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_refused(tiny, data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RecipeError, match="cannot train with accelerator 'gpu'"):
        run(tiny("accelerator=gpu"), {"": data}, tmp_path / "run")


def test_a_loss_that_explodes_is_said_in_a_sentence(tiny, finished, tmp_path):
    recipe = tiny("optim.learning_rate=1e30", "optim.max_norm=1e30", "optim.optimizer=sgd")
    with pytest.raises(RecipeError, match=r"^Stage 'teacher': the loss is nan in epoch"):
        run(recipe, {"": finished[0] / "cache"}, tmp_path / "run")


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
    ],
)
def test_a_want_of_memory_is_said_in_a_sentence(tiny, finished, tmp_path, monkeypatch, problem):
    def starved(*_arguments, **_settings):
        raise problem

    monkeypatch.setattr(stages, "fit", starved)
    with pytest.raises(RecipeError, match=r"does not fit into memory .*plan\.batch \(now 3\)"):
        run(tiny(), {"": finished[0] / "cache"}, tmp_path / "run")
    problem = RuntimeError("another")
    with pytest.raises(RuntimeError, match="another"):
        run(tiny(), {"": finished[0] / "cache"}, tmp_path / "run", resume=True)


def test_a_file_is_no_folder_for_a_run(tiny, data, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RecipeError, match="is a file; give a folder"):
        run(tiny(), {"": data}, tmp_path / "run")


@pytest.mark.parametrize("damage", ["half", "empty", "text", "other"])
def test_a_damaged_checkpoint_is_said_in_a_sentence(finished, tmp_path, damage):
    path, whole = tmp_path / "net.pt", (finished[0] / "teacher/teacher.pt").read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2], "text": b"weights"}.get(damage, b""))
    if damage == "other":
        torch.save([1, 2], path)
    with pytest.raises(RecipeError, match=r"net\.pt' cannot be read"):
        load_network(path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="is no network checkpoint"):
        load_network(checkpoints.save(tmp_path / "state.pt", {"epoch": 3}))
    with pytest.raises(RecipeError, match="There is no checkpoint"):
        load_network(tmp_path / "absent.pt")


def test_a_damaged_state_is_not_resumed_from(tiny, finished, tmp_path):
    cache, out = {"": finished[0] / "cache"}, tmp_path / "run"
    with pytest.raises(Killed):
        run(tiny(), cache, out, on_event=killed_after("teacher", 1))
    state = out / "teacher/state.pt"
    checkpoints.save(state, {"trained": {}})
    with pytest.raises(RecipeError, match="not of this stage or of another version"):
        run(tiny(), cache, out, resume=True)
    state.write_bytes(b"")
    with pytest.raises(RecipeError, match=r"state\.pt' cannot be read"):
        run(tiny(), cache, out, resume=True)


def test_a_guide_from_elsewhere_must_share_channels_labels_and_preprocessing(tiny, cache, finished):
    recipe = tiny(f"stages.student.frozen.teacher='{finished[0] / 'teacher/teacher.pt'}'")
    preprocessing = cache.plan.preprocessing
    rehearse(recipe, 1, cache.labels, preprocessing)
    renamed = replace(cache.labels, labels=cache.labels.labels[:1])
    with pytest.raises(RecipeError, match="must be trained on the same label table"):
        rehearse(recipe, 1, renamed, preprocessing)
    coarser = replace(preprocessing, spacing_mm=(2.0, 2.0, 2.0))
    with pytest.raises(RecipeError, match=r"give plan\.spacing_mm as it was there"):
        rehearse(recipe, 1, cache.labels, coarser)
    with pytest.raises(RecipeError, match=r"takes images of 1 channel\(s\), the data set has 2"):
        rehearse(recipe, 2, cache.labels)  # before the data are read


# The cache


def opened(recipe: Recipe, folder: Path):
    caches = open_or_prepare(
        recipe, {"": folder}, folder, begun=False, device=torch.device("cpu"), report=None
    )
    return caches[""]


def test_cached_cases_are_what_preprocessing_makes_of_the_files(cache, data):
    preprocessing = cache.plan.preprocessing
    originals = {case.id: case for case in read_dataset(data).cases}
    for case in cache.cases[:2]:
        original = originals[case.id]
        expected = preprocessing.apply([read_image(file) for file in original.images])
        assert np.array_equal(cache.image(case), expected.array)
        label = preprocessing.apply_label(read_segmentation(original.label).image)
        assert set(np.unique(label)) == {0, 3, 7}
        assert np.array_equal(cache.label(case), np.select([label == 3, label == 7], [1, 2], 0))


def test_what_is_cached_is_not_prepared_again(cache, data, tmp_path):
    dataset = read_dataset(data)
    _, held_out = dataset.split(4, 0, 0)
    folders = []
    for _ in range(2):
        made = prepare(dataset, cache.plan, held_out, cache.labels, tmp_path)
        folders.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")})
    assert folders[0] == folders[1]
    assert replace(made, root="") == replace(cache, root="")


def test_held_out_cases_are_never_trained_on(cache):
    training, held_out = ({c.id for c in cs} for cs in (cache.training_cases, cache.held_out_cases))
    assert (len(training), len(held_out)) == (6, 2)
    assert not training & held_out


def test_a_cache_that_lost_a_case_is_refused(cache, tmp_path):
    index = Path(cache.root) / "cache.json"
    (tmp_path / "cache.json").write_bytes(index.read_bytes())
    with pytest.raises(DatasetError, match="lacks case 'case_00'"):
        open_cache(tmp_path)
    (tmp_path / "cache.json").write_text("{")
    with pytest.raises(DatasetError, match=r"no readable cache\.json"):
        open_cache(tmp_path)


def test_a_given_cache_takes_window_batch_and_names_from_the_recipe(tiny, cache):
    label = "labels=[{value=3, name='Sphere', color=[1, 2, 3]}]"
    changed = opened(tiny("plan.window=[8, 8, 8]", "plan.batch=1", label), Path(cache.root))
    assert (changed.plan.window, changed.plan.batch) == ((8, 8, 8), 1)
    assert changed.plan.reasons["window"] == "given in the recipe"
    assert [label.name for label in changed.labels] == ["Sphere", "Tail"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("plan.spacing_mm=[2, 2, 2]", "was prepared with the spacing_mm"),
        ("split.fold=1", "holds out other cases than fold 1 of 4"),
        ("plan.window=[7, 8, 8]", "need multiples of 4"),
        ("labels=[{value=1, name='Sphere', color=[1, 2, 3]}]", "names label 1"),
    ],
)
def test_what_a_given_cache_cannot_be_is_refused(tiny, cache, override, sentence):
    with pytest.raises(RecipeError, match=sentence):
        opened(tiny(override), Path(cache.root))


# Patches


def loader(cache, config=AugmentationConfig(), window=(12, 12, 12), **settings) -> PatchLoader:  # noqa: B008
    return PatchLoader(cache, config, window=window, batch=2, seed=5, **{"workers": 0} | settings)


def same(a, b) -> bool:
    return all(
        torch.equal(x.image, y.image) and torch.equal(x.label, y.label) for x, y in zip(a, b)
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12, about workers
def test_epochs_that_follow_each_other_are_those_asked_for_alone(cache):
    """Workers are ahead of the epoch; one left in the middle, or asked for again, begins anew."""
    going, fresh = loader(cache, workers=1), loader(cache)
    next(going.epoch(4))
    for number in (1, 2, 3, 3, 7):
        there, here = list(going.epoch(number)), list(fresh.epoch(number))
        assert len(there) == len(here) == len(going) > 0
        for one, other in zip(there, here):
            assert torch.equal(one.image, other.image) and torch.equal(one.label, other.label)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12, about workers
def test_patches_depend_on_seed_epoch_and_position_alone(cache):
    here, worker, later = loader(cache), loader(cache, workers=1), loader(cache)
    epochs = [list(here.epoch(number)) for number in (0, 1)]
    assert [len(epoch) for epoch in epochs] == [3, 3]
    assert not same(*epochs)
    for number in (0, 1):
        assert same(epochs[number], list(worker.epoch(number)))
    assert same(epochs[1], list(later.epoch(1)))  # without the epoch before it


def test_several_processes_share_out_an_epoch(cache):
    whole = torch.cat([batch.image for batch in loader(cache).epoch(0)])
    halves = [loader(cache, rank=rank, ranks=2) for rank in (0, 1)]
    assert [len(half.order) for half in halves] == [3, 3]
    for rank, half in enumerate(halves):
        first = next(half.epoch(0)).image
        assert torch.equal(first, whole[[rank, rank + 2]])
    with pytest.raises(RecipeError, match="too few for 7 devices"):
        loader(cache, ranks=7)


def test_plain_patches_are_windows_of_the_image_padded_with_zeros(cache):
    window = (10, 24, 8)  # inside, beyond and inside the 18 x 20 x 16 voxels
    for batch in loader(cache, replace(PLAIN, foreground=0.0), window).epoch(0):
        for image, label in zip(batch.image.numpy(), batch.label.numpy()):
            assert (image[:, :, 20:] == 0).all()
            cases = cache.training_cases
            assert any(found_in(cache, case, image[0, :, :20], label[:, :20]) for case in cases)


def found_in(cache, case, image, label) -> bool:
    """Whether a case holds these voxels and, at the same place, these labels."""
    whole, classes = np.asarray(cache.image(case)[0]), np.asarray(cache.label(case))
    for place in np.argwhere(whole == image[0, 0, 0]):
        box = tuple(slice(start, start + n) for start, n in zip(place, image.shape, strict=True))
        if np.array_equal(whole[box], image) and np.array_equal(classes[box], label):
            return True
    return False


def test_foreground_patches_are_centred_on_a_labelled_voxel(cache):
    for batch in loader(cache, replace(PLAIN, foreground=1.0), (4, 4, 4)).epoch(0):
        assert (batch.label[:, 2, 2, 2] > 0).all()


@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_image_and_label_move_together(flips):
    label = np.zeros((20, 24, 28), np.uint8)
    label[4:11, 5:18, 3:9] = 1  # asymmetric along every axis
    config = replace(PLAIN, affine=1.0, rotation=(30.0, 30.0, 30.0), scale=0.2, flips=flips)
    vary = Augmentation(config, (16, 20, 24))
    for seed in range(5):
        image, moved, _ = vary(label[None].astype(np.float32), label, seed=seed)
        assert image.shape[1:] == moved.shape == (16, 20, 24)
        assert (moved[image[0] > 0.99] == 1).all()
        assert (moved[image[0] < 0.01] == 0).all()
        assert 0 < moved.sum() < moved.size


def test_a_flip_mirrors_the_axis_it_names():
    label = np.zeros((4, 6, 8), np.uint8)
    label[0, 1, 2] = 1
    _, moved, _ = Augmentation(replace(PLAIN, flips=(0.0, 0.0, 1.0)), (4, 6, 8))(
        label[None].astype(np.float32), label, seed=0
    )
    assert np.argwhere(moved).tolist() == [[0, 1, 5]]


# Validation


class Threshold(nn.Module):
    """Class 1 above 0, class 2 above 2; a weight, so that it has a device."""

    multiple = 4

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return torch.cat([0 * image, image * self.one, 2 * image - 2], dim=1)


def test_validation_scores_the_whole_volume_by_the_library_s_dice(cache):
    expected = {"Ball": [], "Tail": []}
    for case in cache.held_out_cases:
        image, label = cache.image(case)[0], cache.label(case)
        classes = np.select([image > 2, image > 0], [2, 1], 0)
        for index, name in enumerate(expected, start=1):
            expected[name].append(dice(classes == index, label == index))
    found = validate(Threshold(), cache)
    assert found == pytest.approx({name: np.mean(values) for name, values in expected.items()})
    assert 0 < found["Tail"] < 1


def test_networks_with_an_image_s_own_statistics_are_validated_in_windows(cache):
    assert single_pass(Threshold())
    net = nn.Sequential(nn.InstanceNorm3d(1), Threshold())
    assert not single_pass(net)
    seen = []
    validate(net, cache, lambda image: (seen.append(image.shape[2:]), net(image))[1])
    assert {tuple(shape) for shape in seen} == {cache.plan.window}


@pytest.mark.parametrize("depth", [16, 17, 40])
def test_volumes_below_a_network_s_smallest_size_are_padded_to_its_window(depth):
    net = build_network(NetworkConfig("lcovnet", {"width": [2, 2, 2, 2, 2]}), 1, 3).eval()
    seen = []

    def predict(windows):
        seen.append(windows.shape[2:])
        return torch_predictor(net)(windows)

    image = np.zeros((1, depth, 18, 33), np.float32)
    assert volume_logits(net, image, predict, (32, 32, 32)).shape == (3, depth, 18, 33)
    one_pass = (-(-depth // 16) * 16, 32, 48)
    assert set(seen) == ({one_pass} if depth > 16 else {(32, 32, 32)})


# The optimiser


@pytest.mark.parametrize(
    ("schedule", "done", "factor"),
    [
        ("cosine", 0.05, 0.5),  # half-way through the warm-up
        ("cosine", 0.1, 1.0),
        ("cosine", 0.55, 0.5),
        ("cosine", 1.0, 0.0),
        ("poly", 0.55, 0.5**0.9),
        ("constant", 0.99, 1.0),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule, done, factor):
    optim = OptimConfig(learning_rate=2.0, schedule=schedule, warmup=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    set_learning_rate(optimizer, optim, done)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * factor, abs=1e-12)


def test_the_learning_rate_may_stay_at_its_peak_before_it_falls():
    optim = OptimConfig(learning_rate=2.0, schedule="cosine", warmup=0.1, hold=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    for done, factor in {0.05: 0.5, 0.1: 1.0, 0.6: 1.0, 0.8: 0.5, 1.0: 0.0}.items():
        set_learning_rate(optimizer, optim, done)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * factor, abs=1e-12)


def test_norms_and_biases_do_not_decay():
    net = nn.Module()
    net.trained = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    decaying, free = make_optimizer(net, OptimConfig(weight_decay=0.1)).param_groups
    assert [w.shape for w in decaying["params"]] == [net.trained[0].weight.shape]
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(free["params"]) == 3


def test_the_recipe_of_a_run_can_be_read_back(tiny, finished):
    stored = json.loads((finished[0] / "recipe.json").read_text())
    assert to_dict(from_dict(Recipe, stored)) == to_dict(tiny())
