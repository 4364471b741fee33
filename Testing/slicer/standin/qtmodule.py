"""The module `qt` of Slicer: all of Qt in one flat namespace, as far as Qt 5.15 had it."""

from __future__ import annotations

import types

import facts

from . import attributes, signals
from .binding import MODULES, QtCore, QtWidgets
from .violations import record

LONGEST_DIALOG_MS = 10_000


class BoolResult:
    """Takes the `bool* ok` of functions such as `QInputDialog.getText`."""

    def __init__(self):
        self._value = False

    def __bool__(self):
        return self._value


def build():
    """Installs PythonQt's rules and returns the module `qt`."""
    attributes.install()
    module = types.ModuleType("qt")
    for source in MODULES:
        for name in dir(source):
            thing = getattr(source, name)
            is_new_class = isinstance(thing, type) and name not in facts.qt_classes()
            if name.startswith("Q") and not is_new_class:
                setattr(module, name, thing)
    module.BoolResult = BoolResult
    module.Qt = QtCore.Qt
    _return_paths_only()
    _record_errors_of_single_shots()
    _end_forgotten_dialogs()
    return module


def _return_paths_only() -> None:
    """File dialogs return what was chosen, without the filter."""
    dialog = QtWidgets.QFileDialog
    for name in ("getOpenFileName", "getSaveFileName", "getOpenFileNames"):
        original = getattr(dialog, name)

        def ask(*arguments, _original=original):
            chosen = _original(*arguments)[0]
            return tuple(chosen) if isinstance(chosen, list) else chosen

        setattr(dialog, name, staticmethod(ask))


def _record_errors_of_single_shots() -> None:
    waiting = set()

    def single_shot(milliseconds, receiver, *slot):
        target = getattr(receiver, slot[0].split("(")[0]) if slot else receiver
        timer = QtCore.QTimer()
        waiting.add(timer)

        def run():
            timer.stop()
            waiting.discard(timer)
            target()

        signals.connect(timer, "timeout()", run)
        timer.start(int(milliseconds))

    QtCore.QTimer.singleShot = staticmethod(single_shot)


def _end_forgotten_dialogs() -> None:
    """A dialog that nobody answers would stop the tests: it is closed after a while, and noted."""
    for cls in (QtWidgets.QDialog, QtWidgets.QMessageBox):
        original = cls.exec

        def run(self, _original=original):
            timer = QtCore.QTimer()
            timer.setSingleShot(True)
            timer.timeout.connect(lambda: _give_up(self))
            timer.start(LONGEST_DIALOG_MS)
            try:
                return _original(self)
            finally:
                timer.stop()

        cls.exec = run
        cls.exec_ = run


def _give_up(dialog) -> None:
    text = getattr(dialog, "text", "") or dialog.windowTitle
    record("dialog-left-open", f"{attributes.class_name(dialog)} waited for an answer: {text}")
    dialog.reject()
