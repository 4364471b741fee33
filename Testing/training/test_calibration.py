"""The temperature of the softmax: right by hand, of training cases alone, and in the package."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from DistillSegLib import Segmenter
from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError, DistillSegError
from DistillSegLib.export import calibration
from DistillSegLib.export.calibration import calibrate, fit_temperature, training_cache
from DistillSegLib.export.packaging import build_package
from DistillSegLib.networks import NetworkConfig
from DistillSegLib.package import read_package
from DistillSegLib.records import to_dict
from DistillSegLib.training.cache import Cache, open_cache
from DistillSegLib.training.recipe import AugmentationConfig
from Testing.datasets import write_decathlon
from Testing.training.phantom_run import LABELS, learnt, phantom, write_run

CONFIG = NetworkConfig("fast_unet", {"width": [8, 8]})
PLAIN = AugmentationConfig()
DISPUTED = 0.1  # share of the labelled voxels


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0])
def test_of_a_sure_network_it_is_what_makes_it_as_sure_as_it_is_right(temperature):
    """Three of four voxels of one margin are right: softmax(margin / T) must say 3/4."""
    margin = temperature * math.log(3)
    logits = np.zeros((2, 8), np.float32)
    logits[1] = margin
    label = np.array([1, 1, 1, 0] * 2)
    assert fit_temperature(logits, label) == pytest.approx(temperature, rel=1e-4)


def test_it_finds_the_temperature_that_labels_were_drawn_at():
    random = np.random.default_rng(0)
    logits = random.normal(size=(4, 40_000)).astype(np.float32) * 6
    shares = np.exp(logits / 2.5)
    shares /= shares.sum(axis=0)
    label = (random.random(logits.shape[1]) > np.cumsum(shares, axis=0)).sum(axis=0).clip(0, 3)
    assert fit_temperature(logits, label) == pytest.approx(2.5, rel=0.03)


def test_it_stays_within_its_bounds():
    logits = np.float32([[0, 0], [3, 4]])
    assert fit_temperature(logits, np.array([1, 1])) == pytest.approx(calibration.LEAST, rel=1e-3)
    assert fit_temperature(logits, np.array([0, 0])) == pytest.approx(calibration.MOST, rel=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, its student, which is surer than it is right, and its cache."""
    net = learnt(CONFIG, [step % 6 for step in range(80)], disputed=DISPUTED, sureness=3)
    folder = tmp_path_factory.mktemp("calibration") / "run"
    recipe = {"augmentation": to_dict(PLAIN)}
    form = {"window": (16, 20, 24), "recipe": recipe, "disputed": DISPUTED}
    return folder, net, write_run(folder, net, CONFIG, **form)


def exported(folder, out, **settings):
    told: list[str] = []
    path = build_package(
        folder,
        stage="student",
        card=folder / "card.toml",
        out=out,
        on_remark=told.append,
        **settings,
    )
    return read_package(path), told


def test_only_cases_of_the_training_are_looked_at(run, tmp_path, monkeypatch):
    folder, net, cache = run
    known = {"training_cases": ["a", "c", "g"]}  # g is held out of the cache
    found = training_cache(folder / "cache", cache.plan, LABELS, known, tmp_path)
    assert [case.id for case in found.training_cases] == ["a", "c"]
    looked = []
    image = Cache.image
    monkeypatch.setattr(Cache, "image", lambda self, c: looked.append(c.id) or image(self, c))
    whole = training_cache(
        folder / "cache", cache.plan, LABELS, {"training_cases": list("abcdef")}, tmp_path
    )
    looked.clear()
    assert calibrate(net, whole, PLAIN).cases == 6
    assert sorted(looked) == list("abcdef")


def test_labels_that_were_withheld_from_the_training_stay_withheld(run, tmp_path):
    folder, _, cache = run
    known = {"training_cases": list("abcdef"), "split": {"labelled": 0.5, "seed": 3}}
    found = training_cache(folder / "cache", cache.plan, LABELS, known, tmp_path)
    assert len(found.training_cases) == 3
    assert found.training_cases == cache.labelled_cases(0.5, 3)


def test_of_a_data_set_those_that_were_learnt_from_are_prepared(run, tmp_path):
    _, _, cache = run
    data = write_decathlon(tmp_path / "data", cases=8)
    labels = read_dataset(data).labels
    ids = [f"case_{number:02d}" for number in range(6)]  # 6 and 7 are held out
    known = {"training_cases": ids, "split": {"labelled": 0.5, "seed": 3}}
    whole = training_cache(data, cache.plan, labels, {"training_cases": ids}, tmp_path / "all")
    assert [case.id for case in whole.training_cases] == ids
    found = training_cache(data, cache.plan, labels, known, tmp_path / "work")
    chosen = whole.labelled_cases(0.5, 3)
    assert [c.id for c in found.training_cases] == [c.id for c in chosen] and len(chosen) == 3


def test_at_the_temperature_found_a_network_is_nearer_to_what_is_right(run):
    folder, net, _ = run
    found = calibrate(net, open_cache(folder / "cache"), PLAIN)
    assert found.temperature > 1.5  # it was made too sure
    before = found.confidence_before - found.right
    assert before > 0.05 and abs(found.confidence - found.right) < 0.6 * before
    assert f"temperature of {found.temperature:.2f}" in found.sentence()


def test_a_cache_of_other_cases_or_of_another_plan_is_refused(run, tmp_path):
    folder, _, cache = run
    with pytest.raises(DatasetError, match="holds no case that the network was trained on"):
        training_cache(folder / "cache", cache.plan, LABELS, {"training_cases": ["z"]}, tmp_path)
    other = to_dict(cache)
    other["plan"]["preprocessing"]["spacing_mm"] = [2.0, 1.0, 1.0]
    for name in "abcdefgh":
        (tmp_path / name).symlink_to(folder / "cache" / name)
    (tmp_path / "cache.json").write_text(json.dumps(other))
    with pytest.raises(DatasetError, match="was prepared for another plan"):
        training_cache(tmp_path, cache.plan, LABELS, {"training_cases": ["a"]}, tmp_path)


def test_a_network_that_finds_nothing_has_no_temperature(run):
    folder, _, _ = run
    blind = torch.nn.Conv3d(1, 3, 1)
    torch.nn.init.zeros_(blind.weight)
    with torch.no_grad():
        blind.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(DistillSegError, match="found no structure in 6 training cases"):
        calibrate(blind, open_cache(folder / "cache"), PLAIN)


def test_an_export_calibrates_what_its_user_sees_and_no_label(run, tmp_path):
    folder, _, _ = run
    package, told = exported(folder, tmp_path / "warm.distillseg")
    manifest = package.manifest
    assert len(told) == 1 and "fitted to 6 varied training cases" in told[0]
    figures = manifest.provenance["calibration"]
    assert figures["temperature"] == manifest.temperature > 1.5
    assert "temperature" in package.card

    plain, told = exported(folder, tmp_path / "plain.distillseg", calibration=False)
    assert plain.manifest.temperature == 1.0 and told == []
    array, _ = phantom(9, DISPUTED)
    warm, cold = Segmenter(package, threads=1), Segmenter(plain, threads=1)
    np.testing.assert_array_equal(warm.logits(array), cold.logits(array))
    image = sitk.GetImageFromArray(array[0])
    a, b = (each.segment(image, confidence_map=True) for each in (warm, cold))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(a.image), sitk.GetArrayFromImage(b.image))
    assert set(a.confidence) == {1, 2}
    assert all(a.confidence[value] < b.confidence[value] - 0.02 for value in (1, 2))


def test_the_map_is_of_logits_between_cells_not_of_probabilities_between_them(run, tmp_path):
    """At a border the logits of two classes cross, and the map must fall there."""
    folder, _, _ = run
    package, _ = exported(folder, tmp_path / "warm.distillseg")
    segmenter = Segmenter(package, threads=1)
    assert segmenter.variant.stride == 2
    image = sitk.GetImageFromArray(phantom(9, DISPUTED)[0][0])
    found = segmenter.segment(image, confidence_map=True)
    coarse = segmenter.logits(package.manifest.preprocessing.apply([image]).array)
    fine = torch.nn.functional.interpolate(
        torch.from_numpy(coarse)[None], scale_factor=2, mode="trilinear"
    )[0]
    expected = (fine / package.manifest.temperature).softmax(0).amax(0).numpy()
    made = sitk.GetArrayFromImage(found.confidence_map)
    np.testing.assert_allclose(made, expected, atol=1e-4)
    for value, share in found.confidence.items():
        chosen = sitk.GetArrayFromImage(found.image) == value
        assert made[chosen].mean() == pytest.approx(share, abs=0.03)


def test_without_the_data_the_temperature_is_one_and_the_export_says_so(run, tmp_path):
    folder, _, _ = run
    package, told = exported(folder, tmp_path / "x.distillseg", data=tmp_path)
    assert package.manifest.temperature == 1.0 and "calibration" not in package.manifest.provenance
    assert len(told) == 1
    assert told[0].startswith("Probabilities are not calibrated and are shown at a softmax")


def test_an_export_of_a_run_without_a_cache_asks_for_its_data(run, tmp_path):
    folder, _, _ = run
    for part in ("student", "recipe.json", "card.toml"):
        (tmp_path / part).symlink_to(folder / part)
    package, told = exported(tmp_path, tmp_path / "x.distillseg")
    assert package.manifest.temperature == 1.0
    assert "the run has no cache; name its cache or data set with --data." in told[0]
    package, told = exported(tmp_path, tmp_path / "y.distillseg", data=folder / "cache")
    assert package.manifest.temperature > 1.5
