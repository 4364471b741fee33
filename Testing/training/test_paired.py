"""Several data sets in one training: what must agree, how they are paired, what comes out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from DistillSegLib.cli import main
from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.export import packaging
from DistillSegLib.export.packaging import build_package
from DistillSegLib.inference import Segmenter
from DistillSegLib.metrics import dice
from DistillSegLib.networks.domains import MultiDomain
from DistillSegLib.runtime import Session
from DistillSegLib.segmentations import read_segmentation
from DistillSegLib.training import patches
from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.checkpoints import load_network, load_specialised
from DistillSegLib.training.fit import Epoch
from DistillSegLib.training.paired import PairedLoader, patch_loader
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.recipe import SplitConfig, load_recipe
from DistillSegLib.training.stages import PLAIN, Event, run
from DistillSegLib.training.together import (
    check_domains,
    check_guides,
    check_names,
    check_plans,
)
from Testing.datasets import write_decathlon
from Testing.training.small_recipes import EVERYWHERE

QUICK = [
    *EVERYWHERE,
    "optim.learning_rate=2e-2",
    "stages.student.trained.student.network=fast_unet",
    "stages.student.trained.student.settings={width=[8, 8]}",
]


def recipe(*overrides: str):
    return load_recipe("ct-mr", [*QUICK, "stages.student.epochs=2", *overrides])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """Three modalities with different numbers of cases; CT is named so and has fixed units."""
    folder = tmp_path_factory.mktemp("data")
    made = {"ct": ("CT", 12), "mr": ("MRI", 8), "pet": ("PET", 8)}
    return {
        domain: write_decathlon(
            folder / domain, cases=cases, channels=(channel,), spacing_mm=(1, 1, 1.25)
        )
        for domain, (channel, cases) in made.items()
    }


@pytest.fixture(scope="module")
def pair(data) -> dict[str, Path]:
    return {domain: data[domain] for domain in ("ct", "mr")}


@pytest.fixture(scope="module")
def finished(pair, tmp_path_factory) -> tuple[Path, list[Event]]:
    """One run on CT and MR, long enough to segment a phantom."""
    out, events = tmp_path_factory.mktemp("runs") / "run", []
    run(recipe("stages.student.epochs=10"), pair, out, on_event=events.append)
    return out, events


@pytest.fixture
def caches(finished):
    return {domain: open_cache(finished[0] / "cache" / domain) for domain in ("ct", "mr")}


def loader(caches, **settings) -> PairedLoader:
    settings = {"window": (8, 8, 8), "batch": 4, "seed": 3, "workers": 0} | settings
    return patch_loader(caches, PLAIN, **settings)


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


def test_domains_share_the_grid_and_the_batch_and_keep_their_own_intensities(finished, caches):
    ct, mr = (caches[domain].plan for domain in ("ct", "mr"))
    check_plans({"ct": ct, "mr": mr})
    assert ct.preprocessing.intensity[0].scheme == "fixed"
    assert mr.preprocessing.intensity[0].scheme == "image"
    assert (ct.modality, mr.modality) == ("CT", "MR")
    assert "the same for all domains" in ct.reasons["window"]
    assert "fixed units" in ct.reasons["intensity"]
    plan = json.loads((finished[0] / "plan.json").read_text())
    assert list(plan) == ["ct", "mr"] and plan["mr"]["channels"] == ["MRI"]


def test_a_planned_batch_is_shared_without_remainder_and_spacing_is_of_all(tmp_path, data):
    coarse = write_decathlon(tmp_path / "mr", cases=28, channels=("MRI",), spacing_mm=(2, 1, 1.25))
    domains = "stages.student.trained.student.domains=['ct', 'mr', 'pet']"
    three = recipe(domains, "stages.student.epochs=1")
    three = replace(three, plan=replace(three.plan, batch=None))
    run(three, data | {"mr": coarse}, tmp_path / "run")
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


# A run


def test_a_run_on_two_modalities_tells_dice_for_each(finished):
    out, events = finished
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


def test_a_third_modality_is_one_word_of_the_recipe(tmp_path, data):
    events = []
    three = recipe(
        "stages.student.trained.student.domains=['ct', 'mr', 'pet']",
        "plan.batch=3",  # what the tests share sets two
        "stages.student.epochs=1",
    )
    run(three, data, tmp_path / "run", on_event=events.append)
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


def test_caches_of_a_run_are_data_for_another(tmp_path, finished, pair):
    folders = {domain: finished[0] / "cache" / domain for domain in ("ct", "mr")}
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


def test_a_network_of_all_domains_teaches_another(tmp_path, finished, pair):
    teacher = finished[0] / "student" / "student.pt"
    run(guided(tmp_path, teacher, ["ct", "mr"]), pair, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["stages"]["student"]["held_out_dice"]) == ["student ct", "student mr"]


@pytest.mark.parametrize("domains", [["mr", "ct"], []])
def test_a_guide_of_other_domains_is_refused_before_data_are_read(tmp_path, finished, domains):
    recipe = guided(tmp_path, finished[0] / "student" / "student.pt", domains)
    absent = {domain: tmp_path / "absent" for domain in domains or [""]}
    with pytest.raises(RecipeError, match="trained on the domains ct, mr, the recipe's are"):
        run(recipe, absent, tmp_path / "run")


def test_a_guide_must_have_seen_such_images_of_every_domain(tmp_path, finished, caches):
    recipe = guided(tmp_path, finished[0] / "student" / "student.pt", ["ct", "mr"])
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


# What comes out


CARD = """
id = "phantom-{domain}"
version = "1.0.0"
title = "Phantom"
description = "Two parts of a phantom."
intended_use = "Tests."
licence = "CC0-1.0"
attribution = "Made by code."
"""


@pytest.mark.parametrize("domain", ["ct", "mr"])
def test_a_package_of_one_modality_says_what_the_whole_network_says(
    finished, data, caches, tmp_path, monkeypatch, domain
):
    monkeypatch.setattr(packaging, "measure_memory", lambda path, channels, multiple: 100.0)
    (tmp_path / "card.toml").write_text(CARD.format(domain=domain))
    out = tmp_path / "model.distillseg"
    build_package(finished[0], stage="student", card=tmp_path / "card.toml", out=out, domain=domain)
    segmenter = Segmenter(out)
    manifest, cache = segmenter.package.manifest, caches[domain]
    assert manifest.modality == {"ct": "CT", "mr": "MR"}[domain]
    assert manifest.preprocessing == cache.plan.preprocessing
    assert manifest.provenance["held_out_cases"] == list(cache.held_out)
    assert manifest.provenance["trained_on"]["mr"] == "Phantoms (CC0-1.0)"

    whole, _ = load_network(finished[0] / "student" / "student.pt")
    assert isinstance(whole, MultiDomain)
    window = torch.randn(2, 1, 8, 12, 16)
    index = whole.domains.index(domain)
    with torch.no_grad():
        expected = whole(window, torch.full((2,), index))
    variant = segmenter.package.variant()
    coarse = Session(segmenter.package.model_bytes(variant))(window.numpy())
    found = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), scale_factor=variant.stride, mode="trilinear"
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    case = next(c for c in read_dataset(data[domain]).cases if c.id in cache.held_out)
    found, reference = segmenter.segment(case.images), read_segmentation(case.label, cache.labels)
    found, reference = (sitk.GetArrayFromImage(each.image) for each in (found, reference))
    assert dice(found == 7, reference == 7) > 0.6


def test_a_domain_that_is_missing_or_unknown_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.delattr(packaging, "export_onnx")
    (tmp_path / "card.toml").write_text(CARD.format(domain="x"))
    files = {"stage": "student", "card": tmp_path / "card.toml", "out": tmp_path / "x"}
    with pytest.raises(RecipeError, match="domains ct, mr, asked for none; choose one of them"):
        build_package(finished[0], **files)
    with pytest.raises(RecipeError, match="domains ct, mr, asked for 'pet'; choose one of them"):
        build_package(finished[0], domain="pet", **files)


def test_a_run_is_evaluated_in_one_of_its_modalities(finished, data, tmp_path, capsys):
    model, table = str(finished[0]), tmp_path / "scores.json"
    assert main(["evaluate", model, "--data", f"mr={data['mr']}", "--json", str(table)]) == 0
    scores = json.loads(table.read_text())
    assert scores["cases_chosen"] == "held out from training"
    assert {row["case"] for row in scores["cases"]} == set(
        open_cache(finished[0] / "cache" / "mr").held_out
    )
    by_name = ["evaluate", model, "--data", str(data["mr"]), "--domain", "mr"]
    assert main([*by_name, "--json", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["summary"][0] == scores["summary"][0]
    capsys.readouterr()
    assert main(["evaluate", model, "--data", str(data["mr"])]) == 1
    assert "domains ct, mr, asked for none" in capsys.readouterr().err


def test_a_network_of_one_data_set_has_no_domain_to_choose(tmp_path, data):
    overrides = ["stages.student.trained.student.domains=[]", "stages.student.epochs=1"]
    links = ["stages.student.links.agreement.term=label"]
    run(
        recipe(*overrides, *links, "stages.student.links.agreement.settings={}"),
        {"": data["ct"]},
        tmp_path / "run",
    )
    path = tmp_path / "run" / "student" / "student.pt"
    assert load_specialised(path)[1]["plan"]["channels"] == ["CT"]
    with pytest.raises(RecipeError, match="trained on one data set, asked for 'ct'"):
        load_specialised(path, "ct")


def test_a_missing_data_set_is_named(tmp_path, pair):
    with pytest.raises(DatasetError, match="absent"):
        run(recipe(), pair | {"mr": tmp_path / "absent"}, tmp_path / "run")
