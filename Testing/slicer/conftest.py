"""Starts the stand-in of the Slicer application for the tests of this folder.

Files that import `slicer`, `qt`, `ctk` or our `SlicerCase` at their top need the application; where
slicer-core or PySide6 is not installed they are skipped with the reason. After every test the list
of faults that Slicer would only print must be empty. In the real application nothing here is used.
"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODULE = ROOT / "DistillSeg" / "DistillSeg.py"
OF_THE_APPLICATION = {"slicer", "qt", "ctk", "SlicerCase", "standin"}

for folder in (HERE, MODULE.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def needs_application(path: Path) -> bool:
    """Whether a test file imports the application outside of functions and `try`."""
    imports = [
        n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.Import)
    ]
    names = {alias.name.split(".")[0] for node in imports for alias in node.names}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return bool(names & OF_THE_APPLICATION)


@functools.cache
def started() -> str | None:
    """Starts the application once; why it cannot be started, or None."""
    import standin

    reason = standin.missing()
    if reason is None:
        from standin import application

        application.start()
        if MODULE.exists():
            application.load_module(MODULE)
    return reason


class Unavailable(pytest.Module):
    """A test file whose application is not there."""

    def collect(self):
        pytest.skip(started(), allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    if needs_application(module_path) and started():
        return Unavailable.from_parent(parent, path=module_path)
    return None


def pytest_sessionfinish():
    if started.cache_info().currsize and started() is None:
        from standin import application

        application.stop()


@pytest.fixture(autouse=True)
def no_violations(request):
    """Every test leaves the list of violations empty and no worker behind."""
    if not (needs_application(request.path) and started() is None):
        yield
        return
    from standin import threads
    from standin.violations import violations

    violations.clear()
    with threads.watched():
        yield
    threads.check()
    found = [str(v) for v in violations]
    violations.clear()
    assert not found, "\n".join(found)
