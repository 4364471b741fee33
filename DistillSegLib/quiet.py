"""Silence for what C++ libraries print past Python."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_saved = -1


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what is written to the error stream by ITK, its NIfTI, MetaImage and DICOM readers.

    They print paths of source files beside the exception that we turn into one sentence, or beside
    nothing at all. They write to file descriptor 2, which belongs to the whole process, so keep the
    block to the one call; blocks may overlap in several threads.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _saved
    with _lock:
        _inside += 1
        if _inside > 1:
            return
        try:
            sys.stderr.flush()
            _saved = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        except (OSError, AttributeError):  # a program without a console has no such stream
            _saved = -1


def _leave() -> None:
    global _inside, _saved
    with _lock:
        _inside -= 1
        if _inside == 0 and _saved >= 0:
            os.dup2(_saved, 2)
            os.close(_saved)
            _saved = -1
