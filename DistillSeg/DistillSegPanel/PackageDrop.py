"""Model packages that are dropped onto the panel are added, as by the button "Add model…"."""

import qt

from DistillSegLib.package import SUFFIX


class PackageDrop(qt.QObject):
    """Watches a widget for drops of one package file.

    Args:
        widget: that takes the drop, also over the widgets in it.
        onDropped: called with the path after the drop has ended.
    """

    def __init__(self, widget, onDropped):
        super().__init__()
        self._widget, self._onDropped = widget, onDropped
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def eventFilter(self, _widget, event):
        """Take what is a package, and leave all else to Slicer's main window."""
        if event.type() not in (qt.QEvent.DragEnter, qt.QEvent.Drop):
            return False
        path = packageIn(event.mimeData())
        if not path:
            return False
        event.acceptProposedAction()
        if event.type() == qt.QEvent.Drop:
            # Checking takes a while, and the other program waits for the drop's end.
            qt.QTimer.singleShot(0, lambda: self._onDropped(path))
        return True

    def cleanup(self):
        """Watch no longer."""
        self._widget.removeEventFilter(self)
        self._widget.setAcceptDrops(False)


def packageIn(mimeData):
    """The one package file that is dragged; empty for anything else."""
    if not mimeData.hasUrls():
        return ""
    paths = [url.toLocalFile() for url in mimeData.urls()]
    return paths[0] if len(paths) == 1 and paths[0].endswith(SUFFIX) else ""
