"""The inference engine: is it there, ask once, install it, and say in one sentence why not.

Only `onnxruntime` is installed, only when the user asked for something that needs it, on the main
thread, and with Slicer's own means. Nothing here runs at import. Wheels only: nothing is compiled,
and no package of Slicer's is replaced by an older one.
"""

import contextlib
import importlib
import importlib.metadata
import logging
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel.PipOutput import Listener, causeOf

ENGINE = "onnxruntime"
REQUIREMENT = "onnxruntime>=1.19"
OLDEST = (1, 19)
SIZE_MB = 20  # of the download, at most, on the systems that Slicer runs on

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """How the engine stands.

    Attributes:
        version: such as "1.23.0"; empty if absent.
        problem: why it cannot be used though it is there; empty if it can or is absent.
    """

    version: str = ""
    problem: str = ""

    @property
    def isUsable(self):
        """Whether a model can be run now."""
        return bool(self.version) and not self.problem


class InstallError(DistillSegError):
    """The engine could not be installed.

    Attributes:
        cause: "declined", "unattended", "testing", "proxy", "certificate", "disk", "permission",
            "network", "wheel" or "other".
        command: what an administrator types to install it.
    """

    def __init__(self, sentence, cause, command):
        super().__init__(sentence)
        self.cause = cause
        self.command = command


def state():
    """How the engine stands; imports it, which takes part of a second once."""
    try:
        version = importlib.metadata.version(ENGINE)
    except importlib.metadata.PackageNotFoundError:
        return State()
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return State(
            version,
            _("{engine} {version} is older than {oldest}; install it again.").format(
                engine=ENGINE, version=version, oldest=oldest
            ),
        )
    try:
        importlib.import_module(ENGINE)
    except Exception as problem:  # a missing system library raises what it likes
        return State(
            version,
            _("{engine} {version} is installed but does not load ({reason}); repair it.").format(
                engine=ENGINE, version=version, reason=str(problem).strip().splitlines()[-1][:200]
            ),
        )
    return State(version)


def sizeOnDisk():
    """Bytes of the engine's own files, without what it rests on; 0 if it is absent."""
    try:
        files = importlib.metadata.files(ENGINE) or ()
    except importlib.metadata.PackageNotFoundError:
        return 0
    paths = (Path(each.locate()) for each in files)
    return sum(path.stat().st_size for path in paths if path.is_file())


def administratorCommand(wheelFolder=None):
    """What installs the engine from a command prompt, for this Slicer and no other Python."""
    # In Slicer, sys.executable is PythonSlicer on the one side and the application on the other.
    home = Path(slicer.app.slicerHome)
    python = home / "bin" / ("PythonSlicer.exe" if sys.platform == "win32" else "PythonSlicer")
    return f'"{python}" -m pip install {_quoted(_arguments(wheelFolder))}'


def ensure(*, wheelFolder=None):
    """Make the engine usable: nothing if it is, otherwise ask once and install.

    Args:
        wheelFolder: a folder of wheels to install from instead of the network.

    Raises:
        InstallError: the user said no, or the cause class of a failure, in one sentence.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("Packages are installed on the main thread only.")
    now = state()
    if now.isUsable:
        return now
    if _isUnattended():
        raise _unattended(wheelFolder)
    printed = Listener(sys.stdout)
    try:
        with contextlib.redirect_stdout(printed):
            if wheelFolder is None and not now.problem and _packaging() is not None:
                _packaging().pip_ensure(REQUIREMENT, requester="DistillSeg")
            else:
                _askAndInstall(wheelFolder, repair=bool(now.problem))
    except InstallError:
        raise
    except Exception as problem:
        raise _named(problem, printed.text(), wheelFolder) from problem
    importlib.invalidate_caches()
    now = state()
    if not now.isUsable:
        raise _notThere(now)
    return now


def _isTesting():
    """Slicer then answers its own questions with yes, which must not install anything."""
    return slicer.app.testingEnabled()


def _isUnattended():
    """A script without the main window would wait forever for an answer to a dialog box."""
    return slicer.app.layoutManager() is None


def _packaging():
    """Slicer's own package management, from 5.11 on; None before."""
    try:
        return importlib.import_module("slicer.packaging")
    except ImportError:
        return None


def _askAndInstall(wheelFolder, *, repair):
    question = _(
        "Segmenting needs the Python package '{engine}' ({size} MB at most, from {place}). Install "
        "it into Slicer now?"
    ).format(engine=ENGINE, size=SIZE_MB, place=wheelFolder or "pypi.org")
    if _isTesting():
        raise _testing(wheelFolder)
    if not slicer.util.confirmOkCancelDisplay(question, _("DistillSeg")):
        raise _declined(wheelFolder)
    arguments = _arguments(wheelFolder)
    if repair:
        arguments = ["--force-reinstall", "--no-deps", *arguments]
    slicer.util.pip_install(arguments)
    if repair:  # what did not load half way must not be taken for loaded
        for name in [each for each in sys.modules if each.partition(".")[0] == ENGINE]:
            del sys.modules[name]


def _arguments(wheelFolder):
    if wheelFolder is None:
        return ["--only-binary=:all:", REQUIREMENT]
    return ["--no-index", "--find-links", str(wheelFolder), REQUIREMENT]


def _quoted(arguments):
    """One line for a command prompt, in double quotes where a shell needs them."""
    return " ".join(f'"{a}"' if any(c in a for c in " <>&()'") else a for a in arguments)


def _named(problem, printed, wheelFolder):
    """An exception of pip or of Slicer as one sentence with its cause class."""
    if isinstance(problem, RuntimeError) and "declined" in str(problem).lower():
        return _declined(wheelFolder)
    log.warning("%s could not be installed: %s", ENGINE, problem)
    output = [printed, problem, getattr(problem, "output", ""), getattr(problem, "stderr", "")]
    cause = causeOf("\n".join(map(str, output)))
    return InstallError(_sentence(cause, wheelFolder), cause, administratorCommand(wheelFolder))


def _sentence(cause, wheelFolder):
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    sentences = {
        "proxy": _("The proxy of this network refused the download; set it for pip, or ask IT."),
        "certificate": _(
            "The network replaces certificates, so the download was refused; ask IT to install it."
        ),
        "disk": _("There is no space left on the disk; free some, then try again."),
        "permission": _(
            "Slicer's folder may not be written to by this user; ask an administrator."
        ),
        "network": _(
            "The package server cannot be reached; check the network, or install offline."
        ),
        "wheel": _(
            "There is no '{engine}' for this system with Python {python} in {place}; get the wheel "
            "that fits."
        ).format(engine=ENGINE, python=python, place=wheelFolder or "pypi.org"),
        "other": _("'{engine}' could not be installed; the Python console shows why.").format(
            engine=ENGINE
        ),
    }
    return sentences[cause]


def _declined(wheelFolder):
    return InstallError(
        _("Without '{engine}' no model can run; segment again to install it.").format(
            engine=ENGINE
        ),
        "declined",
        administratorCommand(wheelFolder),
    )


def _unattended(wheelFolder):
    command = administratorCommand(wheelFolder)
    return InstallError(
        _(
            "'{engine}' is absent, and without the main window nobody can be asked to install it; "
            "type in a command prompt: {command}"
        ).format(engine=ENGINE, command=command),
        "unattended",
        command,
    )


def _testing(wheelFolder):
    return InstallError(
        _("'{engine}' is absent, and nothing is installed while Slicer is being tested.").format(
            engine=ENGINE
        ),
        "testing",
        administratorCommand(wheelFolder),
    )


def _notThere(now):
    if _isTesting():
        return _testing(None)
    if now.problem:
        return InstallError(now.problem, "other", administratorCommand())
    return InstallError(_sentence("other", None), "other", administratorCommand())
