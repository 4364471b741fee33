"""What a program must know about a model: the manifest of a package, as records.

Written once, on export, and read strictly: a field that is unknown, missing or impossible stops the
program with its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from DistillSegLib.labels import LabelTable
from DistillSegLib.postprocessing import Step
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.scope import Scope
from DistillSegLib.windows import Size, per_axis

FORMAT = 1
RESERVED = MANIFEST, CARD, CHECK, SUMS = (
    "manifest.json",
    "MODEL_CARD.md",
    "check.npz",
    "SHA256SUMS",
)
CHECK_EDGE = 64  # voxels
LARGEST = 2048  # voxels of a window along an axis

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")


@dataclass(frozen=True)
class Variant:
    """One form of the model, such as fp32.

    Attributes:
        name: unique in the package.
        file: its ONNX file in the package: one image (N, C, D, H, W) float32 in, logits out.
        stride: s; logits are (N, K, D/s, H/s, W/s).
        parameters: weights that were learnt.
        size_bytes: of the file.
        bytes_per_voxel: memory that one pass takes at its peak, per voxel of the network's input.
        engines: those that it is meant for and was tried with; none named: every one.
        tolerance: instead of the package's, where rounding differs from processor to processor.
    """

    name: str
    file: str
    stride: int
    parameters: int
    size_bytes: int
    bytes_per_voxel: float
    engines: tuple[str, ...] = ()
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if not PLAIN_NAME.fullmatch(self.file) or self.file in RESERVED:
            raise ValueError(f"the file name '{self.file}' is not a plain name such as model.onnx.")
        if not PLAIN_NAME.fullmatch(self.name):
            raise ValueError(f"the name '{self.name}' is not a plain name such as fp32.")
        if self.stride < 1 or self.size_bytes < 1 or not 0 < self.bytes_per_voxel < 1e9:
            raise ValueError("stride, size_bytes and bytes_per_voxel must be above zero.")
        if self.tolerance is not None and not (isfinite(self.tolerance) and self.tolerance > 0):
            raise ValueError(f"tolerance is {self.tolerance}; it must be above zero.")


@dataclass(frozen=True)
class TestScore:
    """One metric of one structure over the test cases; None where it is not finite.

    Attributes:
        metric: "dice", "hd95_mm", "nsd" …
        cases: how many cases the mean is over.
    """

    __test__ = False  # for pytest: no test, despite the name

    structure: str
    metric: str
    mean: float | None
    sd: float | None
    cases: int


@dataclass(frozen=True)
class TestResult:
    """Scores on cases that the model was not trained on, and which cases those are."""

    __test__ = False

    description: str
    cases: int
    tolerance_mm: float
    scores: tuple[TestScore, ...]


@dataclass(frozen=True)
class Manifest:
    """What a program must know about a model.

    Attributes:
        format: of the package; this library reads `FORMAT`.
        id: lower-case words joined by hyphens; version: such as "1.0.0".
        modality: "MR", "CT" …; channels: the images of a patient that it takes, in this order.
        window: (z, y, x) voxels that it was trained on; overlap: of windows, in [0, 1).
        multiple: input sizes must be divisible by this, and at least `minimum`; each one number for
            all axes or (z, y, x), as for slice-wise networks, whose depth is free.
        single_pass: whether a whole volume in one pass gives what windows give.
        halo: how far the network sees in voxels, one number for all axes or (z, y, x); None where
            each voxel depends on the whole image, or where it was not measured.
        tolerance: largest difference of any logit in check.npz between computers.
        temperature: of the softmax wherever a probability is shown; no label depends on it.
        recipe, provenance: how it was trained, on what, by whom; free-form.
    """

    format: int
    id: str
    version: str
    title: str
    description: str
    modality: str
    channels: tuple[str, ...]
    labels: LabelTable
    preprocessing: Preprocessing
    window: tuple[int, int, int]
    overlap: float
    multiple: Size
    minimum: Size
    single_pass: bool
    variants: tuple[Variant, ...]
    scope: Scope
    tolerance: float
    licence: str
    attribution: str
    intended_use: str
    halo: Size | None = None
    temperature: float = 1.0
    not_for: str = ""
    known_failures: str = ""
    citation: str = ""
    postprocessing: tuple[Step, ...] = ()
    test: TestResult | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ValueError(problem)

    @property
    def check_shape(self) -> tuple[int, ...]:
        """(d, h, w) of the window in check.npz."""
        return check_shape(self.window, multiple=self.multiple, minimum=self.minimum)

    @property
    def name(self) -> str:
        """Id and version, such as "hippocampus-fast-1.0.0"."""
        return f"{self.id}-{self.version}"

    @property
    def version_key(self) -> tuple[int, ...]:
        """The version for comparison: 1.10 is higher than 1.9."""
        return tuple(int(part) for part in self.version.split("."))

    def _problems(self) -> Iterator[str]:
        if self.format != FORMAT:
            yield f"the format is {self.format}; this DistillSeg writes format {FORMAT}."
        if not ID.fullmatch(self.id) or len(self.id) > 80:
            yield f"the id '{self.id}' is not made of lower-case words, digits and hyphens."
        if not VERSION.fullmatch(self.version):
            yield f"the version '{self.version}' is not made of numbers and dots, such as 1.0.0."
        channels = {
            "channels": len(self.channels),
            "preprocessing.intensity": len(self.preprocessing.intensity),
            "scope.intensity": len(self.scope.intensity),
        }
        if len(set(channels.values())) > 1 or not self.channels:
            yield f"the entries {channels} must be as many, one for each channel."
        if not len(self.labels):
            yield "the label table is empty; there is nothing to segment."
        names = [variant.name for variant in self.variants]
        files = [variant.file for variant in self.variants]
        if not names or len(set(names)) < len(names) or len(set(files)) < len(files):
            yield f"variants {names} in {files}: one or more are needed, each with its own file."
        if self.variants and self.variants[0].engines:
            yield f"'{names[0]}' is for some engines only; the first variant must run in every one."
        multiple = per_axis(self.multiple)
        strides = [variant.stride for variant in self.variants]
        if any(each < 1 or each % stride for each in multiple for stride in strides):
            yield f"multiple is {self.multiple}; each variant's stride must divide it."
        elif any(
            not max(least, 1) <= n <= LARGEST or n % each
            for n, each, least in zip(self.window, multiple, per_axis(self.minimum))
        ):
            yield (
                f"window is {self.window}; use multiples of {self.multiple} from "
                f"{self.minimum} to {LARGEST}."
            )
        if self.halo is not None and min(per_axis(self.halo)) < 0:
            yield f"halo is {self.halo}; use 0 or more."
        if not 0 <= self.overlap < 1:
            yield f"overlap is {self.overlap}; use 0 or more and less than 1."
        if not (isfinite(self.tolerance) and self.tolerance > 0):
            yield f"tolerance is {self.tolerance}; it must be above zero."
        if not (isfinite(self.temperature) and self.temperature > 0):
            yield f"temperature is {self.temperature}; it must be a number above zero."


def check_shape(window: Sequence[int], *, multiple: Size, minimum: Size) -> tuple[int, ...]:
    """What a check runs on: the window, but no edge beyond `CHECK_EDGE` where the network allows.

    The logits of 17 classes in a window of 128 x 128 x 128 voxels are 140 MB, the model may be 3.
    """
    return tuple(
        min(size, max(CHECK_EDGE // each, -(-least // each), 1) * each)
        for size, each, least in zip(window, per_axis(multiple), per_axis(minimum), strict=True)
    )
