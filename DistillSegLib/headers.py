"""What the raw bytes of a NIfTI, MetaImage or NRRD file say, checked before ITK reads them.

ITK fills the missing end of a truncated NIfTI file with zeros, makes NaN zero there, replaces a
spacing of zero by 1 mm and goes on after a damaged compressed block. Each would give a segmentation
of something that was never scanned, without a word. And its writers do not notice a full disk.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np

from DistillSegLib.errors import ImageError

_BLOCK = 1 << 20  # bytes
_NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
_META_BYTES = {
    "CHAR": 1,
    "UCHAR": 1,
    "SHORT": 2,
    "USHORT": 2,
    "INT": 4,
    "UINT": 4,
    "LONG": 4,
    "ULONG": 4,
    "LONG_LONG": 8,
    "ULONG_LONG": 8,
    "FLOAT": 4,
    "DOUBLE": 8,
}
# NRRD has many names for each type ("short", "signed short int", "int16_t"): the first that fits.
_NRRD_BYTES = (
    ("8|char", 1),
    ("16|short", 2),
    ("64|long ?long|double", 8),
    ("32|int|float", 4),
)


def check_file(path: Path, *, unpacked: Path | None = None) -> None:
    """Raise ImageError for a file that is cut short or damaged, or a spacing not above zero.

    Also for a NIfTI file with values that are not finite.

    Args:
        unpacked: where a packed NIfTI file is written as it is checked, so that it need not be
            unpacked twice; other files are not.
    """
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            _check_nifti(path, unpacked)
        elif name.endswith((".mha", ".mhd")):
            _check_metaimage(path)
        elif name.endswith((".nrrd", ".nhdr")):
            _check_nrrd(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
        raise ImageError(
            f"'{path}' is damaged: its compressed data cannot be unpacked ({problem}). "
            "Copy or download it again."
        ) from problem
    except OSError as problem:
        raise ImageError(
            f"'{path}' cannot be opened ({problem.strerror or problem}); check its permissions."
        ) from problem


def is_packed(path: Path) -> bool:
    """Whether a file is compressed by gzip, whatever its name; not if it cannot be opened."""
    try:
        with open(path, "rb") as raw:
            return raw.read(2) == b"\x1f\x8b"
    except OSError:  # `check_file` says so
        return False


def _check_nifti(path: Path, unpacked: Path | None) -> None:
    packed = is_packed(path)
    with (
        gzip.open(path) if packed else open(path, "rb") as stream,
        open(unpacked, "wb") if packed and unpacked else nullcontext() as copy,
    ):
        head = stream.read(540)
        order, dims, kind, pixdim, offset, qform, sform, rows = _parse_nifti(path, head)
        if kind not in _NIFTI_BYTES:
            raise ImageError(
                f"'{path}' holds single bits, colours or complex numbers (NIfTI data type {kind}); "
                "one real number per voxel is needed. Save one channel as a file of its own."
            )
        _check_spacing(path, pixdim[: min(len(dims), 3)])
        if sform > 0 and qform == 0:
            _check_scales(path, pixdim, rows)
        head += stream.read(max(offset - len(head), 0))
        if copy:
            copy.write(head[:offset])
        float_type = {16: f"{order}f4", 64: f"{order}f8"}.get(kind)
        length, strange = _scan(stream, float_type, begun=head[offset:], copy=copy)
    _check_size(path, offset + length, offset + math.prod(dims) * _NIFTI_BYTES[kind])
    if strange:
        first = tuple(int(i) for i in np.unravel_index(strange[0], dims, order="F"))
        raise ImageError(
            f"'{path}' has {len(strange)} of {math.prod(dims)} voxels that are not finite numbers "
            f"(the first at index x, y, z = {first}); replace them or export the image again."
        )


def _parse_nifti(path: Path, header: bytes) -> tuple:
    """What the header says.

    Byte order, sizes, data type, pixdim (x first), the first voxel's byte, the codes of qform and
    sform, and the sform's 3x4 numbers by row.
    """
    for order in "<>":
        size = struct.unpack_from(order + "i", header)[0] if len(header) >= 4 else 0
        if size == 348 and header[344:347] == b"n+1":
            dim = struct.unpack_from(order + "8h", header, 40)
            kind = struct.unpack_from(order + "h", header, 70)[0]
            pixdim = struct.unpack_from(order + "8f", header, 76)
            offset = struct.unpack_from(order + "f", header, 108)[0]
            codes = struct.unpack_from(order + "2h", header, 252)
            rows = struct.unpack_from(order + "12f", header, 280)
        elif size == 540 and len(header) == 540 and header[4:7] == b"n+2":
            kind = struct.unpack_from(order + "h", header, 12)[0]
            dim = struct.unpack_from(order + "8q", header, 16)
            pixdim = struct.unpack_from(order + "8d", header, 104)
            offset = struct.unpack_from(order + "q", header, 168)[0]
            codes = struct.unpack_from(order + "2i", header, 344)
            rows = struct.unpack_from(order + "12d", header, 400)
        else:
            continue
        sizes = dim[1 : dim[0] + 1]
        if 1 <= dim[0] <= 7 and min(sizes) >= 1 and math.isfinite(offset):
            offset = max(int(offset), size)  # as ITK does; 0 is common
            return order, sizes, kind, pixdim[1:4], offset, *codes, rows
        raise ImageError(
            f"'{path}' is a NIfTI file of the impossible size {list(dim)}; export it again."
        )
    raise ImageError(
        f"'{path}' is not a NIfTI file, or is cut short: {len(header)} bytes without its header "
        "were found. Copy it again or export it again."
    )


def _check_scales(path: Path, pixdim: tuple, rows: tuple) -> None:
    """Refuse an sform, if nothing else gives the place, whose voxels are not as pixdim says."""
    scales = [math.hypot(*rows[axis::4][:3]) for axis in range(3)]
    if any(abs(a - b) > 0.01 * max(a, b) for a, b in zip(scales, pixdim)):
        raise ImageError(
            f"'{path}' contradicts itself: its voxels are {_by(pixdim)} mm by pixdim but "
            f"{_by(scales)} mm by its sform; correct the header or export it again."
        )


def _check_metaimage(path: Path) -> None:
    fields, start = {}, 0
    with open(path, "rb") as stream:
        while "ElementDataFile" not in fields:
            line = stream.readline(1 << 16)
            key, equals, value = line.decode("latin-1").partition("=")
            if not equals:
                raise ImageError(
                    f"'{path}' is not a MetaImage file, or is cut short: its header does not name "
                    "the data. Copy it again or export it again."
                )
            fields[key.strip()] = value.strip()
        start = stream.tell()
    try:
        sizes = [int(n) for n in fields["DimSize"].split()]
        spacing = [float(n) for n in fields.get("ElementSpacing", "1 " * len(sizes)).split()]
        kind = fields["ElementType"].removeprefix("MET_")
        voxel = _META_BYTES[kind] * int(fields.get("ElementNumberOfChannels", 1))
    except (KeyError, ValueError) as problem:
        raise ImageError(
            f"'{path}' has a MetaImage header that cannot be understood ({problem}); "
            "export it again."
        ) from problem
    if not len(sizes) == len(spacing) == int(fields.get("NDims", len(sizes))):
        raise ImageError(
            f"'{path}' contradicts itself: NDims, DimSize and ElementSpacing in its header do not "
            "have the same length; export it again."
        )
    _check_spacing(path, spacing)
    data, start = _metaimage_data(path, fields, start)
    if data is None:
        return
    if fields.get("CompressedData", "False").lower() == "true":
        found = _inflated(data, start)
    else:
        found = data.stat().st_size - start
    _check_size(data, found, math.prod(sizes) * voxel)


def _metaimage_data(path: Path, fields: dict[str, str], start: int) -> tuple[Path | None, int]:
    """The file with the voxels and their first byte; None for kinds that ITK counts by itself."""
    name = fields["ElementDataFile"]
    if name == "LIST" or "%" in name or fields.get("BinaryData", "True").lower() == "false":
        return None, 0
    if name == "LOCAL":
        return path, start
    data = path.parent / name
    if not data.is_file():
        raise ImageError(
            f"'{path}' says that its voxels are in '{name}', which is not beside it; copy both."
        )
    return data, max(0, int(fields.get("HeaderSize", 0)))


def _check_nrrd(path: Path) -> None:
    """Count the voxels' bytes, where they lie in one piece; ITK speaks about the rest."""
    fields, start = _nrrd_fields(path)
    if "sizes" not in fields:
        raise ImageError(
            f"'{path}' is not an NRRD file, or is cut short: its header does not tell the sizes. "
            "Copy it again or export it again."
        )
    name = fields.get("data file", fields.get("datafile"))
    skips = {fields.get(key, "0") for key in ("line skip", "lineskip", "byte skip", "byteskip")}
    kind = fields.get("type", "").lower()
    voxel = next((size for names, size in _NRRD_BYTES if re.search(names, kind)), 0)
    sizes = fields.get("sizes", "").split()
    if not (voxel and sizes and all(map(str.isdecimal, sizes))) or skips != {"0"}:
        return
    data, start = (path, start) if name is None else (path.parent / name, 0)
    encoding = fields.get("encoding", "").lower()
    if not data.is_file():  # a list or pattern of names, or absent
        return
    if encoding in ("gzip", "gz"):
        with open(data, "rb") as raw:
            raw.seek(start)
            found, _ = _scan(gzip.GzipFile(fileobj=raw), None)
    elif encoding == "raw":
        found = data.stat().st_size - start
    else:
        return
    _check_size(data, found, math.prod(map(int, sizes)) * voxel)


def _nrrd_fields(path: Path) -> tuple[dict[str, str], int]:
    """The lines "key: value" of the header, and the first byte after it."""
    fields = {}
    with open(path, "rb") as stream:
        while line := stream.readline(1 << 20).decode("latin-1").strip():
            key, colon, value = line.partition(": ")
            if colon:
                fields[key.lower()] = value.strip()
        return fields, stream.tell()


def _inflated(path: Path, start: int) -> int:
    """Bytes in the zlib stream that begins at `start`, checked to its end."""
    unpacker, count = zlib.decompressobj(), 0
    with open(path, "rb") as stream:
        stream.seek(start)
        while not unpacker.eof and (block := stream.read(_BLOCK)):
            count += len(unpacker.decompress(block))
    if not unpacker.eof:
        raise EOFError("it ends too early")
    return count


def _scan(
    stream: BinaryIO, float_type: str | None, *, begun: bytes = b"", copy: BinaryIO | None = None
) -> tuple[int, list[int]]:
    """The bytes to the stream's end, and which of its numbers are not finite (float types only).

    Args:
        begun: what was read of them already.
        copy: where they are written.
    """
    count, strange = 0, []
    while block := begun + stream.read(_BLOCK - len(begun)):
        begun = b""
        if float_type:
            width = int(float_type[-1])
            numbers = np.frombuffer(block[: len(block) // width * width], float_type)
            wrong = np.flatnonzero(~np.isfinite(numbers))
            strange.extend((wrong + count // width).tolist())
        if copy:
            copy.write(block)
        count += len(block)
    return count, strange


def _check_size(path: Path, found: int, expected: int) -> None:
    if found < expected:
        raise ImageError(
            f"'{path}' is cut short: it should hold {expected} bytes and holds {found}. "
            "Copy or download it again."
        )


def _check_spacing(path: Path, spacing: tuple[float, ...] | list[float]) -> None:
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise ImageError(
            f"'{path}' gives a voxel spacing of {_by(spacing)} mm; each must be above zero. "
            "Correct its header or export it again."
        )


def _by(numbers) -> str:
    return " x ".join(f"{n:g}" for n in numbers)
