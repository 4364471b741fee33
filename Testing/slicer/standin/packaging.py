"""`slicer.packaging` of Slicer 5.12 and later, and a `slicer.util.pip_install` that only records.

Nothing is ever installed: what would have been is in `requests`. `absent()` takes the module away,
as in Slicer 5.8 and 5.10, where only `slicer.util.pip_install` exists.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import slicer

from .violations import record

requests: list[str] = []
_failure: list[subprocess.CalledProcessError] = []
NAME = "slicer.packaging"


def _requirements(given) -> list:
    from packaging.requirements import Requirement

    given = given.split() if isinstance(given, str) else given
    given = given if isinstance(given, list) else [given]
    return [Requirement(g) if isinstance(g, str) else g for g in given]


def load_requirements(path):
    """Requirements of a text file; comments and options are skipped."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return _requirements([line for line in lines if line and line[0] not in "#-"])


def _is_satisfied(requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return importlib.metadata.version(requirement.name) in requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_check(req):
    """Whether requirements are satisfied."""
    return all(_is_satisfied(r) for r in _requirements(req))


def pip_ensure(
    requirements,
    constraints=None,
    skip_packages=None,
    prompt_install=True,
    prompt_restart=True,
    requester=None,
    skip_in_testing=True,
    show_progress=True,
):
    """Asks and installs what is missing; silently nothing in testing mode."""
    missing = [str(r) for r in _requirements(requirements) if not _is_satisfied(r)]
    if not missing or (skip_in_testing and slicer.app.testingEnabled()):
        return None
    question = f"{requester or 'The module'} requires: {', '.join(missing)}. Install?"
    if prompt_install and not slicer.util.confirmOkCancelDisplay(question):
        raise RuntimeError("User declined installation")
    pip_install(missing)
    return None


def pip_install(requirements, **options):
    """Records what would be installed, or fails as `failing` says."""
    if threading.current_thread() is not threading.main_thread():
        record("pip-in-thread", "pip_install was called outside the main thread")
    text = requirements if isinstance(requirements, str) else " ".join(map(str, requirements))
    requests.append(text)
    if _failure:
        raise _failure[-1]


def pip_uninstall(requirements):
    requests.append(f"uninstall {requirements}")


@contextlib.contextmanager
def failing(output: str, code: int = 1) -> Iterator[None]:
    """While inside, every installation fails with this output of pip."""
    _failure.append(subprocess.CalledProcessError(code, ["pip", "install"], output, output))
    try:
        yield
    finally:
        _failure.pop()


@contextlib.contextmanager
def absent() -> Iterator[None]:
    """While inside, Slicer has no `slicer.packaging`."""
    module = sys.modules.pop(NAME)
    sys.modules[NAME] = None  # `import slicer.packaging` raises ImportError
    del slicer.packaging
    try:
        yield
    finally:
        sys.modules[NAME] = module
        slicer.packaging = module


def install() -> None:
    """Puts `slicer.packaging` and the functions of `slicer.util` in place."""
    module = types.ModuleType(NAME)
    for function in (load_requirements, pip_check, pip_ensure, pip_install, pip_uninstall):
        setattr(module, function.__name__, function)
    module.isPipInstallInProgress = lambda: False
    sys.modules[NAME] = module
    slicer.packaging = module
    slicer.util.pip_install = pip_install
    slicer.util.pip_uninstall = pip_uninstall
