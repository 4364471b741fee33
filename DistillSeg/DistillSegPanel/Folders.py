"""Folders that the user chose, remembered by the computer.

Not in the parameter node: a scene goes to other people, and a path names its owner.
"""

import os
import tempfile

import qt
import slicer
from slicer.i18n import tr as _

from DistillSegPanel.Nodes import NodeError

CORRECTIONS, EXPORT, BATCH_IN, BATCH_OUT = "Corrections", "Export", "BatchImages", "BatchResults"


def remembered(what):
    """The folder that was chosen last; at first one among the user's documents."""
    return slicer.app.userSettings().value(_key(what)) or _first(what)


def remember(what, folder):
    """Keep a folder for next time."""
    slicer.app.userSettings().setValue(_key(what), folder)


def checkFolder(folder):
    """Raise NodeError unless files can be written into a folder; it is made if absent."""
    if not folder:
        raise NodeError(_("Choose a folder to write to."))
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise NodeError(
            _("Nothing can be written to '{folder}' ({reason}); choose another folder.").format(
                folder=folder, reason=problem.strerror or problem
            )
        ) from problem


def openFolder(folder):
    """Show a folder in the file browser of the system."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))


def _key(what):
    return f"DistillSeg/{what}Folder"


def _first(what):
    documents = qt.QStandardPaths.writableLocation(qt.QStandardPaths.DocumentsLocation)
    return os.path.join(documents, "DistillSeg", what) if documents else ""
