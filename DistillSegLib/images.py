"""Images from files and DICOM folders, and back: read whole, checked, in millimetres.

An image is a `sitk.Image` of three dimensions with one real number per voxel. What cannot be read
as one, or would be read wrongly without a word, raises ImageError in one sentence.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DistillSegLib import dicom
from DistillSegLib.errors import DistillSegError, ImageError
from DistillSegLib.files import has_plain_name, replacing
from DistillSegLib.geometry import as_volume, check_image
from DistillSegLib.headers import check_file, is_packed
from DistillSegLib.quiet import quiet

READABLE = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")

# No scanner gives such a value, and its square overflows the network's numbers.
_LARGEST = 1e18
_ANISOTROPY = 3.0  # largest spacing over smallest from which a volume is called anisotropic
_ROUNDING = 1e-3  # of that ratio, where spacings are float32 in a file
_SPACING_MM = (0.02, 20.0)  # beyond it the unit is probably not millimetres


def read_image(path: Path | str, *, series: str | None = None) -> sitk.Image:
    """An image from a NIfTI, NRRD, MetaImage or DICOM file, or from a folder with a DICOM series.

    A NIfTI file's place is taken from its sform where that has right angles, otherwise from its
    qform; the spacing is always its pixdim. A two-dimensional image becomes one slice of 1 mm.

    Args:
        series: for a folder with several series, which: its UID, description or number.

    Raises:
        ImageError: missing, empty, damaged or cut short; not three-dimensional; several numbers per
            voxel; a spacing of zero; values that are not finite (says how many and where).
    """
    path = Path(path)
    _check_name(path)
    if path.is_dir():
        image = dicom.read_series(path, series)
    elif _existing(path) and dicom.is_dicom(path):
        image = dicom.read_file(path)
    else:
        image = as_volume(read_file(path))
    if image.HasMetaDataKey("Segment0_ID"):
        raise ImageError(f"'{path}' is a segmentation; give the image that it was drawn on.")
    try:
        check_image(image)
    except DistillSegError as problem:
        raise ImageError(f"'{path}': {problem}") from problem
    _check_values(image, path)
    return image


def read_file(path: Path | str) -> sitk.Image:
    """A NIfTI, NRRD or MetaImage file as it is: whole, but of any kind of voxel.

    Raises ImageError as `read_image` does, for all that does not concern the voxels' values.
    """
    path = _existing(Path(path))
    if not path.name.lower().endswith(READABLE):
        raise ImageError(
            f"'{path}' is not of a kind that is read ({', '.join(READABLE)}, or DICOM); "
            "convert it, for example with 3D Slicer."
        )
    reader = sitk.ImageFileReader()
    try:
        with _checked(path) as readable, quiet():
            reader.SetFileName(str(readable))
            reader.ReadImageInformation()
            size = reader.GetSize()
            if all(n == 1 for n in size[3:]):
                reader.SetExtractSize([*size[:3], *[0] * len(size[3:])])
                return reader.Execute()
    except RuntimeError as problem:
        raise ImageError(_sentence(path, problem)) from problem
    raise ImageError(
        f"'{path}' has {len(size)} dimensions ({'x'.join(map(str, size))}); one volume is needed. "
        "Save the time point or channel to be used as a file of its own."
    )


@contextmanager
def _checked(path: Path) -> Iterator[Path]:
    """The file after `check_file`, or the same unpacked, if that costs no second unpacking."""
    if not (path.name.lower().endswith((".nii", ".nii.gz")) and is_packed(path)):
        check_file(path)
        yield path
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            readable = Path(folder) / "image.nii"
            check_file(path, unpacked=readable)
        except (OSError, ImageError) as problem:
            if not isinstance(problem.__cause__ or problem, OSError):
                raise
            check_file(path)  # perhaps there was no room to unpack it
            readable = path
        yield readable


def write_image(image: sitk.Image, path: Path | str) -> Path:
    """Write an image or label map, whole or not at all, as its name's ending says (`WRITABLE`).

    NRRD keeps the image's metadata. Files are compressed where the format can be.
    """
    path = Path(path)
    _check_name(path)
    if not path.name.lower().endswith(WRITABLE):
        raise ImageError(
            f"'{path}' cannot be written: its ending must be one of {', '.join(WRITABLE)}."
        )
    with replacing(path) as temporary:
        try:
            with quiet():
                sitk.WriteImage(image, str(temporary), useCompression=True)
            check_file(temporary)  # on a full disk ITK stops without an error
        except ImageError as problem:
            raise OSError("it stayed incomplete") from problem
        except RuntimeError as problem:
            raise OSError(_reason(problem)) from problem
    return path


def refuse_labels(image: sitk.Image, name: str) -> None:
    """Raise ImageError if `image` is a label map, which a network would segment without complaint.

    A label map has few whole numbers, none negative, and neighbours that mostly agree; in real
    images of 8 bits they agree in about 2 of 10 voxels, in label maps in more than 9. A
    constant image is none (see `image_warnings`).

    Args:
        name: of the file, for the message.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    some = voxels[len(voxels) // 4 :: max(1, len(voxels) // 4)]
    if len(np.unique(some)) > 128:  # no label map, and the others need not be looked at
        return
    if np.min(voxels) < 0 or np.max(voxels) > 65535 or not _whole(voxels):
        return
    counts = np.bincount(voxels.ravel().astype(np.uint16))
    values = np.flatnonzero(counts)
    if 2 <= len(values) <= 128 and _agreement(voxels) > 0.6:
        raise ImageError(
            f"'{name}' looks like a label map, not an image: its {voxels.size} voxels hold only "
            f"the values {_some(values)}, in patches. Give the image that it was drawn on."
        )


def refuse_image(labelmap: sitk.Image, name: str) -> None:
    """Raise ImageError if a label map of many values is an image: neighbours rarely agree.

    Args:
        name: of the file, for the message.
    """
    if _agreement(sitk.GetArrayViewFromImage(labelmap)) < 0.3:
        raise ImageError(
            f"'{name}' looks like an image, not a label map: of its many values, neighbouring "
            "voxels rarely have the same. Give a segmentation."
        )


def grid_warnings(
    size: Sequence[int], spacing: Sequence[float], *, anisotropy: float = 1.0
) -> list[str]:
    """What is odd about the grid of an image.

    Args:
        size, spacing: (x, y, z) voxels, and mm.
        anisotropy: longest over shortest edge of a voxel that a model is used to.
    """
    found = []
    if 1 in size:
        found.append(
            f"The image is a single slice ({'x'.join(map(str, size))} voxels); networks for "
            "volumes are unreliable on it."
        )
    elif max(spacing) / min(spacing) >= max(_ANISOTROPY, anisotropy + _ROUNDING):
        found.append(
            f"The voxels are {max(spacing) / min(spacing):.1f} times longer in one direction than "
            f"in another ({_mm(spacing)}); thin structures may be missed."
        )
    if min(spacing) < _SPACING_MM[0] or max(spacing) > _SPACING_MM[1]:
        found.append(
            f"The voxels measure {_mm(spacing)}; the file probably counts in another unit."
        )
    return found


def image_warnings(image: sitk.Image, *, anisotropy: float = 1.0) -> tuple[str, ...]:
    """What is odd about an image but does not forbid using it, as sentences.

    Args:
        anisotropy: longest over shortest edge of a voxel that a model is used to.
    """
    found = grid_warnings(image.GetSize(), image.GetSpacing(), anisotropy=anisotropy)
    voxels = sitk.GetArrayViewFromImage(image)
    low, high = np.min(voxels), np.max(voxels)
    if low == high:
        found.append(f"Every voxel has the value {low:g}; there is nothing to segment.")
    return (*found, *_place_warnings(image))


def header_warnings(path: Path | str) -> list[str]:
    """What `image_warnings` says of a file's header, without its voxels; nothing if not NIfTI."""
    if not str(path).lower().endswith((".nii", ".nii.gz")) or not Path(path).is_file():
        return []
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # what it is may be told by whoever reads the voxels
        return []
    return _place_warnings(reader)


def _place_warnings(header: sitk.Image | sitk.ImageFileReader) -> list[str]:
    codes = ("qform_code", "sform_code")
    if not all(header.HasMetaDataKey(key) and header.GetMetaData(key) == "0" for key in codes):
        return []
    return [
        "The file does not say how the patient lies (its qform and sform codes are 0); left "
        "and right may be exchanged."
    ]


def _check_name(path: Path) -> None:
    if not has_plain_name(path):
        raise ImageError(
            f"'{path}' has a name that is not text in this system's encoding; rename it."
        )


def _existing(path: Path) -> Path:
    _check_name(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ImageError(f"'{path}' {what}; a file is needed, check the path.")
    if path.stat().st_size == 0:
        raise ImageError(f"'{path}' is empty (0 bytes); copy or export it again.")
    return path


def _check_values(image: sitk.Image, path: Path) -> None:
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore"):
        strange = ~(np.abs(voxels) < _LARGEST)  # also true for NaN
    if strange.any():
        first = tuple(int(i) for i in np.unravel_index(np.argmax(strange), strange.shape))
        raise ImageError(
            f"'{path}' has {np.count_nonzero(strange)} of {strange.size} voxels that are not "
            f"finite numbers (the first at index x, y, z = {first[::-1]}); replace them or export "
            "the image again."
        )


def _whole(voxels: np.ndarray) -> bool:
    return voxels.dtype.kind in "iu" or bool(np.all(voxels == np.round(voxels)))


def _agreement(voxels: np.ndarray) -> float:
    """The share of neighbours that are equal, among those of which neither is zero."""
    equal = pairs = 0
    for axis in range(3):
        ahead = np.moveaxis(voxels, axis, 0)
        a, b = ahead[1:], ahead[:-1]
        inside = (a != 0) & (b != 0)
        pairs += np.count_nonzero(inside)
        equal += np.count_nonzero((a == b) & inside)
    return equal / max(pairs, 1)


def _some(values: np.ndarray) -> str:
    shown = ", ".join(str(v) for v in values[:5])
    return shown if len(values) <= 5 else f"{shown}, … ({len(values)} in all)"


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{s:.3g}" for s in spacing) + " mm"


def _sentence(path: Path, problem: Exception) -> str:
    reason = _reason(problem)
    if "orthonormal" in reason:
        return (
            f"'{path}' has axes that are not at right angles (a sheared sform and no usable "
            "qform); resample it to a straight grid, for example in 3D Slicer."
        )
    if "determinant is 0" in str(problem):
        return (
            f"'{path}' has axes that do not span a volume; correct its header or export it again."
        )
    if "spacing" in reason:
        return (
            f"'{path}' gives an impossible voxel spacing ({reason}); each must be above zero. "
            "Correct its header or export it again."
        )
    return (
        f"'{path}' cannot be read ({reason}); it is damaged, cut short or not what its name says. "
        "Copy or export it again."
    )


def _reason(problem: Exception) -> str:
    """The last line with words of an ITK exception, without its source file and address."""
    lines = [line for line in str(problem).splitlines() if any(c.isalpha() for c in line)]
    text = lines[-1].split("): ")[-1] if lines else type(problem).__name__
    for start in ("ITK ERROR: ", "sitk::ERROR: ", "Reason: "):
        text = text.removeprefix(start)
    return text.strip().rstrip(".!")
