"""Segmentations in files: what 3D Slicer opens with names, colours and terminology, and label maps.

A `.seg.nrrd` file is a label map whose header says, for each segment, its value, name, colour and
tags. Slicer stores segments that overlap in several layers, one behind the other in each voxel, and
may crop the file to the segments; both are read.

The header's fields: Slicer's developer guide, "Segmentations", and vtkMRMLSegmentationStorageNode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.errors import GeometryError, ImageError
from DistillSegLib.geometry import check_image, voxel_ml
from DistillSegLib.images import read_file, refuse_image, write_image
from DistillSegLib.labels import PALETTE, Label, LabelTable, label_table
from DistillSegLib.runs import counts_by_value

_REFERENCE = "Reference image geometry"


@dataclass(frozen=True)
class Segmentation:
    """Structures on the grid of an image.

    Attributes:
        image: (z, y, x) label values as `labels` says, 0 elsewhere; on the exact input grid.
        source: the package or file it comes from.
        seconds: time by stage, if it was computed.
        warnings: what a reader should know before using it, as sentences.
        confidence: by label value, how sure the network was of the structure, 0 to 1 (see
            `confidence.mean_by_class`); none for what was not found, or not computed here.
        confidence_map: how sure it was of each voxel, on the same grid, if that was asked for.
    """

    image: sitk.Image
    labels: LabelTable
    source: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    confidence: dict[int, float] = field(default_factory=dict)
    confidence_map: sitk.Image | None = None


def volumes_ml(segmentation: Segmentation) -> dict[str, float]:
    """The volume of each structure, by name and in the table's order."""
    volumes = volumes_by_value_ml(segmentation.image)
    return {label.name: volumes.get(label.value, 0.0) for label in segmentation.labels}


def volumes_by_value_ml(labelmap: sitk.Image) -> dict[int, float]:
    """The volume of each value in a label map, in ml; names may repeat, values do not."""
    one = voxel_ml(labelmap)
    counts = counts_by_value(sitk.GetArrayViewFromImage(labelmap))
    return {int(value): int(counts[value]) * one for value in np.flatnonzero(counts)}


def relabelled(segmentation: Segmentation, values: Sequence[int]) -> Segmentation:
    """The same structures with other label values.

    Args:
        values: one for each label, in the table's order; 1 to 65535, none twice.
    """
    labels = [replace(label, value=new) for label, new in zip(segmentation.labels, values)]
    table = LabelTable(tuple(sorted(labels, key=lambda label: label.value)))
    voxels = sitk.GetArrayViewFromImage(segmentation.image)
    new = np.zeros(max([0, *(label.value for label in segmentation.labels)]) + 1, table.dtype)
    for label, value in zip(segmentation.labels, values):
        new[label.value] = value
    image = sitk.GetImageFromArray(new[voxels])
    image.CopyInformation(segmentation.image)
    return replace(segmentation, image=image, labels=table)


def write_segmentation(
    segmentation: Segmentation,
    path: Path | str,
    *,
    tags: Mapping[int, Mapping[str, str]] | None = None,
) -> Path:
    """Write a segmentation as `.seg.nrrd`, or as a bare label map (any other of `WRITABLE`).

    The file is on the exact grid of the segmentation's image, compressed, and whole or absent.

    Args:
        tags: for `.seg.nrrd`, further tags of the segments by label value, such as
            {1: {"Segmentation.Status": "completed"}}.
    """
    found = np.flatnonzero(counts_by_value(sitk.GetArrayViewFromImage(segmentation.image)))
    strange = sorted(set(found.tolist()) - {0} - {label.value for label in segmentation.labels})
    if strange:
        raise ImageError(
            f"'{path}' was not written: the label map holds the values {strange[:5]}, which its "
            "label table does not name; add them to the table."
        )
    pixel = sitk.sitkUInt8 if segmentation.labels.dtype is np.uint8 else sitk.sitkUInt16
    image = sitk.Cast(segmentation.image, pixel)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    if Path(path).name.lower().endswith(".seg.nrrd"):
        for key, value in _slicer_header(image, segmentation.labels, tags or {}).items():
            image.SetMetaData(key, value)
    return write_image(image, path)


def read_segmentation(path: Path | str, labels: LabelTable | None = None) -> Segmentation:
    """Read a `.seg.nrrd` file, also one saved by Slicer, or a bare label map.

    Segments that share voxels are flattened: the later one in the file keeps them, and a warning
    says how many. A file cropped to its segments is given back its reference grid.

    Args:
        labels: what the values of a bare label map mean. Without it the values found are
            named "Label 1" and so on. A `.seg.nrrd` file brings its own.

    Raises:
        ImageError: a file that cannot be read, or that holds no whole numbers from 0 to 65535, or
            values that `labels` does not know.
    """
    image = read_file(path)
    if image.HasMetaDataKey("Segment0_ID"):
        return _from_segments(image, path)
    return _from_label_map(image, path, labels)


def _slicer_header(
    image: sitk.Image, labels: LabelTable, further: Mapping[int, Mapping[str, str]]
) -> dict[str, str]:
    extent = " ".join(f"0 {n - 1}" for n in image.GetSize())
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": f"{_REFERENCE}|{_geometry_text(image)}|&",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for index, label in enumerate(labels):
        terminology = {"TerminologyEntry": label.terminology} if label.terminology else {}
        tags = {**further.get(label.value, {}), **terminology}
        segment = {
            "Color": " ".join(f"{part / 255:.6g}" for part in label.color),
            "ColorAutoGenerated": "0",
            "Extent": extent,
            "ID": f"Segment_{label.value}",
            "LabelValue": str(label.value),
            "Layer": "0",
            "Name": label.name,
            "NameAutoGenerated": "0",
            "Tags": "".join(f"{name}:{_in_a_tag(value)}|" for name, value in tags.items()),
        }
        header |= {f"Segment{index}_{key}": value for key, value in segment.items()}
    return header


def _in_a_tag(value: str) -> str:
    """A tag's value without the sign that ends it, and in one line."""
    return " ".join(value.replace("|", "/").split())


def _geometry_text(image: sitk.Image) -> str:
    """A grid as Slicer writes it: index to RAS, 16 numbers by row, then first and last indices."""
    extent = (number for n in image.GetSize() for number in (0, n - 1))
    numbers = [*_index_to_ras(image).ravel(), *extent]
    return "".join(f"{number:.17g};" for number in numbers)


def _index_to_ras(image: sitk.Image) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix + 0.0  # + 0.0: no minus before a zero


def _from_segments(image: sitk.Image, path: Path | str) -> Segmentation:
    voxels = sitk.GetArrayFromImage(image)
    layers = voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0)  # (L, D, H, W)
    _check_label_values(layers, path)
    segments = _segments(image, path, len(layers))
    merged = np.zeros(layers.shape[1:], LabelTable(tuple(s.label for s in segments)).dtype)
    shared = 0
    for number, layer in enumerate(layers):
        # Values of the file -> our values; values without a segment are background.
        values = np.zeros(int(layer.max()) + 1, merged.dtype)
        for segment in segments:
            if segment.layer == number and segment.value < len(values):
                values[segment.value] = segment.label.value
        own = values[layer]
        shared += np.count_nonzero((merged != 0) & (own != 0))
        np.copyto(merged, own, where=own != 0)
    warnings = ()
    if shared:
        warnings = (
            f"{shared} voxels of '{path}' belong to more than one segment; the later one keeps "
            "them.",
        )
    result = sitk.GetImageFromArray(merged)
    result.SetOrigin(image.GetOrigin())
    result.SetSpacing(image.GetSpacing())
    result.SetDirection(image.GetDirection())
    labels = LabelTable(tuple(segment.label for segment in segments))
    return Segmentation(_uncropped(result, image), labels, source=str(path), warnings=warnings)


@dataclass(frozen=True)
class _Segment:
    """A segment of a file: where it is stored, and the label that it becomes."""

    layer: int
    value: int
    label: Label


def _segments(image: sitk.Image, path: Path | str, layers: int) -> list[_Segment]:
    """The header's segments. Values are kept if no two share one, else counted from 1."""
    stored = []
    while image.HasMetaDataKey(f"Segment{len(stored)}_ID"):
        index = len(stored)
        layer = _whole_number(image, f"Segment{index}_Layer", index, path)
        value = _whole_number(image, f"Segment{index}_LabelValue", 1, path)
        if not 0 <= layer < layers or not 1 <= value <= 65535:
            raise ImageError(
                f"'{path}' places segment {index} in layer {layer} with the value {value}, but has "
                f"{layers} layers and values from 1; save it again in 3D Slicer."
            )
        stored.append((layer, value))
    kept = len({value for _, value in stored}) == len(stored)
    found = []
    for index, (layer, value) in enumerate(stored):
        number = value if kept else index + 1
        found.append(_Segment(layer, value, _label(image, index, number)))
    return sorted(found, key=lambda segment: segment.label.value)


def _label(image: sitk.Image, index: int, value: int) -> Label:
    tags = dict(
        part.partition(":")[::2] for part in _field(image, f"Segment{index}_Tags").split("|")
    )
    try:
        parts = [float(part) for part in _field(image, f"Segment{index}_Color").split()]
        red, green, blue = (min(255, max(0, round(255 * part))) for part in parts)
        color = (red, green, blue)
    except ValueError:  # absent or not three numbers
        color = PALETTE[index % len(PALETTE)]
    name = _field(image, f"Segment{index}_Name") or _field(image, f"Segment{index}_ID")
    return Label(value, name, color, tags.get("TerminologyEntry", ""))


def _field(image: sitk.Image, key: str) -> str:
    return image.GetMetaData(key) if image.HasMetaDataKey(key) else ""


def _whole_number(image: sitk.Image, key: str, default: int, path: Path | str) -> int:
    text = _field(image, key) or str(default)
    try:
        return int(text)
    except ValueError:
        raise ImageError(
            f"'{path}' has '{text}' as its {key}, where a whole number is needed; save it again in "
            "3D Slicer."
        ) from None


def _uncropped(result: sitk.Image, header: sitk.Image) -> sitk.Image:
    """Pad a cropped file with background to the reference grid that its header tells of.

    Voxels beyond the reference grid are kept, and a header without a fitting grid changes nothing.
    """
    parameters = _field(header, "Segmentation_ConversionParameters").split("&")
    fields = (part.split("|") for part in parameters)
    texts = [values[1] for values in fields if values[0] == _REFERENCE and len(values) > 1]
    offset = _field(header, "Segmentation_ReferenceImageExtentOffset").split()
    try:
        numbers = np.array([float(number) for number in texts[0].split(";") if number.strip()])
        start = np.array([int(number) for number in offset])
        matrix, extent = numbers[:16].reshape(4, 4), numbers[16:].astype(int).reshape(3, 2)
    except (IndexError, ValueError):
        return result
    here = _index_to_ras(result)
    if start.shape != (3,) or not np.allclose(matrix[:3, :3], here[:3, :3], atol=1e-4):
        return result
    if not np.allclose(matrix[:3] @ [*start, 1], here[:3, 3], atol=1e-3):
        return result
    before = np.maximum(0, start - extent[:, 0])
    after = np.maximum(0, extent[:, 1] + 1 - start - result.GetSize())
    return sitk.ConstantPad(result, before.tolist(), after.tolist(), 0)


def _from_label_map(image: sitk.Image, path: Path | str, labels: LabelTable | None) -> Segmentation:
    try:
        check_image(image)
    except (ImageError, GeometryError) as problem:
        raise ImageError(f"'{path}': {problem}") from problem
    voxels = sitk.GetArrayViewFromImage(image)
    _check_label_values(voxels, path)
    image = sitk.Cast(image, sitk.sitkUInt16)
    found = np.flatnonzero(counts_by_value(sitk.GetArrayViewFromImage(image)))
    found = [int(value) for value in found if value]
    if len(found) > 32:
        refuse_image(image, str(path))
    if labels is None:
        labels = label_table({value: f"Label {value}" for value in found})
    strange = sorted(set(found) - {label.value for label in labels})
    if strange:
        raise ImageError(
            f"'{path}' holds the values {strange[:5]}, which the label table "
            f"({[label.value for label in labels]}) does not know; give the table that it was made "
            "with."
        )
    if labels.dtype is np.uint8:
        image = sitk.Cast(image, sitk.sitkUInt8)
    return Segmentation(image, labels, source=str(path))


def _check_label_values(voxels: NDArray, path: Path | str) -> None:
    """Refuse values that are not whole numbers from 0 to 65535."""
    low, high = voxels.min(), voxels.max()
    whole = voxels.dtype.kind in "iu" or bool(np.all(voxels == np.round(voxels)))
    if not (whole and low >= 0 and high <= 65535):
        raise ImageError(
            f"'{path}' is not a label map: its values go from {low:g} to {high:g}"
            f"{'' if whole else ' and are not whole numbers'}, where whole numbers from 0 to 65535 "
            "are needed."
        )
