"""What there is to segment: files, DICOM folders and folders of cases; and what is no image."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from DistillSegLib.datasets import stem
from DistillSegLib.dicom import is_dicom
from DistillSegLib.errors import ImageError
from DistillSegLib.files import has_plain_name, identity
from DistillSegLib.images import READABLE

# Voxels that a header of the same name describes: part of an image, not one by themselves.
VOXEL_ENDINGS = (".raw", ".zraw", ".raw.gz", ".img")


@dataclass(frozen=True)
class Input:
    """One examination to segment.

    Attributes:
        id: unique among the inputs, such as "site1/case07"; the result takes it as its name.
        images: one per channel; a folder is a DICOM series.
        series: the UID to take where a DICOM folder holds several.
    """

    id: str
    images: tuple[Path, ...]
    series: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that is not segmented, and why."""

    id: str
    path: Path
    reason: str


def find_inputs(
    paths: Sequence[Path],
    *,
    channels: int = 1,
    series: str | None = None,
    ignored: Path | None = None,
) -> tuple[list[Input], list[Skipped]]:
    """What there is to segment below `paths`, and what is not an image, with the reason.

    A file is an image; a folder with DICOM files is a series; any other folder is searched to its
    bottom. With several channels, `case_0000` and `case_0001` (nnU-Net's names) are one case, and
    so are as many files as there are channels.

    Args:
        channels: images per case.
        series: the UID to take where a DICOM folder holds several.
        ignored: a folder not to search, such as that of the results.
    """
    files = [path for path in paths if path.is_file()]
    if channels > 1 and len(files) == len(paths) == channels:
        return [Input(stem(files[0]), tuple(files))], []
    found: list[Input] = []
    skipped: list[Skipped] = []
    for path in paths:
        if path.is_file():
            found.append(Input(stem(path), (path,), series))
        elif path.is_dir():
            inside, others = _search(path, path, ignored and identity(ignored))
            found += [replace(one, series=series) for one in inside]
            skipped += others
        else:
            raise ImageError(f"There is no file or folder '{path}'; check the path.")
    if channels > 1:
        found, incomplete = _grouped(found, channels)
        skipped += incomplete
    return _told_apart(found), skipped


def is_series_folder(folder: Path) -> bool:
    """Whether a folder holds DICOM files itself, rather than cases."""
    return any(file.is_file() and is_dicom(file) for file in folder.iterdir())


def _search(
    folder: Path, top: Path, ignored: tuple[int, int] | None
) -> tuple[list[Input], list[Skipped]]:
    if ignored and ignored == identity(folder):
        return [], []
    found: list[Input] = []
    skipped: list[Skipped] = []
    slices = False
    for entry in sorted(folder.iterdir()):
        place = entry.relative_to(top)
        name = entry.name.lower()
        if name.startswith(".") or name.endswith(VOXEL_ENDINGS):
            continue
        if not has_plain_name(entry):
            shown = Path(str(entry).encode(errors="backslashreplace").decode())
            reason = "Its name is not text in this system's encoding; rename it."
            skipped.append(Skipped(shown.name, shown, reason))
        elif entry.is_dir():
            if not entry.is_symlink():  # which may lead back up
                inside, others = _search(entry, top, ignored)
                found += inside
                skipped += others
        elif name.endswith(".seg.nrrd"):
            reason = "It is a segmentation, not an image."
            skipped.append(Skipped(place.as_posix(), entry, reason))
        elif name.endswith(READABLE):
            found.append(Input(place.with_name(stem(entry)).as_posix(), (entry,)))
        elif is_dicom(entry):
            slices = True
        else:
            reason = f"It is neither DICOM nor of a kind that is read ({', '.join(READABLE)})."
            skipped.append(Skipped(place.as_posix(), entry, reason))
    if slices:
        place = folder.relative_to(top).as_posix()
        found.append(Input(folder.resolve().name if place == "." else place, (folder,)))
    return found, skipped


def _grouped(found: Sequence[Input], channels: int) -> tuple[list[Input], list[Skipped]]:
    """Inputs of one file -> inputs of one file per channel, by the number at the name's end."""
    groups: dict[str, dict[int, Path]] = defaultdict(dict)
    skipped = []
    for one in found:
        numbered = re.fullmatch(r"(.+)_(\d{4})", one.id)
        if numbered and one.images[0].is_file():
            groups[numbered[1]][int(numbered[2])] = one.images[0]
        else:
            name = Path(one.id).name
            reason = f"The model needs {channels} images per case, {name}_0000, {name}_0001 …"
            skipped.append(Skipped(one.id, one.images[0], reason))
    complete = []
    for name, files in groups.items():
        if sorted(files) == list(range(channels)):
            complete.append(Input(name, tuple(files[number] for number in range(channels))))
        else:
            reason = f"The model needs the channels 0 to {channels - 1}, found {sorted(files)}."
            skipped.append(Skipped(name, next(iter(files.values())), reason))
    return complete, skipped


def _told_apart(found: Sequence[Input]) -> list[Input]:
    """Where two inputs share a name (a.nii.gz and a.nrrd), each takes its whole file name."""
    counts = Counter(one.id.casefold() for one in found)  # some file systems ignore case
    apart = [
        one
        if counts[one.id.casefold()] == 1
        else replace(one, id=Path(one.id).with_name(one.images[0].name).as_posix())
        for one in found
    ]
    counts = Counter(one.id.casefold() for one in apart)
    for one in apart:
        if counts[one.id.casefold()] > 1:
            raise ImageError(
                f"{counts[one.id.casefold()]} inputs are named '{one.id}', and their results would "
                "overwrite each other; segment their folders one at a time."
            )
    return apart
