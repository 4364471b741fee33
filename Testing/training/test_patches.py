"""Patches: which are drawn when, from where, and what moves with the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from DistillSegLib.errors import RecipeError
from DistillSegLib.training.augment import Augmentation
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.recipe import AugmentationConfig
from DistillSegLib.training.stages import PLAIN

pytestmark = pytest.mark.usefixtures("one_thread")


def loader(cache, config=AugmentationConfig(), window=(12, 12, 12), **settings) -> PatchLoader:  # noqa: B008
    return PatchLoader(cache, config, window=window, batch=2, seed=5, **{"workers": 0} | settings)


def same(ours, theirs) -> bool:
    """Whether two epochs hold the same batches; neither may be empty."""
    ours, theirs = list(ours), list(theirs)
    assert ours and theirs
    return len(ours) == len(theirs) and all(
        torch.equal(a.image, b.image) and torch.equal(a.label, b.label)
        for a, b in zip(ours, theirs)
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12, about workers
def test_epochs_that_follow_each_other_are_those_asked_for_alone(cache):
    """Workers are ahead of the epoch; one left in the middle, or asked for again, begins anew."""
    going, fresh = loader(cache, workers=1), loader(cache)
    next(going.epoch(4))
    for number in (1, 2, 3, 3, 7):
        there, here = list(going.epoch(number)), list(fresh.epoch(number))
        assert len(there) == len(here) == len(going) > 0
        for one, other in zip(there, here):
            assert torch.equal(one.image, other.image) and torch.equal(one.label, other.label)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12, about workers
def test_a_closed_loader_fetches_nothing_ahead_and_begins_anew_when_asked(cache):
    going, fresh = loader(cache, workers=1), loader(cache)
    assert same(going.epoch(0), fresh.epoch(0))
    thread = going.stream._thread
    assert thread.is_alive()
    going.close()
    assert not thread.is_alive()
    assert same(going.epoch(1), fresh.epoch(1))
    going.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12, about workers
def test_patches_depend_on_seed_epoch_and_position_alone(cache):
    here, worker, later = loader(cache), loader(cache, workers=1), loader(cache)
    epochs = [list(here.epoch(number)) for number in (0, 1)]
    assert [len(epoch) for epoch in epochs] == [3, 3]
    assert not same(*epochs)
    for number in (0, 1):
        assert same(epochs[number], list(worker.epoch(number)))
    assert same(epochs[1], list(later.epoch(1)))  # without the epoch before it


def test_several_processes_share_out_an_epoch(cache):
    whole = torch.cat([batch.image for batch in loader(cache).epoch(0)])
    halves = [loader(cache, rank=rank, ranks=2) for rank in (0, 1)]
    assert [len(half.order) for half in halves] == [3, 3]
    for rank, half in enumerate(halves):
        first = next(half.epoch(0)).image
        assert torch.equal(first, whole[[rank, rank + 2]])
    with pytest.raises(RecipeError, match="too few for 7 devices"):
        loader(cache, ranks=7)


def test_plain_patches_are_windows_of_the_image_padded_with_zeros(cache):
    window = (10, 24, 8)  # inside, beyond and inside the 18 x 20 x 16 voxels
    for batch in loader(cache, replace(PLAIN, foreground=0.0), window).epoch(0):
        for image, label in zip(batch.image.numpy(), batch.label.numpy()):
            assert (image[:, :, 20:] == 0).all()
            cases = cache.training_cases
            assert any(found_in(cache, case, image[0, :, :20], label[:, :20]) for case in cases)


def found_in(cache, case, image, label) -> bool:
    """Whether a case holds these voxels and, at the same place, these labels."""
    whole, classes = np.asarray(cache.image(case)[0]), np.asarray(cache.label(case))
    for place in np.argwhere(whole == image[0, 0, 0]):
        box = tuple(slice(start, start + n) for start, n in zip(place, image.shape, strict=True))
        if np.array_equal(whole[box], image) and np.array_equal(classes[box], label):
            return True
    return False


def test_foreground_patches_are_centred_on_a_labelled_voxel(cache):
    for batch in loader(cache, replace(PLAIN, foreground=1.0), (4, 4, 4)).epoch(0):
        assert (batch.label[:, 2, 2, 2] > 0).all()


@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_image_and_label_move_together(flips):
    label = np.zeros((20, 24, 28), np.uint8)
    label[4:11, 5:18, 3:9] = 1  # asymmetric along every axis
    config = replace(PLAIN, affine=1.0, rotation=(30.0, 30.0, 30.0), scale=0.2, flips=flips)
    vary = Augmentation(config, (16, 20, 24))
    for seed in range(5):
        image, moved, _ = vary(label[None].astype(np.float32), label, seed=seed)
        assert image.shape[1:] == moved.shape == (16, 20, 24)
        assert (moved[image[0] > 0.99] == 1).all()
        assert (moved[image[0] < 0.01] == 0).all()
        assert 0 < moved.sum() < moved.size


def test_a_flip_mirrors_the_axis_it_names():
    label = np.zeros((4, 6, 8), np.uint8)
    label[0, 1, 2] = 1
    _, moved, _ = Augmentation(replace(PLAIN, flips=(0.0, 0.0, 1.0)), (4, 6, 8))(
        label[None].astype(np.float32), label, seed=0
    )
    assert np.argwhere(moved).tolist() == [[0, 1, 5]]
