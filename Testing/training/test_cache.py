"""Preprocessed cases on disk: what is in them, what is made again, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from DistillSegLib.datasets import read_dataset
from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.images import read_image
from DistillSegLib.segmentations import read_segmentation
from DistillSegLib.training.cache import open_cache, prepare
from DistillSegLib.training.preparation import open_or_prepare
from DistillSegLib.training.recipe import Recipe


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
