"""How long a segmentation will take on this computer, and how much memory, said before it runs.

Time is proportional to voxels: the network's to those it is shown, the rest to those of the image.
The air around a patient in a CT counts as shown (see `body`): what is said is then the most.
The two factors are taken from the last run of the same model on this computer and kept in the
user's folder; before the first run they are guessed from what the network holds in memory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, prod
from pathlib import Path

import numpy as np

from DistillSegLib.errors import DistillSegError
from DistillSegLib.files import write_text
from DistillSegLib.machine import free_memory_bytes
from DistillSegLib.manifest import Manifest, Variant
from DistillSegLib.passes import SHARE_OF_MEMORY, plan_passes
from DistillSegLib.places import user_folder
from DistillSegLib.records import from_dict, to_dict

log = logging.getLogger(__name__)

SECONDS_PER_BYTE = 6e-9  # of the network, before the first run: one thread of a server of 2020
SECONDS_PER_VOXEL = 3e-8  # of all else


@dataclass(frozen=True)
class Speed:
    """Seconds for each voxel, as the last run took them.

    Attributes:
        network: for each voxel that passes through the network, padding and overlap included.
        rest: for each voxel of the image, before and after the network.
    """

    network: float
    rest: float

    def __post_init__(self) -> None:
        if not all(isfinite(each) and each >= 0 for each in (self.network, self.rest)):
            raise ValueError(f"speeds must not be negative, found {self.network}, {self.rest}.")


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: in all.
        network_seconds: of them in the network, where a single pass tells no progress.
        memory_bytes: at its peak, beside the image itself.
        free_bytes: what the computer has now.
        single_pass: whether the volume goes through the network at once.
        measured: whether a run of this model on this computer gave the speed.
    """

    seconds: float
    network_seconds: float
    memory_bytes: int
    free_bytes: int
    single_pass: bool
    measured: bool

    @property
    def fits(self) -> bool:
        """Whether the memory that is free now is enough."""
        return self.memory_bytes <= self.free_bytes


def estimate(
    manifest: Manifest,
    variant: Variant,
    *,
    size_mm: Sequence[float],
    voxels: int,
    speed: Speed | None = None,
    memory_bytes: int | None = None,
) -> Estimate:
    """Time and memory for one image.

    Args:
        size_mm: (z, y, x) of what the network is shown, the image or a region of it.
        voxels: of the whole image, on which the result lies.
        speed: as measured; None before the first run.
        memory_bytes: what the network may take, as for `Segmenter`.
    """
    free = free_memory_bytes()
    shape = _shape(manifest, size_mm)
    passes = plan_passes(manifest, variant, shape, memory_bytes or SHARE_OF_MEMORY * free)
    guess = Speed(SECONDS_PER_BYTE * variant.bytes_per_voxel, SECONDS_PER_VOXEL)
    used = speed or guess
    network = used.network * passes.voxels
    # The channels, oriented and scaled, and the padded array; the label map and SimpleITK's copy.
    prepared = 8 * prod(shape) * len(manifest.channels)
    labels = 2 * voxels * np.dtype(manifest.labels.dtype).itemsize
    return Estimate(
        seconds=network + used.rest * voxels,
        network_seconds=network,
        memory_bytes=passes.memory_bytes + prepared + labels,
        free_bytes=free,
        single_pass=passes.kind == "whole",
        measured=speed is not None,
    )


def speed_of_run(
    manifest: Manifest,
    variant: Variant,
    *,
    size_mm: Sequence[float],
    voxels: int,
    seconds: Mapping[str, float],
    memory_bytes: int | None = None,
) -> Speed:
    """What a run, described as for `estimate`, says about this computer.

    Args:
        seconds: by stage, as `Segmentation.seconds` gives them.
    """
    memory = memory_bytes or SHARE_OF_MEMORY * free_memory_bytes()
    passes = plan_passes(manifest, variant, _shape(manifest, size_mm), memory)
    rest = sum(value for stage, value in seconds.items() if stage != "network")
    return Speed(seconds.get("network", 0.0) / passes.voxels, rest / max(voxels, 1))


def known_speed(name: str, engine: str = "onnxruntime") -> Speed | None:
    """The speed of the last run of a package ("id-version") here; None before the first."""
    entry = _known().get(f"{name} {engine}")
    try:
        return from_dict(Speed, entry, error=DistillSegError) if entry is not None else None
    except DistillSegError:
        return None


def keep_speed(speed: Speed, name: str, engine: str = "onnxruntime") -> None:
    """Remember a speed for the next estimate; a folder that refuses costs one line of log."""
    known = _known() | {f"{name} {engine}": to_dict(speed)}
    try:
        write_text(_path(), json.dumps(known, indent=1))
    except DistillSegError as problem:
        log.warning("The speed of '%s' is not kept: %s", name, problem)


def _shape(manifest: Manifest, size_mm: Sequence[float]) -> tuple[int, ...]:
    """(z, y, x) of the network's input."""
    spacing = manifest.preprocessing.spacing_mm
    return tuple(max(1, ceil(size / each)) for size, each in zip(size_mm, spacing, strict=True))


def _path() -> Path:
    return user_folder() / "speed.json"


def _known() -> dict:
    try:
        found = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
