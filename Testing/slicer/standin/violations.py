"""The list of faults that real Slicer would only print, or would not even notice.

In the application an unknown signal or an error in a slot is a line in the log, and the panel goes
on. The stand-in writes each into `violations`; the tests demand after every test that it is empty.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = str(Path(__file__).parent)


@dataclass(frozen=True)
class Violation:
    """One fault: its kind, what happened, and the first line outside the stand-in that did it."""

    kind: str
    text: str
    where: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text} ({self.where})"


violations: list[Violation] = []


def _place() -> str:
    frame = sys._getframe(2)
    while frame and str(Path(frame.f_code.co_filename).parent) == HERE:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "?"


def record(kind: str, text: str) -> None:
    """Notes a fault and goes on, as the application does."""
    violation = Violation(kind, text, _place())
    violations.append(violation)
    logging.getLogger(__name__).warning("%s", violation)


@contextlib.contextmanager
def expected(kind: str) -> Iterator[list[Violation]]:
    """Takes the faults of one kind out of the list again; there must be at least one.

    For tests that provoke a fault on purpose. The yielded list is filled at the end.
    """
    found: list[Violation] = []
    before = len(violations)
    yield found
    new = violations[before:]
    found += [v for v in new if v.kind == kind]
    violations[before:] = [v for v in new if v.kind != kind]
    if not found:
        raise AssertionError(f"No violation of kind '{kind}' was recorded; others: {new}.")
