"""Cached cases to batches of varied patches.

What a patch is depends on (seed, epoch, position in the epoch) alone: not on the number of worker
processes, nor on whether the run was interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from DistillSegLib.distill.views import EMPTY, Batch
from DistillSegLib.errors import RecipeError
from DistillSegLib.machine import physical_cores
from DistillSegLib.training.augment import Augmentation
from DistillSegLib.training.cache import Cache, CachedCase
from DistillSegLib.training.recipe import AugmentationConfig
from DistillSegLib.training.stored import Maps

MARGIN = 0.2  # of the window, cut on every side for rotation and scaling to find neighbours


class PatchLoader:
    """Batches of an epoch: every training case once, in an order of the epoch's own.

    Args:
        cache: preprocessed cases; only `training_cases` are used.
        batch: patches per step; the last incomplete batch of an epoch is dropped, unless it is
            the only one.
        workers: processes that prepare patches; -1 takes half the cores, at most 8.
        stored: role -> maps of a teacher that was run elsewhere, cut and varied with the image.
        rank, ranks: which of several training processes this is; they share out the cases.
    """

    def __init__(
        self,
        cache: Cache,
        augmentation: AugmentationConfig,
        *,
        window: tuple[int, int, int],
        batch: int,
        seed: int,
        workers: int = -1,
        stored: Mapping[str, Maps] = EMPTY,
        rank: int = 0,
        ranks: int = 1,
    ):
        self.order = _EpochOrder(len(cache.training_cases), seed, rank, ranks)
        if not len(self.order):
            raise RecipeError(
                f"{len(cache.training_cases)} training cases are too few for {ranks} devices; use "
                "fewer devices."
            )
        self.loader = DataLoader(
            _Patches(cache, augmentation, window, seed, stored),
            batch_size=min(batch, len(self.order)),
            sampler=self.order,
            drop_last=True,
            num_workers=worker_count(workers),
            persistent_workers=worker_count(workers) > 0,
            generator=torch.Generator(),  # its draws leave alone those of the networks
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`."""
        self.order.epoch = number
        for image, label, stored in self.loader:
            yield Batch(image, label, stored=stored or EMPTY)


def worker_count(asked: int) -> int:
    """The processes that are asked for; of -1, as many as suit the machine."""
    return asked if asked >= 0 else min((physical_cores() or os.cpu_count() or 1) // 2, 8)


class _EpochOrder(Sampler):
    """(epoch, position, case) in the order of one epoch; of several ranks, every one as many."""

    def __init__(self, cases: int, seed: int, rank: int, ranks: int):
        self.cases, self.seed, self.epoch = cases, seed, 0
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        return self.cases // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.cases)
        for turn in range(len(self)):
            position = turn * self.ranks + self.rank
            yield self.epoch, position, int(order[position])


class _Patches(Dataset):
    """(epoch, position, case) -> image (C, d, h, w) float32, label (d, h, w) int64, stored maps.

    The maps are role -> (K, d, h, w) float32 probabilities.
    """

    def __init__(
        self,
        cache: Cache,
        config: AugmentationConfig,
        window: tuple[int, int, int],
        seed: int,
        stored: Mapping[str, Maps] = EMPTY,
    ):
        self.stored = dict(stored)
        self.cache, self.cases = cache, cache.training_cases
        self.window, self.seed = window, seed
        self.foreground = config.foreground
        self.augmentation = Augmentation(config, window)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(
        self, key: tuple[int, int, int]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        epoch, position, number = key
        random = np.random.default_rng((self.seed, epoch, position))
        case = self.cases[number]
        label = self.cache.label(case)
        start = self._start(label, random)
        image, label = self._cut(self.cache.image(case), start), self._cut(label, start)
        kinds, maps = self._maps(case, start)
        image, label, maps = self.augmentation(image, label, maps, seed=int(random.integers(2**32)))
        if maps is None:
            return image, label, {}
        parts = zip(self.stored.items(), kinds, np.split(maps, len(kinds)), strict=True)
        return image, label, {role: m.smoothed(part, hard) for (role, m), hard, part in parts}

    def _maps(self, case: CachedCase, start: np.ndarray) -> tuple[list[bool], np.ndarray | None]:
        """(of each role, whether its maps are hard; all on top of each other (R*K, …) or None)."""
        found = [self.cache.maps(case, maps) for maps in self.stored.values()]
        cut = [self._cut(maps, start) for _hard, maps in found]
        return [hard for hard, _maps in found], np.concatenate(cut) if cut else None

    def _start(self, label: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Where the window begins: about a labelled voxel, or anywhere inside the image."""
        room = np.maximum(np.array(label.shape) - self.window, 0)
        if room.any() and random.random() < self.foreground:
            labelled = np.flatnonzero(label)
            if len(labelled):
                chosen = labelled[random.integers(len(labelled))]
                centre = np.array(np.unravel_index(chosen, label.shape))
                return (centre - np.array(self.window) // 2).clip(0, room)
        return random.integers(room + 1)

    def _cut(self, array: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The window at `start` with a margin all round; zeros where the image ends.

        Rotation and scaling take their neighbours from the margin.
        """
        lead = array.ndim - 3
        margin = [round(width * MARGIN) for width in self.window]
        box, pad = [slice(None)] * lead, [(0, 0)] * lead
        for first, width, extra, size in zip(
            start, self.window, margin, array.shape[lead:], strict=True
        ):
            low, high = first - extra, first + width + extra
            box.append(slice(max(low, 0), min(high, size)))
            pad.append((max(-low, 0), max(high - size, 0)))
        return np.pad(array[tuple(box)], pad)
