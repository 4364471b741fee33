"""A training on several data sets: its scores, its guides, and going on with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.checkpoints import load_network, load_specialised
from DistillSegLib.training.fit import Epoch
from DistillSegLib.training.recipe import load_recipe
from DistillSegLib.training.stages import Event, run
from DistillSegLib.training.together import check_guides, check_names
from Testing.training.paired_run import loader, recipe


def test_a_run_on_two_modalities_tells_dice_for_each(joint):
    out, events = joint
    summary = json.loads((out / "summary.json").read_text())
    dice = summary["stages"]["student"]["held_out_dice"]
    assert list(dice) == ["student ct", "student mr"]
    assert dice["student ct"]["Tail"] > 0.6 and dice["student mr"]["Tail"] > 0.6
    assert set(summary["provenance"]["domains"]) == {"ct", "mr"}
    plan = next(event.text for event in events if event.kind == "plan")
    assert plan.startswith("ct: Phantoms: 9 cases to train on, 3 held out")
    assert "\nmr: Phantoms: 6 cases to train on, 2 held out" in plan
    shares = [event.share for event in events if event.kind == "preparing"]
    assert shares == sorted(shares) and shares[-1] == 1
    assert "dice/student ct/Ball" in (out / "student" / "metrics.csv").read_text()


def test_the_score_of_an_epoch_is_of_all_domains_of_its_first_role():
    scores = {"a ct": {"x": 0.2, "y": 0.4}, "a mr": {"x": 0.6, "y": 0.8}, "b ct": {"x": 0.0}}
    assert Epoch(1, 1, {}, scores, 0, 0, 0).score == pytest.approx(0.5)
    assert Epoch(1, 1, {}, {"a": {"x": 0.3}, "b": {"x": 0.0}}, 0, 0, 0).score == 0.3
    assert Epoch(1, 1, {}, {}, 0, 0, 0).score == -1


def test_a_third_modality_is_one_word_of_the_recipe(tmp_path, modalities):
    events = []
    three = recipe(
        "stages.student.trained.student.domains=['ct', 'mr', 'pet']",
        "plan.batch=3",  # what the tests share sets two
        "stages.student.epochs=1",
    )
    run(three, modalities, tmp_path / "run", on_event=events.append)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["stages"]["student"]["held_out_dice"]) == [
        *("student ct", "student mr", "student pet")
    ]
    table = next(event.text for event in events if event.kind == "rehearsal")
    assert "DomainAgreement" in table and "(3, 3, 16, 20, 16)" in table
    net, data = load_specialised(tmp_path / "run" / "student" / "student.pt", "pet")
    assert data["plan"]["channels"] == ["PET"] and type(net).__name__ == "FastUNet"


def test_modalities_learn_from_each_other_where_few_cases_are_labelled(tmp_path, pair):
    """In some batches one modality's only patch is labelled, and the other's is not."""
    few = recipe("split.folds=8", "split.labelled=0.3", "split.unlabelled=images")
    run(few, pair, tmp_path / "run")
    caches = {domain: open_cache(tmp_path / "run" / "cache" / domain) for domain in pair}
    patches = loader(caches, batch=2, split=few.split)
    known = [batch.labelled.tolist() for number in (0, 1) for batch in patches.epoch(number)]
    assert [True, True] in known and ([True, False] in known or [False, True] in known)


class Killed(Exception):
    pass


def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path, pair):
    def watch(event: Event) -> None:
        if event.kind == "epoch" and event.epoch.number == 1:
            raise Killed

    run(recipe(), pair, tmp_path / "whole")
    with pytest.raises(Killed):
        run(recipe(), pair, tmp_path / "run", on_event=watch)
    with pytest.raises(RecipeError, match="found ct"):
        run(recipe(), {"ct": pair["ct"]}, tmp_path / "run", resume=True)
    run(recipe(), pair, tmp_path / "run", resume=True)
    ours, theirs = (
        load_network(tmp_path / name / "student" / "student.pt")[0].state_dict()
        for name in ("run", "whole")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_caches_of_a_run_are_data_for_another(tmp_path, joint, pair):
    folders = {domain: joint[0] / "cache" / domain for domain in ("ct", "mr")}
    events = []
    run(recipe("stages.student.epochs=1"), folders, tmp_path / "run", on_event=events.append)
    assert not (tmp_path / "run" / "cache").exists()
    assert "preparing" not in {event.kind for event in events}
    with pytest.raises(RecipeError, match="domain 'ct' are a cache, those of others are data sets"):
        run(recipe(), folders | {"mr": pair["mr"]}, tmp_path / "other")


# Guides


GUIDED = """
name = "guided"
precision = "32-true"
accelerator = "cpu"
workers = 0
split = {{ folds = 4 }}
plan = {{ batch = 2 }}
[[stages]]
name = "student"
epochs = 1
[stages.trained.student]
network = "unet"
settings = {{ width = [4, 4] }}
domains = {domains}
[stages.frozen]
teacher = "{teacher}"
[stages.links.maps]
term = "prediction_maps"
"""


def guided(folder: Path, teacher: Path, domains: list[str]):
    path = folder / "guided.toml"
    path.write_text(GUIDED.format(teacher=teacher, domains=domains))
    return load_recipe(path)


def test_a_network_of_all_domains_teaches_another(tmp_path, joint, pair):
    teacher = joint[0] / "student" / "student.pt"
    run(guided(tmp_path, teacher, ["ct", "mr"]), pair, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["stages"]["student"]["held_out_dice"]) == ["student ct", "student mr"]


@pytest.mark.parametrize("domains", [["mr", "ct"], []])
def test_a_guide_of_other_domains_is_refused_before_data_are_read(tmp_path, joint, domains):
    recipe = guided(tmp_path, joint[0] / "student" / "student.pt", domains)
    absent = {domain: tmp_path / "absent" for domain in domains or [""]}
    with pytest.raises(RecipeError, match="trained on the domains ct, mr, the recipe's are"):
        run(recipe, absent, tmp_path / "run")


def test_a_guide_must_have_seen_such_images_of_every_domain(tmp_path, joint, caches):
    recipe = guided(tmp_path, joint[0] / "student" / "student.pt", ["ct", "mr"])
    plans = {domain: cache.plan for domain, cache in caches.items()}
    check_guides(recipe, ("ct", "mr"), plans)
    swapped = {"ct": plans["ct"], "mr": plans["ct"]}
    with pytest.raises(RecipeError, match="a guide must have seen such images of every domain"):
        check_guides(recipe, ("ct", "mr"), swapped)


def test_stored_maps_need_names_that_no_two_domains_share(pair):
    datasets = {domain: read_dataset(path) for domain, path in pair.items()}
    with pytest.raises(RecipeError, match="'ct' and 'mr' both have a case 'case_00'"):
        check_names(datasets)
    check_names({"ct": datasets["ct"]})


def test_a_missing_data_set_is_named(tmp_path, pair):
    with pytest.raises(DatasetError, match="absent"):
        run(recipe(), pair | {"mr": tmp_path / "absent"}, tmp_path / "run")
