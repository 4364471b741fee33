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

import pytest
import torch

from DistillSegLib.errors import RecipeError
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training import stages
from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.checkpoints import load_network
from DistillSegLib.training.folder import check_recipe
from DistillSegLib.training.origin import origin_of
from DistillSegLib.training.paired import patch_loader
from DistillSegLib.training.recipe import Recipe, load_recipe
from DistillSegLib.training.stages import run
from Testing.datasets import write_decathlon
from Testing.training.tiny_run import Killed, killed_after

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_each_stage_has_patches_of_its_own(finished, recipe_file, tmp_path):
    """Lest a student that goes on through four stages see the first one's patches four times."""
    caches = {"": open_cache(finished[0] / "cache")}
    recipe = load_recipe(recipe_file)
    ground = stages.Run(recipe, caches, origin_of(recipe, caches, ""), tmp_path, None, None)
    teacher, student = (
        next(ground.patches(stage, stages.PLAIN, batch=3, workers=0).epoch(0)).image
        for stage in recipe.stages
    )
    alone = patch_loader(
        caches,
        stages.PLAIN,
        window=ground.origin.plan.window,
        seed=recipe.seed,
        stored={},
        split=recipe.split,
        batch=3,
        workers=0,
    )
    assert torch.equal(teacher, next(alone.epoch(0)).image)  # the first stage has the recipe's seed
    assert not torch.equal(teacher, student)


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


# The cache


# Patches


# Validation


# The optimiser


def test_the_recipe_of_a_run_can_be_read_back(tiny, finished):
    stored = json.loads((finished[0] / "recipe.json").read_text())
    assert to_dict(from_dict(Recipe, stored)) == to_dict(tiny())
