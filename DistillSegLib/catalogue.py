"""The packages at hand: bundled with DistillSeg, installed by the user, and published elsewhere.

>>> install_package("liver-fast-1.0.0.distillseg")
>>> [package.id for package in list_packages()]
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from DistillSegLib.errors import Cancelled, PackageError
from DistillSegLib.files import sha256
from DistillSegLib.inference import self_check
from DistillSegLib.package import (
    LIMIT,
    MEBIBYTE,
    SUFFIX,
    ModelPackage,
    load_package,
    package_files,
    read_package,
)
from DistillSegLib.places import resources, user_folder
from DistillSegLib.records import from_dict, nearest
from DistillSegLib.windows import ignore, never

__all__ = [
    "Listed",
    "Published",
    "install_package",
    "list_packages",
    "load_package",
    "published_packages",
    "remove_package",
    "resources",
    "sample_of",
]

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Listed:
    """A package file at hand.

    Attributes:
        id: its own, or the file's name where that cannot be read; version and title are then empty.
        bundled: came with DistillSeg, and cannot be removed.
        problem: why it cannot be used, in one sentence; empty if it can.
    """

    id: str
    version: str
    title: str
    path: Path
    bundled: bool
    problem: str = ""

    @property
    def name(self) -> str:
        """Id and version, such as "hippocampus-fast-1.0.0"."""
        return f"{self.id}-{self.version}" if self.version else self.id


@dataclass(frozen=True)
class Published:
    """A package on the network, pinned by its digest.

    Attributes:
        url: http or https.
        size_bytes: of the file.
        sha256: of the file, 64 hexadecimal digits.
    """

    id: str
    version: str
    title: str
    url: str
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Id and version, such as "hippocampus-fast-1.0.0"."""
        return f"{self.id}-{self.version}"

    def __post_init__(self) -> None:
        if not self.url.lower().startswith(("https://", "http://")):
            raise ValueError(f"the url '{self.url}' must begin with https:// or http://.")
        if not 0 < self.size_bytes <= LIMIT:
            raise ValueError(f"size_bytes is {self.size_bytes}; use 1 to {LIMIT}.")


def list_packages() -> list[Listed]:
    """All package files, installed and bundled, also those that cannot be used."""

    def order(each: Listed) -> tuple:
        return each.id, [int(part) for part in each.version.split(".") if part]  # 1.10 after 1.9

    return sorted(map(_listed, package_files()), key=order)


def _listed(path: Path) -> Listed:
    bundled = path.is_relative_to(resources())
    try:
        manifest = read_package(path).manifest
    except PackageError as problem:
        return Listed(path.name.removesuffix(SUFFIX), "", "", path, bundled, str(problem))
    return Listed(manifest.id, manifest.version, manifest.title, path, bundled)


def sample_of(package: ModelPackage) -> Path | None:
    """The bundled image of a model's part of the body, to try it on; None where there is none.

    A mean of patients, or where these are too unlike for one, a phantom of the model's modality.
    """
    part = package.manifest.scope.body_part.casefold().replace(" ", "-")
    modality = package.manifest.modality.casefold()
    names = (f"{part}-mean.nii.gz", f"{part}-{modality}-phantom.nii.gz")
    paths = (resources() / "Samples" / name for name in names)
    return next((path for path in paths if path.is_file()), None)


def published_packages() -> tuple[Published, ...]:
    """What `catalogue.json` among the resources offers for installation; often nothing."""
    path = resources() / "catalogue.json"
    if not path.is_file():
        return ()
    try:
        entries = json.loads(path.read_bytes())
        return tuple(from_dict(Published, entry, error=PackageError) for entry in entries)
    except (ValueError, TypeError) as problem:
        raise PackageError(f"The catalogue '{path}' is no list in JSON ({problem}).") from problem


def install_package(
    source: Path | str | Published,
    *,
    on_progress: Callable[[float], None] = ignore,
    cancelled: Callable[[], bool] = never,
) -> ModelPackage:
    """Add a package to the user's own, after it has given the right numbers on this computer.

    Args:
        source: a `.distillseg` file, or an entry of `published_packages`, which is downloaded.
        on_progress: told the share done, 0 to 1.
        cancelled: asked throughout; if true, Cancelled is raised and nothing is installed.

    Raises:
        PackageError: it is damaged, unknown, not what was announced, or gives other numbers here.
    """
    if isinstance(source, str) and "://" in source:
        raise PackageError(
            f"'{source}' is an address; download the file first, and install it from where it lies."
        )
    folder = user_folder() / "Models"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
            incoming = Path(temporary, f"incoming{SUFFIX}")
            if isinstance(source, Published):
                _download(source, incoming, on_progress, cancelled)
                package = read_package(incoming)
                if package.manifest.name != source.name:
                    raise PackageError(
                        f"'{source.url}' holds '{package.manifest.name}' and not '{source.name}', "
                        "as the catalogue says; nothing was installed."
                    )
            else:
                package = read_package(source)
            package.check_digests()
            self_check(package)
            if not isinstance(source, Published):
                shutil.copyfile(source, incoming)
                read_package(incoming).check_digests()
            _stop_if(cancelled)
            target = folder / f"{package.manifest.name}{SUFFIX}"
            os.replace(incoming, target)
    except OSError as problem:
        raise PackageError(
            f"The package could not be put into '{folder}' ({problem.strerror or problem}); check "
            "the free space and the permissions of the folder."
        ) from problem
    on_progress(1.0)
    return read_package(target)


def remove_package(id: str) -> list[Path]:
    """Delete all installed versions of a package, or one given as "id-version"."""
    listed = list_packages()
    chosen = [package for package in listed if id in (package.id, package.name)]
    paths = [package.path for package in chosen if not package.bundled]
    if chosen and not paths:
        raise PackageError(f"The package '{id}' is part of DistillSeg and cannot be removed.")
    if not paths:
        known = {package.id for package in listed if not package.bundled}
        hint = nearest(id, sorted(known)) if known else "none is installed."
        raise PackageError(f"There is no installed package '{id}'; {hint}")
    for path in paths:
        try:
            path.unlink()
        except OSError as problem:
            raise PackageError(
                f"'{path}' cannot be removed ({problem.strerror}); check its permissions, and that "
                "no program has it open."
            ) from problem
    return paths


def _download(
    entry: Published,
    target: Path,
    on_progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> None:
    """Fetch exactly the bytes announced, or raise PackageError."""
    size = 0
    try:
        with (
            urllib.request.urlopen(entry.url, timeout=TIMEOUT_SECONDS) as answer,
            target.open("wb") as stream,
        ):
            while size <= entry.size_bytes and (block := answer.read(MEBIBYTE // 4)):
                _stop_if(cancelled)
                stream.write(block)
                size += len(block)
                on_progress(min(size / entry.size_bytes, 1.0) * 0.9)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as problem:
        raise PackageError(
            f"'{entry.url}' could not be downloaded ({getattr(problem, 'reason', problem)}); check "
            "the network and the proxy, or copy the file here and install it from there."
        ) from problem
    if size != entry.size_bytes or sha256(target) != entry.sha256.lower():
        raise PackageError(
            f"'{entry.url}' gave {size} bytes with another digest than the catalogue announces "
            f"({entry.size_bytes} bytes); nothing was installed, try again later."
        )


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("The installation was cancelled; nothing was installed.")
