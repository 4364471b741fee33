"""PySide6 as the stand-in needs it: off screen, and with enumerators that are integers.

The settings must stand before the first import of PySide6, so every file of the stand-in takes Qt
from here.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if ctypes.util.find_library("EGL"):  # otherwise VTK chooses for itself
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
sys.pyside6_option_python_enum = 0x02  # IntEnum, as PythonQt's enumerators are

import shiboken6  # noqa: E402
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets  # noqa: E402

OFF_SCREEN_NOISE = "This plugin does not support propagateSizeHints()"


def _print(kind, context, text: str) -> None:
    """Qt's messages on stderr, without the one that every window makes off screen."""
    if text != OFF_SCREEN_NOISE:
        print(text, file=sys.stderr)


def _keep_constants() -> None:
    """Makes None, True and False immortal, as they are from Python 3.12 on.

    PySide6 6.12 gives None back without a reference of its own (`QWidget().layout()`), so an older
    Python ends sooner or later with "deallocating None".
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


QtCore.qInstallMessageHandler(_print)
_keep_constants()

MODULES = (QtCore, QtGui, QtWidgets, QtUiTools)

__all__ = ["MODULES", "QtCore", "QtGui", "QtUiTools", "QtWidgets", "shiboken6"]
