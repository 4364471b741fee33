"""Several data sets in one training: what must agree, the plan, and how they are paired."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from DistillSegLib.errors import RecipeError
from DistillSegLib.training import patches
from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.checkpoints import load_network
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.recipe import SplitConfig, load_recipe
from DistillSegLib.training.stages import run
from DistillSegLib.training.together import check_domains, check_plans
from Testing.datasets import write_decathlon
from Testing.training.paired_run import loader, recipe

# Before anything is computed


@pytest.mark.parametrize(
    ("domains", "found", "sentence"),
    [
        ("['ct', 'mr']", ["ct"], "domains ct, mr at once, found ct; give --data ct=DIR mr=DIR"),
        ("['ct', 'mr']", [""], "found data without a domain; give --data ct=DIR mr=DIR"),
        ("['ct', 'mr']", ["ct", "pet"], "found ct, pet; give"),
        ("['ct', 'mr', 'pet']", ["ct", "mr"], "ct=DIR mr=DIR pet=DIR"),
        ("[]", ["ct", "mr"], r"trains on one data set, found 2; .*domains = \['ct', 'mr'\]"),
        ("['ct', '../mr']", ["ct", "../mr"], r"'\.\./mr' names no domain"),
    ],
)
def test_domains_of_recipe_and_data_must_be_the_same(tmp_path, domains, found, sentence):
    given = recipe(f"stages.student.trained.student.domains={domains}")
    with pytest.raises(RecipeError, match=sentence):
        run(given, {name: tmp_path / "absent" for name in found}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_networks_of_other_domains_in_one_recipe_are_refused():
    given = load_recipe("distil", ["stages.student.trained.student.domains=['ct', 'mr']"])
    with pytest.raises(RecipeError, match=r"'teacher/teacher' has the domains none, 'student/stu"):
        check_domains(given, {})


def test_one_data_set_may_have_a_name_all_the_same():
    assert check_domains(load_recipe("distil"), {"ct": Path()}) == ()


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"labels": {0: "background", 3: "Ball"}}, r"2 structures \(Ball, Tail\), 'mr' with 1"),
        ({"labels": {0: "background", 3: "Tail", 7: "Ball"}}, r"'mr' with 2 \(Tail, Ball\)"),
        ({"channels": ("T1", "T2")}, r"'ct' has 1 images of a case \(CT\), 'mr' has 2 \(T1, T2\)"),
    ],
)
def test_data_sets_that_do_not_match_are_refused_in_words(tmp_path, pair, other, sentence):
    mr = write_decathlon(tmp_path / "mr", **other)
    with pytest.raises(RecipeError, match=sentence):
        run(recipe(), pair | {"mr": mr}, tmp_path / "run")
    assert not (tmp_path / "run" / "cache").exists()


def test_a_batch_that_the_domains_cannot_share_is_refused(tmp_path, pair):
    with pytest.raises(RecipeError, match=r"batch is 3, which 2 domains cannot share; .*of 2\."):
        run(recipe("plan.batch=3"), pair, tmp_path / "run")


# The plan


def test_domains_share_the_grid_and_the_batch_and_keep_their_own_intensities(joint, caches):
    ct, mr = (caches[domain].plan for domain in ("ct", "mr"))
    check_plans({"ct": ct, "mr": mr})
    assert ct.preprocessing.intensity[0].scheme == "fixed"
    assert mr.preprocessing.intensity[0].scheme == "image"
    assert (ct.modality, mr.modality) == ("CT", "MR")
    assert "the same for all domains" in ct.reasons["window"]
    assert "fixed units" in ct.reasons["intensity"]
    plan = json.loads((joint[0] / "plan.json").read_text())
    assert list(plan) == ["ct", "mr"] and plan["mr"]["channels"] == ["MRI"]


def test_a_planned_batch_is_shared_without_remainder_and_spacing_is_of_all(tmp_path, modalities):
    coarse = write_decathlon(tmp_path / "mr", cases=28, channels=("MRI",), spacing_mm=(2, 1, 1.25))
    domains = "stages.student.trained.student.domains=['ct', 'mr', 'pet']"
    three = recipe(domains, "stages.student.epochs=1")
    three = replace(three, plan=replace(three.plan, batch=None))
    run(three, modalities | {"mr": coarse}, tmp_path / "run")
    plans = [open_cache(tmp_path / "run" / "cache" / d).plan for d in ("ct", "mr", "pet")]
    assert {plan.preprocessing.spacing_mm for plan in plans} == {(2.0, 1.0, 1.25)}  # most are MR
    assert {plan.batch for plan in plans} == {3}
    net, _ = load_network(tmp_path / "run" / "student" / "student.pt")
    assert net.domains == ("ct", "mr", "pet")


def test_caches_of_another_grid_are_refused(caches):
    plans = {domain: cache.plan for domain, cache in caches.items()}
    other = replace(plans["mr"], window=(8, 8, 8))
    with pytest.raises(RecipeError, match=r"'ct' has the window \(.*, that of 'mr' \(8, 8, 8\)"):
        check_plans(plans | {"mr": other})


# Batches


def test_half_of_each_batch_is_of_each_domain_side_by_side(caches):
    assert [len(cache.training_cases) for cache in caches.values()] == [9, 6]
    batches = list(loader(caches).epoch(0))
    assert len(batches) == len(loader(caches)) == 4  # 9 // 2, of the larger data set
    for batch in batches:
        assert batch.domain.tolist() == [0, 0, 1, 1]
        assert batch.image.shape == (4, 1, 8, 8, 8) and batch.label.shape == (4, 8, 8, 8)


def whole(caches, **settings):
    """Windows as large as the images, so that a patch tells its case."""
    return loader(caches, window=(24, 24, 24), **settings)


def cases_of(batches, caches, domain: int) -> list[str]:
    cache = list(caches.values())[domain]
    images = {case.id: torch.from_numpy(np.array(cache.image(case))) for case in cache.cases}
    found = []
    for batch in batches:
        for patch in batch.image[batch.domain == domain]:
            sums = {
                name: abs((patch**3).sum() - (image**3).sum()).item()
                for name, image in images.items()
            }
            found.append(min(sums, key=sums.get))
    return found


def test_the_larger_data_set_comes_once_and_the_smaller_begins_anew(caches):
    batches = list(whole(caches, batch=2).epoch(0))
    ct, mr = (cases_of(batches, caches, domain) for domain in (0, 1))
    held_out = [set(cache.held_out) for cache in caches.values()]
    assert len(ct) == len(set(ct)) == 9 and not set(ct) & held_out[0]
    assert len(mr) == 9 and len(set(mr)) == len(set(mr[:6])) == 6 and not set(mr) & held_out[1]
    again = cases_of(whole(caches, batch=2).epoch(1), caches, 1)
    assert mr[:6] != mr[6:] + mr[3:6] and mr != again  # every pass in an order of its own


def same(ours, theirs) -> bool:
    """Whether two epochs hold the same batches; neither may be empty."""
    ours, theirs = list(ours), list(theirs)
    assert ours and theirs
    return len(ours) == len(theirs) and all(
        torch.equal(a.image, b.image) and torch.equal(a.label, b.label)
        for a, b in zip(ours, theirs)
    )


def test_batches_depend_on_seed_epoch_and_position_alone(caches):
    first = loader(caches)
    begun = list(first.epoch(0)), list(first.epoch(1))
    assert same(loader(caches).epoch(1), begun[1])  # as in a run that was resumed
    assert same(loader(caches, workers=2).epoch(1), begun[1])
    assert not same(begun[0], begun[1])
    assert not same(loader(caches, seed=4).epoch(1), begun[1])


def test_processes_share_out_the_cases_of_each_domain(caches):
    ranks = [list(whole(caches, batch=2, rank=rank, ranks=2).epoch(0)) for rank in (0, 1)]
    assert [len(batches) for batches in ranks] == [4, 4]
    first, second = (set(cases_of(batches, caches, 0)) for batches in ranks)
    assert len(first) == len(second) == 4 and not first & second


def test_a_batch_is_no_larger_than_the_smallest_data_set_can_share(caches):
    batch = next(loader(caches, batch=40).epoch(0))
    assert batch.domain.tolist() == [0] * 6 + [1] * 6
    batch = next(loader(caches, batch=40, rank=1, ranks=2).epoch(0))  # three of the six each
    assert batch.domain.tolist() == [0] * 3 + [1] * 3


@pytest.mark.parametrize(("unlabelled", "share"), [("left out", 3), ("images", 6)])
def test_a_share_is_of_the_cases_that_are_dealt_out(caches, unlabelled, share):
    """Four of the nine and three of the six are labelled."""
    split = SplitConfig(labelled=0.35, unlabelled=unlabelled)
    for batch in loader(caches, batch=40, split=split).epoch(0):
        assert batch.domain.tolist() == [0] * share + [1] * share


def test_domains_are_not_dealt_out_alike(caches):
    twice = {"ct": caches["ct"], "mr": caches["ct"]}
    batches = list(whole(twice).epoch(0))
    one, other = (cases_of(batches, twice, domain) for domain in (0, 1))
    assert len(one) == len(other) and one != other


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a small machine
@pytest.mark.parametrize(("asked", "each"), [(0, 0), (1, 1), (2, 1), (6, 3), (-1, 4)])
def test_the_domains_share_the_worker_processes(caches, monkeypatch, asked, each):
    monkeypatch.setattr(patches, "physical_cores", lambda: 32)
    loaders = loader(caches, workers=asked).loaders
    assert [one.loader.num_workers for one in loaders] == [each, each]


def test_one_data_set_is_loaded_as_ever(caches):
    alone = loader({"": caches["ct"]})
    assert isinstance(alone, PatchLoader)
    assert next(alone.epoch(0)).domain is None
