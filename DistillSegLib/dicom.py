"""DICOM series as volumes: the right series, its slices in order, nothing missing.

Slices are ordered by their position in the patient, never by file name or instance number. A
volume has parallel slices at equal steps along their normal. If a missing slice, a tilted gantry
or a second phase were read as such a volume, everything behind it would be drawn in the wrong
place, so each is named and refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DistillSegLib.errors import ImageError
from DistillSegLib.quiet import quiet

# Steps between slices may differ by this share of the usual step; headers are rounded.
_UNEVEN = 0.05
# The stack may lean by this much: the tangent of a third of a degree.
_LEAN = 0.006
# Tags as bytes of a little-endian file.
_SERIES_UID, _POSITION, _VOXELS = b"\x20\x00\x0e\x00", b"\x20\x00\x32\x00", b"\xe0\x7f\x10\x00"
# Modalities of what was drawn or computed on a scan.
_DRAWN = ("SEG", "RTDOSE")
# Storage classes of single images: a damaged file of one of these is a lost slice. CT, MR, PET,
# secondary capture.
_IMAGE_CLASSES = tuple(
    b"1.2.840.10008.5.1.4.1.1." + end for end in (b"2\0", b"4\0", b"128\0", b"7\0")
)


@dataclass(frozen=True)
class Slice:
    """One file of a series. Positions and directions are LPS, in mm.

    Attributes:
        orientation: the directions along a row and along a column, six numbers.
        spacing_mm: between rows and between columns, (y, x).
        instance: the file's own identity, the same in every copy of it.
    """

    path: Path
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    size: tuple[int, int]
    instance: str
    rescaled: bool

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True)
class Series:
    """The slices of one DICOM series, in no particular order."""

    uid: str
    description: str
    modality: str
    localizer: bool
    frames: int
    slices: tuple[Slice, ...]

    def __str__(self) -> str:
        count = self.frames if self.frames > 1 else len(self.slices)
        slices = f"{count} slice" + "s" * (count != 1)
        return f"'{self.description or 'no description'}' ({self.modality}, {slices}, {self.uid})"

    @cached_property
    def is_volume(self) -> bool:
        """Whether this may be a scan: more than one parallel slice with a place, no scout view."""
        if self.localizer or self.modality in _DRAWN:
            return False
        placed = all(s.position_mm and s.orientation for s in self.slices)
        parallel = placed and len({np.round(s.normal, 2).tobytes() for s in self.slices}) == 1
        several = len({s.position_mm for s in self.slices}) > 1
        return (parallel and several) or self.frames > 1


def is_dicom(path: Path) -> bool:
    """Whether the file bears DICOM's mark."""
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def series_in(folder: Path | str) -> list[Series]:
    """The series with images in a folder and the folders below it, sorted by UID.

    Other files, and DICOM files without an image, are passed over.
    """
    return _scan(Path(folder))[0]


def read_series(folder: Path | str, series: str | None = None) -> sitk.Image:
    """The volume of one series, its slices sorted by position, values rescaled (CT: HU).

    Without `series` the folder must hold one volume; scout views and single pictures beside it are
    passed over. The image carries its modality, description and series UID as metadata
    "0008|0060", "0008|103e" and "0020|000e".

    Args:
        series: UID, description, or number in the list that the error message shows, from 1.

    Raises:
        ImageError: no series, several, or one with a gap, a tilt, slices at the same place, uneven
            steps, different spacings, orientations or sizes, or a damaged file.
    """
    folder = Path(folder)
    found, damaged = _scan(folder)
    if not found:
        what = f" ('{damaged[0].name}' is damaged)" if damaged else ""
        raise ImageError(
            f"'{folder}' holds no DICOM images{what}; give the folder of a series or an image file."
        )
    chosen = _choose(folder, found, series)
    _refuse_damaged(chosen, damaged)
    _refuse_drawn(chosen)
    if chosen.frames > 1:
        return _read_frames(chosen)
    return _read_slices(chosen, _sorted(chosen))


def read_file(path: Path | str) -> sitk.Image:
    """One DICOM file: a picture of several frames, or one slice that has no others beside it."""
    path = Path(path)
    own = _read_header(path)
    if own is None:
        raise ImageError(
            f"'{path}' is a DICOM file without a readable image (a report, a plan, or damaged); "
            "give an image or the folder of a series."
        )
    series = _gather([own])[0]
    _refuse_drawn(series)
    if series.frames > 1:
        return _read_frames(series)
    folder = {s.uid: s for s in series_in(path.parent)}
    beside = len(folder[series.uid].slices) if series.uid in folder else 1
    if beside > 1:
        raise ImageError(
            f"'{path}' is one of {beside} slices of a series; give its folder '{path.parent}'."
        )
    return _read_slices(series, list(series.slices))


def _scan(folder: Path) -> tuple[list[Series], list[Path]]:
    """The series below a folder, and the files that should be images but cannot be read."""
    headers, damaged = [], []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(parent, name) for name in sorted(names)):
            if not is_dicom(path):
                continue
            header = _read_header(path)
            if header is not None:
                headers.append(header)
            elif _is_image_class(path):
                damaged.append(path)
    return _gather(headers), damaged


def _read_header(path: Path) -> tuple[dict[str, str], Slice] | None:
    """The tags of a file and its slice; None where GDCM finds no image."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet():
            reader.ReadImageInformation()
    except RuntimeError:
        return None
    tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    return tags, Slice(
        path=path,
        position_mm=_numbers(tags, "0020|0032", 3),
        orientation=_numbers(tags, "0020|0037", 6),
        spacing_mm=_numbers(tags, "0028|0030", 2),
        size=tuple(reader.GetSize()[:2]),
        instance=tags.get("0008|0018", ""),
        rescaled=(_numbers(tags, "0028|1053", 1) or (1.0,)) != (1.0,),
    )


def _numbers(tags: dict[str, str], key: str, count: int) -> tuple[float, ...]:
    """The numbers of a tag; empty where it is absent or is not that many finite numbers."""
    try:
        numbers = tuple(float(part) for part in tags.get(key, "").split("\\"))
    except ValueError:
        return ()
    return numbers if len(numbers) == count and np.all(np.isfinite(numbers)) else ()


def _gather(headers: list[tuple[dict[str, str], Slice]]) -> list[Series]:
    groups: dict[str, list] = {}
    for tags, one in headers:
        groups.setdefault(tags.get("0020|000e", ""), []).append((tags, one))
    found = []
    for uid, members in sorted(groups.items()):
        tags = members[0][0]
        # A file may lie twice in a folder under two names; its identity and place tell.
        unique = {(one.instance or one.path, one.position_mm): one for _, one in reversed(members)}
        found.append(
            Series(
                uid=uid or "no UID",
                description=tags.get("0008|103e", ""),
                modality=tags.get("0008|0060", "unknown modality"),
                localizer="LOCALIZER" in tags.get("0008|0008", "").upper(),
                frames=max(int((_numbers(t, "0028|0008", 1) or (1,))[0]) for t, _ in members),
                slices=tuple(reversed(unique.values())),
            )
        )
    return found


def _is_image_class(path: Path) -> bool:
    with open(path, "rb") as stream:
        head = stream.read(1024)
    return any(name in head for name in _IMAGE_CLASSES)


def _choose(folder: Path, found: list[Series], wanted: str | None) -> Series:
    listing = "; ".join(f"{n}. {one}" for n, one in enumerate(found, 1))
    if wanted is not None:
        fitting = [one for one in found if wanted in (one.uid, one.description)]
        if not fitting and wanted.isdecimal() and 1 <= int(wanted) <= len(found):
            fitting = [found[int(wanted) - 1]]
        if len(fitting) == 1:
            return fitting[0]
        what = "no series" if not fitting else f"{len(fitting)} series"
        raise ImageError(f"'{folder}' holds {what} '{wanted}'; name one of: {listing}.")
    volumes = [one for one in found if one.is_volume] or found
    if len(volumes) == 1:
        return volumes[0]
    raise ImageError(
        f"'{folder}' holds {len(volumes)} series that may be meant; name one by its number, UID or "
        f"description: {listing}."
    )


def _refuse_damaged(series: Series, damaged: list[Path]) -> None:
    """Stop at a file of this series, or of none that it still names, that cannot be read."""
    for path in damaged:
        named = _raw_values(path, _SERIES_UID)
        if not named or series.uid in named:
            raise ImageError(
                f"Series {series} has a damaged slice, '{path.name}'; copy the series again."
            )


def _refuse_drawn(series: Series) -> None:
    if series.modality in _DRAWN:
        raise ImageError(
            f"Series {series} is no scan, but what was drawn or computed on one; give the scan."
        )


def _sorted(series: Series) -> list[Slice]:
    """The slices by position along their normal, after checking that they fill a box evenly."""
    slices = list(series.slices)
    first = slices[0]
    if any(not (s.position_mm and s.orientation and s.spacing_mm) for s in slices):
        if len(slices) == 1:
            return slices
        raise _refusal(series, "its slices do not say where they lie (no position or spacing)")
    for what, values in (
        ("sizes", {s.size for s in slices}),
        ("pixel spacings", {tuple(np.round(s.spacing_mm, 4).tolist()) for s in slices}),
        ("orientations", {tuple(np.round(s.orientation, 3).tolist()) for s in slices}),
    ):
        if len(values) > 1:
            shown = " and ".join(str(v) for v in sorted(values)[:2])
            raise _refusal(series, f"its slices have {len(values)} {what} ({shown})")
    if not all(s > 0 for s in first.spacing_mm) or np.linalg.norm(first.normal) < 0.99:
        raise _refusal(
            series, f"its spacing {first.spacing_mm} mm or orientation {first.orientation} is void"
        )
    slices.sort(key=lambda s: float(np.dot(s.position_mm, first.normal)))
    _check_steps(series, slices)
    return slices


def _check_steps(series: Series, slices: list[Slice]) -> None:
    if len(slices) == 1:
        return
    positions = np.array([s.position_mm for s in slices])
    heights = positions @ slices[0].normal
    steps = np.diff(heights)
    usual = float(np.median(steps))
    same = int(np.count_nonzero(steps < max(1e-3, _UNEVEN * usual)))
    if same:
        raise _refusal(
            series,
            f"{same} of its {len(slices)} slices lie where another one lies; it holds several "
            "phases, echoes or copies",
            "Keep one of them in a folder of its own",
        )
    widest = int(np.argmax(steps))
    between = f"between {heights[widest]:.2f} and {heights[widest + 1]:.2f} mm"
    if steps[widest] > 1.5 * usual:
        missing = round(float(np.sum(np.round(steps / usual) - 1)))
        raise _refusal(
            series,
            f"{missing} slice{'s' * (missing != 1)} missing: the widest gap is {between} (usual "
            f"step {usual:.3g} mm)",
            "Copy the series again",
        )
    if np.any(np.abs(steps - usual) > _UNEVEN * usual):
        raise _refusal(
            series, f"its slices are {steps.min():.3g} to {steps.max():.3g} mm apart, not evenly"
        )
    rise = heights[-1] - heights[0]
    drift = positions[-1] - positions[0] - rise * slices[0].normal
    lean = float(np.linalg.norm(drift)) / rise
    if lean > _LEAN:
        degrees = np.degrees(np.arctan(lean))
        raise _refusal(series, f"its stack leans by {degrees:.1f} degrees (a tilted gantry)")


def _refusal(series: Series, what: str, remedy: str = "") -> ImageError:
    remedy = remedy or "Load it in 3D Slicer, correct it there and save it as NRRD"
    return ImageError(f"Series {series} is not an even volume: {what}. {remedy}.")


def _read_slices(series: Series, slices: list[Slice]) -> sitk.Image:
    """Read slices that are in order; the grid comes from their headers."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(s.path) for s in slices])
    if any(s.rescaled for s in slices):
        # ITK reads all slices in the first one's type, and PET has another factor in each.
        reader.SetOutputPixelType(sitk.sitkFloat32)
    image = _execute(series, reader)
    first, last = slices[0], slices[-1]
    if first.position_mm and first.orientation and first.spacing_mm:
        row, column = np.reshape(first.orientation, (2, 3))
        rise = np.dot(np.subtract(last.position_mm, first.position_mm), first.normal)
        step = float(rise) / (len(slices) - 1) if len(slices) > 1 else image.GetSpacing()[2]
        image.SetOrigin(first.position_mm)
        image.SetSpacing((*first.spacing_mm[::-1], step))
        image.SetDirection(np.stack([row, column, first.normal], axis=1).ravel())
    return _described(series, image)


def _read_frames(series: Series) -> sitk.Image:
    """Read one file of several frames, if each frame's own position is where the grid puts it."""
    if len(series.slices) > 1:
        raise _refusal(series, f"it has {len(series.slices)} files, and frames within them")
    path = series.slices[0].path
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    image = _execute(series, reader)
    found = (_numbers({"": text}, "", 3) for text in _raw_values(path, _POSITION))
    positions = [position for position in found if position]
    if len(positions) != series.frames:
        raise _refusal(series, f"{len(positions)} of its {series.frames} frames say where they lie")
    grid = [image.TransformIndexToPhysicalPoint((0, 0, k)) for k in range(series.frames)]
    if not np.allclose(positions, grid, atol=0.1):  # mm
        raise _refusal(series, "its frames do not follow each other in equal steps along one line")
    return _described(series, image)


def _raw_values(path: Path, tag: bytes) -> list[str]:
    """The values of a tag anywhere before the voxels, found by its bytes.

    SimpleITK neither opens nested sequences nor a file that is cut short. After the tag comes a
    type of two letters and a length of two bytes, or a length of four.
    """
    header = path.read_bytes().split(_VOXELS, 1)[0]
    values = []
    for hit in re.finditer(tag + rb"(?:[A-Z]{2}(..)|(..)\0\0)", header, re.DOTALL):
        length = int.from_bytes(hit[1] or hit[2], "little")
        values.append(header[hit.end() : hit.end() + length].decode("latin-1").strip(" \0"))
    return values


def _execute(series: Series, reader: sitk.ImageFileReader | sitk.ImageSeriesReader) -> sitk.Image:
    try:
        with quiet():
            return reader.Execute()
    except RuntimeError as problem:
        raise ImageError(
            f"Series {series} cannot be decoded ({str(problem).strip().splitlines()[-1]}); "
            "copy or export it again."
        ) from problem


def _described(series: Series, image: sitk.Image) -> sitk.Image:
    image.SetMetaData("0008|0060", series.modality)
    image.SetMetaData("0008|103e", series.description)
    image.SetMetaData("0020|000e", series.uid)
    return image
