"""What is bundled works as it is: two packages, a sample, and the texts that speak of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from DistillSegLib import Segmenter, compare
from DistillSegLib.inference import self_check
from DistillSegLib.package import ModelPackage, load_package
from DistillSegLib.places import resources

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = resources() / "Samples" / "hippocampus-mean.nii.gz"
NAMES = ("hippocampus-fast", "hippocampus-reference")


@pytest.fixture(scope="module", params=NAMES)
def package(request) -> ModelPackage:
    return load_package(request.param)


def test_a_bundled_package_is_whole_and_gives_its_numbers_here(package):
    package.check_digests()
    assert self_check(package) <= package.manifest.tolerance


def test_a_bundled_package_was_scored_on_cases_it_had_not_seen(package):
    provenance = package.manifest.provenance
    training, held_out = provenance["training_cases"], provenance["held_out_cases"]
    assert not set(training) & set(held_out)
    assert package.manifest.test.cases == len(held_out) == 40


def test_a_bundled_package_tells_licence_and_attribution(package):
    assert package.manifest.licence == "CC-BY-SA-4.0"
    assert "Antonelli" in package.manifest.attribution
    assert "Known failures" in package.card


def test_structures_carry_the_terminology_of_slicer(package):
    for label in package.manifest.labels:
        assert "SCT^5366008^Hippocampus" in label.terminology


def test_fast_and_reference_agree_on_the_sample():
    fast, reference = (Segmenter(name).segment(SAMPLE) for name in NAMES)
    assert fast.warnings == reference.warnings == ()
    for row in compare(fast, reference).rows:
        assert row.dice > 0.95
        assert 1 < row.volume_a_ml < 3  # a hippocampus has about 3 ml in all


def test_the_fast_model_has_at_most_300_000_parameters():
    variant = load_package("hippocampus-fast").variant("auto")
    assert variant.parameters <= 300_000


def test_the_readme_shows_the_numbers_of_the_packages():
    file = ROOT / "Testing" / "studies" / "model_table.py"
    spec = importlib.util.spec_from_file_location("model_table", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == module.filled(readme)
