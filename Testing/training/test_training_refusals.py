"""What training refuses, in one sentence: mistakes, damaged files, want of memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.training import checkpoints, stages
from DistillSegLib.training.assembly import rehearse
from DistillSegLib.training.checkpoints import load_network
from DistillSegLib.training.stages import run
from Testing.datasets import write_decathlon, write_image
from Testing.training.tiny_run import Killed, killed_after

pytestmark = pytest.mark.usefixtures("one_thread")


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
