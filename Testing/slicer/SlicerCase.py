"""The base of tests that run in the application and on the stand-in alike."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

import qt
import slicer

POLL_MS = 20


class SlicerCase(unittest.TestCase):
    """An empty scene before every test, and what a user does: open, click, wait, look."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def openModule(self, name: str):
        """Shows a module's panel and returns its Python widget."""
        slicer.util.selectModule(name)
        slicer.app.processEvents()
        return slicer.util.getModuleWidget(name)

    def leaveModule(self):
        """Shows another module's panel, so that `exit()` is called."""
        slicer.util.selectModule("Data")
        slicer.app.processEvents()

    def waitUntil(self, condition, seconds: float = 30, what: str = ""):
        """Lets Qt's events run until the condition holds.

        It waits in Qt's own loop, where workers advance only if the panel waits for them.
        """
        loop, timer, limit = qt.QEventLoop(), qt.QTimer(), qt.QTimer()
        held = []

        def check():
            if condition():
                held.append(True)
                loop.quit()

        timer.connect("timeout()", check)
        limit.connect("timeout()", loop.quit)
        timer.start(POLL_MS)
        limit.start(int(1000 * seconds))
        check()
        if not held:
            loop.exec_()
        timer.stop()
        limit.stop()
        self.assertTrue(held, f"Waited {seconds} s in vain. {what}")

    def waitFor(self, seconds: float):
        """Lets Qt's events run for a while."""
        loop = qt.QEventLoop()
        qt.QTimer.singleShot(int(1000 * seconds), loop.quit)
        loop.exec_()

    def screenshot(self, name: str, widget=None) -> Path:
        """Writes the main window, or one widget, as a PNG.

        The folder is DISTILLSEG_SCREENSHOTS, or one for temporary files.
        """
        slicer.app.processEvents()
        default = Path(tempfile.gettempdir()) / "distillseg-screenshots"
        folder = Path(os.environ.get("DISTILLSEG_SCREENSHOTS", default))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        self.assertTrue((widget or slicer.util.mainWindow()).grab().save(str(path)))
        return path
