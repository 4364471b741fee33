"""What each label value means: its name, its colour and its DICOM terminology.

A network's class index counts 0 (background), 1, 2, …; the value in a file need not. A `LabelTable`
translates, so that a data set's own values survive training, inference and export.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Colours for tables that bring none: told apart also by colour-blind people (Okabe and Ito 2008),
# without black and without the yellow that vanishes on white.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (0, 114, 178),
    (204, 121, 167),
)

Color = tuple[int, int, int]
Code = tuple[str, str, str]  # scheme, value, meaning: ("SCT", "5366008", "Hippocampus")

ANATOMICAL_STRUCTURE: Code = ("SCT", "123037004", "Anatomical Structure")


def terminology_entry(
    type_: Code, *, modifier: Code | None = None, category: Code = ANATOMICAL_STRUCTURE
) -> str:
    """A Slicer terminology string, seven fields joined by `~`, each code `scheme^value^meaning`.

    Codes are SNOMED CT as DICOM PS3.16 uses them (for example CID 7140, brain structures).
    """
    code = "^".join
    return "~".join(
        (
            "Segmentation category and type - DICOM master list",
            code(category),
            code(type_),
            code(modifier or ("", "", "")),
            "Anatomic codes - DICOM master list",
            code(("", "", "")),
            code(("", "", "")),
        )
    )


@dataclass(frozen=True)
class Label:
    """One structure.

    Attributes:
        value: voxel value in label maps, 1 or more.
        name: as people read it.
        color: red, green, blue, each 0 to 255.
        terminology: Slicer terminology string (see `terminology_entry`), or empty.
    """

    value: int
    name: str
    color: Color
    terminology: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.value <= 65535:
            raise ValueError(f"label '{self.name}' has the value {self.value}; use 1 to 65535.")
        if len(self.color) != 3 or any(not 0 <= part <= 255 for part in self.color):
            raise ValueError(
                f"label '{self.name}' has the colour {self.color}; use three of 0 to 255."
            )


@dataclass(frozen=True)
class LabelTable:
    """The structures of a segmentation, by ascending value; background (0) is implied."""

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        values = [label.value for label in self.labels]
        if values != sorted(set(values)):
            raise ValueError(f"label values must ascend without repetition, found {values}.")

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """K: the labels and the background."""
        return len(self.labels) + 1

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest type that holds every value."""
        return np.uint8 if not self.labels or self.labels[-1].value < 256 else np.uint16

    @property
    def values(self) -> NDArray[np.unsignedinteger]:
        """(K,) the label value of each class; 0 for the background."""
        return np.array([0, *(label.value for label in self.labels)], dtype=self.dtype)

    def decode(self, classes: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
        """Class indices 0 … K-1 -> label values."""
        return self.values[classes]

    def encode(self, values: NDArray) -> NDArray[np.uint8 | np.uint16]:
        """Label values, of any type -> class indices 0 … K-1.

        Raises ValueError for a value that is not in the table.
        """
        known = np.array([0, *(label.value for label in self.labels)])
        found = np.unique(values)
        strange = np.setdiff1d(found, known)
        if strange.size:
            raise ValueError(
                f"the label map holds the values {strange[:5].tolist()}, which the label table "
                f"({known.tolist()}) does not know."
            )
        index = np.zeros(int(known.max()) + 1, dtype=self.dtype)
        index[known] = np.arange(len(known))
        return index[values if values.dtype.kind in "iu" else values.astype(np.intp)]


def label_table(names: dict[int, str]) -> LabelTable:
    """A table from {value: name}, colours from `PALETTE`; value 0 is skipped."""
    items = sorted((value, name) for value, name in names.items() if value != 0)
    return LabelTable(
        tuple(
            Label(value, name, PALETTE[i % len(PALETTE)]) for i, (value, name) in enumerate(items)
        )
    )
