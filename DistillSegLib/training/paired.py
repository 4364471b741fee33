"""Batches of several modalities: an equal share of each, of patients that need not be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from DistillSegLib.distill.views import EMPTY, Batch
from DistillSegLib.training.cache import Cache
from DistillSegLib.training.patches import EVERYONE, PatchLoader, cases_of, worker_count
from DistillSegLib.training.recipe import AugmentationConfig, SplitConfig
from DistillSegLib.training.seeds import mixed


def patch_loader(
    caches: Mapping[str, Cache], augmentation: AugmentationConfig, **settings: Any
) -> PatchLoader | PairedLoader:
    """The batches of one data set, or of several together; settings as `PatchLoader` takes them."""
    if len(caches) == 1:
        return PatchLoader(*caches.values(), augmentation, **settings)
    return PairedLoader(list(caches.values()), augmentation, **settings)


class PairedLoader:
    """Batches of an epoch, 1/n of each from each of n domains, samples of a domain side by side.

    An epoch has as many batches as the largest data set gives: there, every training case comes
    once. The others begin anew, in another order, as often as that takes. What a batch holds
    depends on (seed, epoch, position) alone, as in `PatchLoader`.

    Args:
        caches: one for each domain, in the order of the networks' domains.
        batch: patches per step, of all domains together; a share is no larger than what the
            smallest data set deals out in an epoch.
        workers: processes for all domains together; -1 chooses by the machine.
        split: which cases of each data set count as labelled, and what becomes of the rest.
        settings: of each `PatchLoader`: window, ranks and so on.
    """

    def __init__(
        self,
        caches: Sequence[Cache],
        augmentation: AugmentationConfig,
        *,
        batch: int,
        seed: int,
        workers: int = -1,
        split: SplitConfig = EVERYONE,
        ranks: int = 1,
        **settings: Any,
    ):
        smallest = min(sum(map(len, cases_of(cache, split))) for cache in caches) // ranks
        share = max(min(batch // len(caches), smallest), 1)
        if workers := worker_count(workers):
            workers = max(workers // len(caches), 1)
        self.loaders = [
            PatchLoader(
                cache,
                augmentation,
                batch=share,
                seed=mixed(seed, number),  # so that the domains are not varied alike
                workers=workers,
                split=split,
                ranks=ranks,
                **settings,
            )
            for number, cache in enumerate(caches)
        ]
        for loader in self.loaders:
            loader.batches.of = partial(self._share, loader)

    def __len__(self) -> int:
        return max(map(len, self.loaders))

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`."""
        parts = [self._repeated(loader, number) for loader in self.loaders]
        for batches in zip(*parts, strict=True):
            yield _together(batches)

    def close(self) -> None:
        """Fetch nothing more ahead; another epoch begins anew."""
        for loader in self.loaders:
            loader.close()

    def _repeated(self, loader: PatchLoader, number: int) -> Iterator[Batch]:
        """As many batches as an epoch has: passes of the loader, none of them twice in a run."""
        passes = self._passes(loader)
        for turn in range(passes):
            yield from loader.epoch(number * passes + turn)

    def _passes(self, loader: PatchLoader) -> int:
        return -(-len(self) // len(loader))

    def _share(self, loader: PatchLoader, turn: int) -> int:
        """How many batches of a pass are wanted: all, but of the last what is left of the epoch."""
        done = turn % self._passes(loader) * len(loader)
        return min(len(loader), len(self) - done)


def _together(batches: Sequence[Batch]) -> Batch:
    sizes = torch.tensor([len(batch.image) for batch in batches])
    stored = {
        role: torch.cat([batch.stored[role] for batch in batches]) for role in batches[0].stored
    }
    return Batch(
        image=torch.cat([batch.image for batch in batches]),
        label=torch.cat([batch.label for batch in batches]),
        domain=torch.arange(len(batches)).repeat_interleave(sizes),
        stored=stored or EMPTY,
        labelled=_labelled(batches),
    )


def _labelled(batches: Sequence[Batch]) -> torch.Tensor | None:
    """(B,) bool; None where all are. A domain may be labelled throughout, and another not."""
    if all(batch.labelled is None for batch in batches):
        return None
    known = [torch.ones(len(batch.image), dtype=torch.bool) for batch in batches]
    return torch.cat(
        [all_ if batch.labelled is None else batch.labelled for batch, all_ in zip(batches, known)]
    )
