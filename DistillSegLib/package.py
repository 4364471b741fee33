"""The model package: one `.distillseg` file that holds a model and all that is needed to judge it.

It is a zip and stays one on disk; nothing is ever unpacked:

    manifest.json    everything a program must know (`Manifest`)
    MODEL_CARD.md    the same and more for people
    model.onnx       one file per variant; ONNX only, so that no code lies in a package
    check.npz        one input window, and the logits that each variant must give for it
    SHA256SUMS       a digest of every file above

The archive's comment is the SHA-256 of all bytes before it, so that one changed byte anywhere is
noticed. A package that was zipped by other means has no such seal; its digests still hold.

    >>> package = read_package("hippocampus-fast-1.0.0.distillseg")
    >>> package.manifest.labels
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.errors import PackageError
from DistillSegLib.files import replacing
from DistillSegLib.manifest import (
    CARD,
    CHECK,
    FORMAT,
    ID,
    MANIFEST,
    PLAIN_NAME,
    RESERVED,
    SUMS,
    VERSION,
    Manifest,
    Variant,
)
from DistillSegLib.places import resources, user_folder
from DistillSegLib.records import from_dict, nearest, to_dict

SUFFIX = ".distillseg"

MEBIBYTE = 1 << 20
LIMITS = {MANIFEST: 4 * MEBIBYTE, CARD: 4 * MEBIBYTE, SUMS: MEBIBYTE, CHECK: 512 * MEBIBYTE}
LIMIT = 2048 * MEBIBYTE  # of all files together; ONNX itself ends there
SEAL = 64  # hexadecimal digits of a SHA-256

_ID_AND_VERSION = re.compile(rf"{ID.pattern}(-{VERSION.pattern})?")


@dataclass(frozen=True)
class ModelPackage:
    """A package whose manifest and card were read and found sound.

    Models and check windows are read when asked for, and only if their digest is right.
    """

    path: Path
    manifest: Manifest
    card: str
    digests: Mapping[str, str]

    def variant(self, name: str = "auto") -> Variant:
        """A variant by name; "auto" is the first."""
        variants = {variant.name: variant for variant in self.manifest.variants}
        if name == "auto":
            return self.manifest.variants[0]
        if name not in variants:
            raise PackageError(
                f"'{self.manifest.id}' has no variant '{name}'; choose from {', '.join(variants)}."
            )
        return variants[name]

    def model_bytes(self, variant: Variant) -> bytes:
        """The ONNX file of a variant."""
        return self._read(variant.file)

    def check_window(self, variant: Variant) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Input (1, C, d, h, w) and expected logits (1, K, d/s, h/s, w/s)."""
        manifest = self.manifest
        coarse = [n // variant.stride for n in manifest.check_shape]
        shapes = {
            "window": (1, len(manifest.channels), *manifest.check_shape),
            _logits(variant): (1, manifest.labels.classes, *coarse),
        }
        with _damage_named(self.path), zipfile.ZipFile(io.BytesIO(self._read(CHECK))) as arrays:
            window, logits = (_read_array(arrays, *item) for item in shapes.items())
        return window, logits

    def check_digests(self) -> None:
        """Read every file and compare its digest; PackageError names the first that differs."""
        for name in self.digests:
            self._read(name)

    def _read(self, name: str) -> bytes:
        with _damage_named(self.path), zipfile.ZipFile(self.path) as archive:
            data = archive.read(name)
        if hashlib.sha256(data).hexdigest() != self.digests[name]:
            raise _damaged(self.path, f"the digest of '{name}' in it is not the one listed")
        return data


def read_package(path: Path | str) -> ModelPackage:
    """Open a package and check everything about it that does not need its model to run.

    Raises:
        PackageError: it is no package, is damaged, has an unknown format, or lacks something; the
            sentence says which.
    """
    path = Path(path)
    data = _whole_file(path)
    with _damage_named(path), zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        _check_entries(path, entries)
        files = {name: archive.read(name) for name in (MANIFEST, CARD, SUMS)}
        manifest = _read_manifest(path, files[MANIFEST])
        card, digests = files[CARD].decode(), _read_sums(path, files[SUMS].decode())
    named = {MANIFEST, CARD, CHECK, *(variant.file for variant in manifest.variants)}
    present = {entry.filename: entry.file_size for entry in entries}
    for name in sorted(named ^ (present.keys() - {SUMS})) or sorted(named ^ digests.keys()):
        state = "lacks" if name in named else "holds, beside what its manifest names,"
        raise PackageError(f"The package '{path}' {state} '{name}'; use the file as published.")
    for variant in manifest.variants:
        if present[variant.file] != variant.size_bytes:
            raise _damaged(path, f"'{variant.file}' in it has not the size that the manifest says")
    for name in (MANIFEST, CARD):
        if hashlib.sha256(files[name]).hexdigest() != digests[name]:
            raise _damaged(path, f"the digest of '{name}' in it is not the one listed")
    _check_seal(path, data)  # last: what is wrong in particular says more
    return ModelPackage(path, manifest, card, digests)


def load_package(id_or_path: str | Path) -> ModelPackage:
    """A package by its file, or by its id among the bundled and the installed ones.

    Of several versions the highest is taken; "hippocampus-fast-1.0.0" asks for one version.
    """
    text = str(id_or_path)
    if isinstance(id_or_path, Path) or text.endswith(SUFFIX) or not _ID_AND_VERSION.fullmatch(text):
        return read_package(id_or_path)
    found, known, problems = [], [], []
    for path in package_files():
        try:
            package = read_package(path)
        except PackageError as problem:
            if path.name.startswith(text):
                problems.append(problem)
            continue
        known.append(package.manifest.id)
        if text in (package.manifest.id, package.manifest.name):
            found.append(package)
    if found:
        return max(found, key=lambda package: package.manifest.version_key)
    if problems:
        raise problems[0]
    hint = nearest(text, sorted(set(known))) if known else "none is installed."
    raise PackageError(f"There is no package '{text}'; {hint} A file can be given by its path.")


def package_files() -> list[Path]:
    """The files of the installed packages, then of the bundled ones."""
    folders = (user_folder() / "Models", resources() / "Models")
    found = (path for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}")))
    return [path for path in found if not path.name.startswith(".")]


def write_package(
    path: Path | str,
    manifest: Manifest,
    *,
    card: str,
    models: Mapping[str, bytes],
    window: NDArray[np.float32],
    logits: Mapping[str, NDArray[np.float32]],
) -> Path:
    """Write a package, whole or not at all; equal input gives equal bytes.

    Args:
        models: ONNX bytes by the file names of the manifest's variants.
        window: (1, C, d, h, w), an input as the network sees it.
        logits: what each variant, by name, gives for it.
    """
    expected = {variant.file: variant.size_bytes for variant in manifest.variants}
    if {name: len(model) for name, model in models.items()} != expected:
        raise PackageError(f"The models given do not have the names and sizes {expected}.")
    arrays = {"window": window} | {_logits(v): logits[v.name] for v in manifest.variants}
    text = json.dumps(to_dict(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    files = {MANIFEST: text.encode() + b"\n", CARD: card.encode(), **models}
    files[CHECK] = _zipped({f"{name}.npy": _npy(array) for name, array in arrays.items()})
    sums = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    files[SUMS] = "".join(sums).encode()
    body = _zipped(files, comment=b"0" * SEAL)[:-SEAL]
    with replacing(path) as temporary:
        temporary.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
    return Path(path)


def _whole_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > LIMIT:
            raise PackageError(
                f"The file '{path}' is larger than {LIMIT // MEBIBYTE} MiB, the most that a model "
                "package may be; check that it is one."
            )
        data = path.read_bytes()
    except OSError as problem:
        reason = problem.strerror or problem
        raise PackageError(
            f"The package '{path}' cannot be read ({reason}); check the path and its permissions."
        ) from problem
    if not data:
        raise PackageError(f"The package '{path}' is empty; copy or download it again.")
    return data


def _check_entries(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse, before anything is decompressed, what no package of ours holds."""
    names = [entry.orig_filename for entry in entries]
    for entry, name in zip(entries, names):
        # A strict pattern leaves no room for "../", "/", "C:\\", a NUL or look-alike letters.
        if not PLAIN_NAME.fullmatch(name) or name != entry.filename:
            raise PackageError(
                f"The package '{path}' holds the file name {name!r}, which could lead out of its "
                "folder; do not use this file."
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise PackageError(
                f"The package '{path}' holds '{name}', a link and not a file; do not use it."
            )
        if entry.flag_bits & 1 or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise PackageError(
                f"The package '{path}' holds '{name}' encrypted or compressed in an unusual way; "
                "packages use deflate only. Get the file as published."
            )
        if entry.file_size > LIMITS.get(name, LIMIT):
            raise _too_large(path, name, entry.file_size, LIMITS.get(name, LIMIT))
    if (total := sum(entry.file_size for entry in entries)) > LIMIT:
        raise _too_large(path, "all files together", total, LIMIT)
    folded = [name.lower() for name in names]
    for name in names:
        if folded.count(name.lower()) > 1:
            raise PackageError(
                f"The package '{path}' holds '{name}' more than once; use the file as published."
            )
    for name in RESERVED:
        if name not in names:
            raise PackageError(
                f"'{path}' is no model package: it lacks '{name}'; choose a {SUFFIX} file."
            )


def _read_manifest(path: Path, data: bytes) -> Manifest:
    try:
        plain = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise _damaged(path, f"its '{MANIFEST}' is no JSON, {problem}") from problem
    found = plain.get("format") if isinstance(plain, dict) else None
    if found is None:
        raise PackageError(
            f"The package '{path}' does not state its format; this DistillSeg reads format "
            f"{FORMAT}. Get the file as published."
        )
    if found is True or found != FORMAT:
        raise PackageError(
            f"The package '{path}' has format {found!r:.40}, but this DistillSeg reads format "
            f"{FORMAT}; update DistillSeg, or get the package in the older format."
        )
    try:
        return from_dict(Manifest, plain, error=PackageError)
    except PackageError as problem:
        raise PackageError(f"The package '{path}' has a bad {MANIFEST}: {problem}") from problem


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _read_sums(path: Path, text: str) -> dict[str, str]:
    digests = {}
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or name in digests:
            raise _damaged(path, f"its '{SUMS}' holds the line {line[:100]!r}")
        digests[name] = digest
    return digests


def _check_seal(path: Path, data: bytes) -> None:
    end = data[-22:]  # the record of 22 bytes that ends a zip; last, the length of its comment
    ends_without_comment = end[:4] == b"PK\x05\x06" and end[-2:] == b"\0\0"
    if not ends_without_comment and (
        hashlib.sha256(data[:-SEAL]).hexdigest().encode() != data[-SEAL:]
    ):
        raise _damaged(path, "its digest is not that of its bytes")


def _zipped(files: Mapping[str, bytes], *, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # no date and no owner: equal input, equal bytes
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
        archive.comment = comment
    return buffer.getvalue()


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _read_array(arrays: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One array of an npz, of exactly this shape: nothing is allocated for what a header claims."""
    entry = arrays.getinfo(f"{name}.npy")
    with arrays.open(entry) as stream:
        if entry.file_size > 4 * prod(shape) + 10_000 or np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"'{name}' in {CHECK} is not the array that it should be")
        found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
        if found != shape or fortran or kind != np.float32:
            raise ValueError(f"'{name}' in {CHECK} is {kind} {found}, not float32 {shape}")
        return np.frombuffer(stream.read(), np.float32).reshape(shape)


def _logits(variant: Variant) -> str:
    return f"logits-{variant.name}"


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Whatever the zip and array readers raise on bad bytes becomes one sentence."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        LookupError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
    ) as problem:
        raise _damaged(path, str(problem).rstrip(".")) from problem


def _damaged(path: Path, reason: str) -> PackageError:
    return PackageError(f"The package '{path}' is damaged: {reason}; copy or download it again.")


def _too_large(path: Path, name: str, size: int, limit: int) -> PackageError:
    return PackageError(
        f"The package '{path}' declares {size / MEBIBYTE:,.0f} MiB for '{name}', more than the "
        f"{limit // MEBIBYTE} MiB allowed; do not use this file."
    )
