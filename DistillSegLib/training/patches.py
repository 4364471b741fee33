"""Cached cases to batches of varied patches.

What a patch is depends on (seed, epoch, position in the epoch) alone: not on the number of worker
processes, nor on whether the run was interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from DistillSegLib.distill.views import EMPTY, Batch
from DistillSegLib.errors import RecipeError
from DistillSegLib.machine import physical_cores
from DistillSegLib.training.ahead import Ahead
from DistillSegLib.training.augment import Augmentation
from DistillSegLib.training.cache import Cache, CachedCase
from DistillSegLib.training.recipe import AugmentationConfig, SplitConfig
from DistillSegLib.training.stored import Maps

EVERYONE = SplitConfig()  # all training cases are labelled
MARGIN = 0.2  # of the window, cut on every side for rotation and scaling to find neighbours


class PatchLoader:
    """Batches of an epoch: every training case once, in an order of the epoch's own.

    Where images without labels are used, as many as there are training cases, every other one
    labelled: the labelled come more often than the rest.

    Args:
        cache: preprocessed cases; only `training_cases` are used.
        split: which of these count as labelled, and what becomes of the rest.
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
        split: SplitConfig = EVERYONE,
        rank: int = 0,
        ranks: int = 1,
    ):
        labelled, others = cases_of(cache, split)
        self.labelled = len(labelled) if others else None  # None: all are
        self.order = _EpochOrder(len(labelled), len(others), seed, rank, ranks)
        if not len(self.order):
            raise RecipeError(_too_few(cache, split, ranks))
        self.batches = _Batches(self.order, min(batch, len(self.order)))
        self.stream: Iterator[Any] = iter(())  # of the loader, at the beginning of epoch `next`
        self.next: int | None = None
        self.loader = DataLoader(
            _Patches(cache, labelled, others, augmentation, window, seed, stored),
            batch_sampler=self.batches,
            num_workers=worker_count(workers),
            persistent_workers=worker_count(workers) > 0,
            generator=torch.Generator(),  # its draws leave alone those of the networks
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`.

        Workers go on to the next epoch while the last steps are made and while it is validated, so
        that its first step need not wait; asked for another one, they begin anew.
        """
        if number != self.next:
            self.close()
            self.batches.first = number
            self.stream = iter(self.loader)
            if self.loader.num_workers:
                self.stream = Ahead(self.stream)
        self.next = None  # until this one is over
        for image, label, stored, case in islice(self.stream, self.batches.of(number)):
            labelled = None if self.labelled is None else case < self.labelled
            label = label if labelled is None else label * labelled[:, None, None, None]
            yield Batch(image, label, stored=stored or EMPTY, labelled=labelled)
        self.next = number + 1

    def close(self) -> None:
        """Fetch nothing more ahead; another epoch begins anew."""
        if isinstance(self.stream, Ahead):
            self.stream.close()
        self.stream, self.next = iter(()), None


def cases_of(cache: Cache, split: SplitConfig) -> tuple[list[CachedCase], list[CachedCase]]:
    """(labelled training cases, those whose images are used without labels)."""
    labelled = list(cache.labelled_cases(split.labelled, split.seed))
    if split.unlabelled == "left out":
        return labelled, []
    return labelled, [case for case in cache.training_cases if case not in labelled]


def _too_few(cache: Cache, split: SplitConfig, ranks: int) -> str:
    labelled, others = cases_of(cache, split)
    if others or split.labelled == 1:
        cases = len(labelled) + len(others)
        return f"{cases} training cases are too few for {ranks} devices; use fewer devices."
    return (
        f"{len(labelled)} labelled cases, of {len(cache.training_cases)} training cases "
        f"(split.labelled is {split.labelled:g}), are too few for {ranks} devices; use fewer "
        "devices or a larger split.labelled."
    )


def worker_count(asked: int) -> int:
    """The processes that are asked for; of -1, as many as suit the machine."""
    return asked if asked >= 0 else min((physical_cores() or os.cpu_count() or 1) // 2, 8)


class _EpochOrder(Sampler):
    """(epoch, position, case) in the order of one epoch; of several ranks, every one as many.

    Args:
        labelled, others: how many cases; numbered from 0, the labelled first.
    """

    def __init__(self, labelled: int, others: int, seed: int, rank: int, ranks: int):
        self.labelled, self.others = labelled, others
        self.seed, self.epoch = seed, 0
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        return (self.labelled + self.others) // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        order = self._order()
        for turn in range(len(self)):
            position = turn * self.ranks + self.rank
            yield self.epoch, position, int(order[position])

    def _order(self) -> np.ndarray:
        """A case for each position: each once, or labelled ones and others in turn."""
        random = np.random.default_rng((self.seed, self.epoch))
        if not self.others:
            return random.permutation(self.labelled)
        length = self.labelled + self.others
        turns = [_passes(random, self.labelled, length), _passes(random, self.others, length)]
        turns[1] += self.labelled
        of = np.arange(length) // self.ranks % 2  # each rank has both
        order = np.empty(length, np.int64)
        for kind in (0, 1):
            order[of == kind] = turns[kind][: (of == kind).sum()]
        return order


def _passes(random: np.random.Generator, cases: int, length: int) -> np.ndarray:
    """`length` cases: all in one order, then all in another, and so on."""
    return np.concatenate([random.permutation(cases) for _ in range(-(-length // cases))])[:length]


class _Batches(Sampler):
    """The keys of each batch, from epoch `first` on, one epoch after the other without end.

    The last incomplete batch of an epoch is left out.

    Attributes:
        of: number of an epoch -> how many of its batches are wanted; all by default.
    """

    def __init__(self, order: _EpochOrder, size: int):
        self.order, self.size, self.first = order, size, 0
        self.of: Callable[[int], int] = lambda _number: len(self)

    def __len__(self) -> int:
        return len(self.order) // self.size

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        for number in count(self.first):
            self.order.epoch = number
            keys = iter(list(self.order))
            for _ in range(self.of(number)):
                yield list(islice(keys, self.size))


class _Patches(Dataset):
    """(epoch, position, case) -> image (C, d, h, w) float32, label (d, h, w) int64, maps, case.

    The maps, of stored teachers, are role -> (K, d, h, w) float32 probabilities.

    Args:
        labelled, others: numbered from 0 in this order; the label of the others decides nothing.
    """

    def __init__(
        self,
        cache: Cache,
        labelled: Sequence[CachedCase],
        others: Sequence[CachedCase],
        config: AugmentationConfig,
        window: tuple[int, int, int],
        seed: int,
        stored: Mapping[str, Maps] = EMPTY,
    ):
        self.stored = dict(stored)
        self.cache, self.cases, self.labelled = cache, [*labelled, *others], len(labelled)
        self.window, self.seed = window, seed
        self.foreground = config.foreground
        self.augmentation = Augmentation(config, window)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(
        self, key: tuple[int, int, int]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], int]:
        epoch, position, number = key
        random = np.random.default_rng((self.seed, epoch, position))
        case = self.cases[number]
        label = self.cache.label(case)
        start = self._start(label, random, self.foreground if number < self.labelled else 0.0)
        image, label = self._cut(self.cache.image(case), start), self._cut(label, start)
        kinds, maps = self._maps(case, start)
        image, label, maps = self.augmentation(image, label, maps, seed=int(random.integers(2**32)))
        if maps is None:
            return image, label, {}, number
        parts = zip(self.stored.items(), kinds, np.split(maps, len(kinds)), strict=True)
        said = {role: m.smoothed(part, hard) for (role, m), hard, part in parts}
        return image, label, said, number

    def _maps(self, case: CachedCase, start: np.ndarray) -> tuple[list[bool], np.ndarray | None]:
        """(of each role, whether its maps are hard; all on top of each other (R*K, …) or None)."""
        found = [self.cache.maps(case, maps) for maps in self.stored.values()]
        cut = [self._cut(maps, start) for _hard, maps in found]
        return [hard for hard, _maps in found], np.concatenate(cut) if cut else None

    def _start(
        self, label: np.ndarray, random: np.random.Generator, foreground: float
    ) -> np.ndarray:
        """Where the window begins: about a labelled voxel, or anywhere inside the image.

        Args:
            foreground: share of the windows about a labelled voxel.
        """
        room = np.maximum(np.array(label.shape) - self.window, 0)
        if room.any() and random.random() < foreground:
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
