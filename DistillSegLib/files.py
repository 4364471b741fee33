"""Files that are either whole or absent.

Every result is written to a temporary name beside its place and renamed when complete, so a full
disk, a cancel or a kill leaves the old file or none, never half of one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from DistillSegLib.errors import ImageError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path with the same ending as `path`, which becomes `path` if the block succeeds.

        with replacing("out.nii.gz") as temporary:
            sitk.WriteImage(image, str(temporary))

    The folder is made if absent. Raises ImageError in one sentence where the system refuses
    (no space, no permission); the temporary file is removed on any failure.
    """
    path = Path(path)
    # The end of the name tells the format; all of it might be longer than the system allows.
    temporary = path.parent / f".partial-{uuid4().hex[:8]}-{path.name[-20:]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)  # a folder that refuses is found before the work
        yield temporary
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())  # on the disk before it takes the name, also if power fails
        temporary.replace(path)
    except (FileExistsError, NotADirectoryError) as problem:
        raise ImageError(
            f"'{path}' could not be written, for a part of '{path.parent}' exists and is no "
            "folder; choose another place."
        ) from problem
    except OSError as problem:
        raise ImageError(
            f"'{path}' could not be written ({problem.strerror or problem}); check the free space "
            "and the permissions of the folder."
        ) from problem
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path | str, text: str) -> Path:
    """Write `text` as UTF-8 with Unix line ends on every system, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def identity(path: Path | str) -> tuple[int, int] | None:
    """The same for all names of one file, also through links; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def has_plain_name(path: Path | str) -> bool:
    """Whether a path is text. Bytes that are not, from another system, end C++ libraries."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
