"""The picture of a model in the list: its own result on a sample, or the colours it draws in."""

import qt
import slicer

from DistillSegLib.places import resources

EDGE = 72  # pixels


def iconOf(entry):
    """A QIcon."""
    if entry.package is None:
        return slicer.app.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
    path = resources() / "Thumbnails" / f"{entry.package.manifest.name}.png"
    pixmap = qt.QPixmap(str(path)) if path.is_file() else _colors(entry.package)
    icon = qt.QIcon()
    for mode in (qt.QIcon.Normal, qt.QIcon.Selected):  # untinted, also in the selected row
        icon.addPixmap(pixmap, mode)
    return icon


def _colors(package):
    """One stripe for each structure, as many as can be told apart."""
    pixmap = qt.QPixmap(EDGE, EDGE)
    labels = list(package.manifest.labels)[:12]
    painter = qt.QPainter(pixmap)
    for number, label in enumerate(labels):
        top, bottom = (EDGE * n // len(labels) for n in (number, number + 1))
        painter.fillRect(0, top, EDGE, bottom - top, qt.QColor(*label.color))
    painter.end()
    return pixmap
