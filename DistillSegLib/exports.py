"""Tables that go with a segmentation: its volumes, and what the values of a label map mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from DistillSegLib.files import write_text
from DistillSegLib.images import WRITABLE
from DistillSegLib.segmentations import Segmentation, volumes_by_value_ml, write_segmentation


def write_volumes(segmentation: Segmentation, path: Path | str) -> Path:
    """Write the volume of each structure as CSV; what was not found has 0 ml."""
    volumes = volumes_by_value_ml(segmentation.image)
    rows = [
        (label.value, label.name, f"{volumes.get(label.value, 0.0):.6g}")
        for label in segmentation.labels
    ]
    return _write(path, ("value", "structure", "volume_ml"), rows)


def write_label_map(segmentation: Segmentation, path: Path | str) -> tuple[Path, Path]:
    """Write a bare label map, such as NIfTI, and beside it what its values mean.

    The second file has the columns of Slicer's colour tables, so that Slicer reads it as one.

    Returns:
        The label map and the table, "name-labels.csv".
    """
    path = Path(path)
    ending = next((each for each in WRITABLE if path.name.lower().endswith(each)), path.suffix)
    table = path.with_name(path.name.removesuffix(ending) + "-labels.csv")
    write_segmentation(segmentation, path)
    head = ("LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A")
    background = (0, "Background", 0, 0, 0, 0)
    rows = [(label.value, label.name, *label.color, 255) for label in segmentation.labels]
    return path, _write(table, head, [background, *rows])


def _write(path: Path | str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    table.writerows(rows)
    return write_text(path, text.getvalue())
