"""A share of the patients is labelled; the rest is left out, or a teacher gives its opinion."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from DistillSegLib.datasets import read_dataset
from DistillSegLib.distill.distillation import Distillation, Link
from DistillSegLib.distill.emkd import RegionAffinity
from DistillSegLib.distill.response import PredictionMaps
from DistillSegLib.distill.supervised import LabelLoss
from DistillSegLib.distill.views import Batch, Tapped, reads_label
from DistillSegLib.errors import RecipeError
from DistillSegLib.networks.unet import UNet
from DistillSegLib.records import from_dict
from DistillSegLib.training.cache import open_cache
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.plan import fingerprint
from DistillSegLib.training.recipe import AugmentationConfig, Recipe, SplitConfig
from DistillSegLib.training.stages import run
from Testing.datasets import write_decathlon

UNET = {"network": "unet", "settings": {"width": [4, 8]}}
RECIPE = {
    "name": "few",
    "precision": "32-true",
    "accelerator": "cpu",
    "workers": 0,
    "split": {"folds": 5, "labelled": 0.25, "unlabelled": "images"},
    "plan": {"window": [8, 8, 8], "batch": 2},
    "stages": [
        {
            "name": "teacher",
            "epochs": 1,
            "trained": {"teacher": UNET},
            "links": {"label": {"term": "label", "student": "teacher"}},
        },
        {
            "name": "student",
            "epochs": 1,
            "trained": {"student": UNET},
            "frozen": {"teacher": "teacher/teacher"},
            "links": {"label": {"term": "label"}, "maps": {"term": "prediction_maps"}},
        },
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run on ten patients, of whom two are held out, two are labelled and six are not."""
    data = write_decathlon(tmp_path_factory.mktemp("data"), cases=10)
    out = tmp_path_factory.mktemp("runs") / "run"
    run(from_dict(Recipe, RECIPE), {"": data}, out)
    return out


def loader(folder: Path, foreground: float = 0.34, **settings) -> PatchLoader:
    plain = AugmentationConfig(affine=0.0, foreground=foreground)
    form = {"window": (8, 8, 8), "batch": 2, "seed": 0, "workers": 0}
    return PatchLoader(open_cache(folder / "cache"), plain, **form | settings)


def test_every_batch_has_a_label_and_an_image_without(folder):
    patches = loader(folder, split=SplitConfig(labelled=0.25, unlabelled="images"))
    assert len(patches) == 4
    batches = list(patches.epoch(0))
    for batch in batches:
        assert batch.labelled.tolist() == [True, False]
        assert not batch.label[1].any()
    assert any(batch.label[0].any() for batch in batches)


def test_a_withheld_label_does_not_say_where_a_patch_is_taken(folder, tmp_path):
    """Patches of the others are the same where their labels are others."""
    split = SplitConfig(labelled=0.25, unlabelled="images")
    known = {case.id for case in open_cache(folder / "cache").labelled_cases(0.25, 0)}
    copytree(folder / "cache", tmp_path / "cache")
    for case in open_cache(tmp_path / "cache").training_cases:
        if case.id not in known:
            path = tmp_path / "cache" / case.folder / "label.npy"
            label = np.zeros_like(np.load(path))
            label[0, 0, 0] = 1
            np.save(path, label)
    form = {"split": split, "window": (4, 4, 4), "foreground": 1.0}
    ours, other = (list(loader(place, **form).epoch(0)) for place in (folder, tmp_path))
    assert len(ours) == len(other) == 4
    for one, two in zip(ours, other):
        assert torch.equal(one.image, two.image)
        assert one.label[0].any()  # of a labelled case: about a labelled voxel


def test_a_withheld_label_does_not_decide_the_plan(tmp_path):
    data = write_decathlon(tmp_path / "data", cases=6, channels=("CT",))
    recipe = from_dict(Recipe, RECIPE | {"stages": RECIPE["stages"][:1]})
    run(recipe, {"": data}, tmp_path / "run")
    cache = open_cache(tmp_path / "run" / "cache")
    (known,) = cache.labelled_cases(0.25, 0)
    found = fingerprint([c for c in read_dataset(data).cases if c.id == known.id], "LPS")
    clip = np.percentile(found.foreground[0], (0.5, 99.5))
    assert cache.plan.preprocessing.intensity[0].clip == pytest.approx(clip)


def test_both_processes_have_labels(folder):
    split = SplitConfig(labelled=0.25, unlabelled="images")
    for rank in (0, 1):
        batches = loader(folder, split=split, rank=rank, ranks=2).epoch(0)
        assert [batch.labelled.tolist() for batch in batches] == [[True, False]] * 2


def test_of_the_rest_each_image_comes_as_often_as_another(folder):
    order = loader(folder, split=SplitConfig(labelled=0.25, unlabelled="images")).order
    seen = [case for order.epoch in range(6) for *_, case in order]
    assert {case: seen.count(case) for case in (0, 1)} == {0: 12, 1: 12}
    assert sum(seen.count(case) for case in range(2, 8)) == 24


def test_what_is_left_out_is_not_seen(folder):
    cache = open_cache(folder / "cache")
    assert len(cache.training_cases) == 8
    patches = loader(folder, split=SplitConfig(labelled=0.25))
    assert len(patches) == 1
    assert next(patches.epoch(0)).labelled is None
    assert patches.loader.dataset.cases == [*cache.labelled_cases(0.25, 0)]


def test_too_few_labelled_cases_for_the_devices_are_counted(folder):
    sentence = (
        r"^2 labelled cases, of 8 training cases \(split\.labelled is 0\.25\), are too few for 4"
    )
    with pytest.raises(RecipeError, match=sentence):
        loader(folder, split=SplitConfig(labelled=0.25), ranks=4)
    with pytest.raises(RecipeError, match=r"^8 training cases are too few for 9 devices"):
        loader(folder, split=SplitConfig(labelled=0.25, unlabelled="images"), ranks=9)


def test_a_smaller_share_lies_in_a_larger_one(folder):
    cache = open_cache(folder / "cache")
    shares = [set(c.id for c in cache.labelled_cases(s, 3)) for s in (0.1, 0.25, 0.5, 1.0)]
    assert [len(share) for share in shares] == [1, 2, 4, 8]
    assert all(small < large for small, large in pairwise(shares))
    assert set(c.id for c in cache.labelled_cases(0.5, 4)) != shares[2]


def step(labelled: torch.Tensor | None, label: torch.Tensor, image: torch.Tensor) -> dict:
    torch.manual_seed(0)
    taps = ("encoder/0", "encoder/1")
    student, teacher = (Tapped(UNet(1, 3, (4, 8)).eval(), taps) for _ in range(2))
    links = {
        "label": Link(LabelLoss()),
        "maps": Link(PredictionMaps()),
        "affinity": Link(RegionAffinity(taps)),
    }
    net = Distillation({"student": student}, {"teacher": teacher}, links)
    return {name: loss.item() for name, loss in net(Batch(image, label, labelled=labelled)).items()}


def test_terms_that_look_at_labels_see_the_labelled_samples_only():
    torch.manual_seed(1)
    image, label = torch.randn(3, 1, 8, 8, 8), torch.randint(3, (3, 8, 8, 8))
    some = step(torch.tensor([True, False, True]), label, image)
    alone = step(None, label[[0, 2]], image[[0, 2]])
    whole = step(None, label, image)
    for name in ("label", "affinity"):
        assert some[name] == pytest.approx(alone[name], rel=1e-5)
        assert some[name] != pytest.approx(whole[name], rel=1e-5)
    assert some["maps"] == pytest.approx(whole["maps"], rel=1e-5)


def test_a_batch_without_labels_teaches_by_the_teacher_alone():
    image, label = torch.randn(2, 1, 8, 8, 8), torch.zeros(2, 8, 8, 8, dtype=torch.int64)
    losses = step(torch.zeros(2, dtype=torch.bool), label, image)
    assert losses["label"] == losses["affinity"] == 0
    assert losses["total"] == pytest.approx(losses["maps"])


def test_terms_say_whether_they_look_at_labels():
    assert reads_label(LabelLoss()) and reads_label(RegionAffinity())
    assert not reads_label(PredictionMaps())


def test_a_checkpoint_says_how_many_cases_were_labelled(folder):
    provenance = json.loads((folder / "summary.json").read_text())["provenance"]
    assert (len(provenance["training_cases"]), provenance["labelled_cases"]) == (8, 2)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="labelled is 0; use a share above 0"):
        from_dict(Recipe, RECIPE | {"split": {"labelled": 0}})
