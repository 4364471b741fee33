"""Which package is taken for an image, and which one stands behind another."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from DistillSegLib.images import read_image
from DistillSegLib.manifest import TestResult, TestScore
from DistillSegLib.package import ModelPackage, load_package
from DistillSegLib.places import resources
from DistillSegLib.ranking import doubt, mean_dice, recommended, reference_of, same_test
from DistillSegLib.scope import Measured, measure, scope_of
from Testing.models import LABELS, manifest

HEART = scope_of(
    [
        Measured((60.0, 250.0, 250.0), (8.0, 1.2, 1.2), ((0.0, 40.0, 400.0),)),
        Measured((120.0, 400.0, 400.0), (10.0, 1.6, 1.6), ((0.0, 60.0, 900.0),)),
    ],
    description="short-axis stacks",
    body_part="heart",
)
STACK = Measured((90.0, 300.0, 300.0), (8.0, 1.4, 1.4), ((0.0, 50.0, 600.0),))
CROP = Measured((20.0, 20.0, 20.0), (1.0, 1.0, 1.0), ((50.0, 450.0, 900.0),))


def model(id: str, size: int, dice: float | None, *, on: str = "40 cases", **changes):
    """A package of a file of `size` bytes with as many parameters; `dice` None: not tested."""
    sound = manifest(b"x" * size, id=id, **changes)
    test = None
    if dice is not None:
        scores = [
            TestScore(label.name, metric, value, 0.1, 40)
            for label, shift in zip(LABELS, (0.02, -0.02))
            for metric, value in (("dice", dice + shift), ("hd95_mm", 1.5))
        ]
        test = TestResult(on, 40, 1.0, tuple(scores))
    variants = (replace(sound.variants[0], parameters=size),)
    return ModelPackage(
        Path(f"{id}.distillseg"), replace(sound, test=test, variants=variants), "", {}
    )


def chosen(packages, measured=None) -> str:
    """The id that is recommended, whatever the order of the packages."""
    found = {recommended(order, measured).manifest.name for order in permutations(packages)}
    assert len(found) == 1, found
    return found.pop().removesuffix("-1.0.0")


TINY, FAST, LARGE = model("tiny", 1, 0.8754), model("fast", 2, 0.8820), model("large", 3, 0.8858)
HEARTS = [
    model("ventricle-fast", 1, 0.91, on="12 stacks", scope=HEART),
    model("ventricle-large", 3, 0.92, on="12 stacks", scope=HEART),
]


def test_the_mean_is_over_structures_and_over_dice_alone():
    assert mean_dice(FAST.manifest) == pytest.approx(0.8820)
    assert mean_dice(model("a", 1, None).manifest) is None


def test_the_smallest_within_a_hundredth_of_the_best_is_recommended():
    assert chosen([TINY, FAST, LARGE]) == "fast"
    assert chosen([TINY, FAST]) == "tiny"  # beside a best that is not far
    assert chosen([TINY, LARGE]) == "large"
    assert chosen([TINY]) == "tiny"
    assert chosen([model("edge", 1, 0.79), model("best", 2, 0.80)]) == "edge"


def test_scores_of_other_cases_are_not_compared():
    other = model("other", 9, 0.99, on="easy cases")
    assert chosen([TINY, FAST, LARGE, other]) == "fast"
    assert same_test(FAST, [TINY, FAST, other]) == [TINY]


def test_models_without_scores_come_last_and_then_the_smallest():
    untested = [model("a", 2, None), model("b", 1, None)]
    assert chosen([LARGE, *untested]) == "large"
    assert chosen(untested) == "b"
    assert recommended([]) is None


def test_of_equal_models_the_newest_version_is_recommended():
    old, new = (model("fast", 2, 0.88, version=version) for version in ("1.9.0", "1.10.0"))
    assert chosen([old, new]) == "fast-1.10.0"


def test_an_experimental_model_is_only_taken_without_doubt_and_where_others_have_it():
    trial = model("aaa-trial", 1, 0.99, version="0.9.0")
    assert chosen([trial, TINY, FAST, LARGE]) == "fast"
    assert chosen([trial, TINY, FAST, LARGE], CROP) == "fast"
    assert recommended([trial]) is recommended([trial], CROP) is trial
    assert recommended([trial], STACK) is None  # another kind of image: a person's choice
    assert chosen([trial, *HEARTS], CROP) == "aaa-trial-0.9.0"
    few_slices = replace(STACK, size_mm=(24.0, 300.0, 300.0))
    assert chosen([trial, *HEARTS], few_slices) == "ventricle-fast"  # with doubt, but proven


def test_the_image_says_which_part_of_the_body_it_shows():
    packages = [TINY, FAST, *HEARTS]
    assert chosen([*packages, LARGE], STACK) == "ventricle-fast"
    assert chosen([*packages, LARGE], CROP) == "fast"
    assert chosen([*packages, LARGE]) == "fast"  # the first by id, as long as nothing is known
    untested = model("aorta", 1, None, scope=HEART)
    assert chosen([FAST, LARGE, untested], STACK) == "aorta"  # it fits, they do not


def test_doubt_grows_from_alike_over_warned_to_refused():
    small, heart = TINY.manifest, HEARTS[0].manifest
    assert doubt(small, CROP) == doubt(heart, STACK) == 0
    assert doubt(small, STACK) == 2  # ten times as large
    assert doubt(heart, replace(STACK, size_mm=(24.0, 300.0, 300.0))) == 1  # three slices
    assert doubt(heart, replace(STACK, spacing_mm=(16.0, 1.4, 1.4))) == 1
    assert doubt(heart, replace(STACK, spacing_mm=(1.0, 1.0, 1.0))) == 2  # a head's T1
    assert doubt(heart, replace(STACK, modality="CT")) == 2
    assert doubt(heart, replace(STACK, intensity=())) == 2  # fewer channels than it takes


def test_an_image_that_no_model_fits_gets_the_same_as_none():
    head = Measured((180.0, 240.0, 240.0), (1.0, 1.0, 1.0), ((0.0, 50.0, 600.0),))
    assert chosen([TINY, FAST, LARGE, *HEARTS], head) == "fast"


def test_the_reference_is_the_best_larger_model_of_the_same_structures():
    larger = model("larger", 9, 0.8857)
    packages = [TINY, FAST, LARGE, larger, *HEARTS]
    assert reference_of(TINY, packages) is reference_of(FAST, packages) is LARGE
    assert reference_of(larger, packages) is None
    assert reference_of(LARGE, packages) is larger  # better or not, it is the only larger one
    assert reference_of(LARGE, [TINY, FAST, LARGE]) is None


def test_without_a_common_test_the_largest_is_the_reference():
    untested = [model(name, size, None) for name, size in (("a", 5), ("b", 7), ("c", 1))]
    assert reference_of(FAST, [FAST, *untested]).manifest.id == "b"
    other = [model("other", 9, 0.9, channels=("CT",))]
    assert reference_of(FAST, [FAST, *other]) is None


def test_the_bundled_default_is_the_fast_hippocampus_on_its_sample():
    packages = [load_package(path) for path in (resources() / "Models").glob("*.distillseg")]
    sample = read_image(resources() / "Samples" / "hippocampus-mean.nii.gz")
    measured = measure([sample], orientation="LPS")
    assert recommended(packages).manifest.id == "hippocampus-fast"
    ct = [package for package in packages if package.manifest.modality == "CT"]
    assert ct and recommended(ct, measured) is None
    assert recommended(packages, measured).manifest.id == "hippocampus-fast"
    reference = reference_of(load_package("hippocampus-fast"), packages)
    assert reference.manifest.id == "hippocampus-reference"
