"""The table of segments and the button "Show 3D"."""

from __future__ import annotations

import slicer

from .binding import QtCore, QtGui, QtWidgets
from .cpp import cpp, stored
from .ctk import ctkMenuButton
from .ctkinputs import row
from .nodewidgets import qMRMLWidget
from .observers import observe

VISIBLE, COLOR, OPACITY, NAME = range(4)
WIDTHS = {VISIBLE: 28, COLOR: 28, OPACITY: 60}


EVENTS = (
    "SegmentAdded",
    "SegmentRemoved",
    "SegmentModified",
    "SegmentsOrderModified",
    "RepresentationModified",
    "ContainedRepresentationNamesModified",
)


class SegmentationObserver:
    """Follows one segmentation: `_s_refresh()` runs when segments or their display change."""

    _s_node = None
    _s_observers = ()

    def segmentationNode(self):
        return self._s_node

    def setSegmentationNode(self, node):
        for observed, tag in self._s_observers:
            observed.RemoveObserver(tag)
        self._s_node = node
        self._s_observers = []
        if node is not None:
            for name in EVENTS:
                self._s_observe_event(node.GetSegmentation(), getattr(slicer.vtkSegmentation, name))
            self._s_observe_event(node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent)
        self._s_refresh()

    def _s_observe_event(self, observed, event):
        tag = observe(self, observed, event, self._s_refresh)
        self._s_observers.append((observed, tag))


@cpp
class qMRMLSegmentsTableView(qMRMLWidget, SegmentationObserver):
    """Visibility, colour, opacity and name of every segment."""

    SIGNALS = {
        "selectionChanged(QItemSelection,QItemSelection)": "_s_selected",
        "segmentAboutToBeModified(QString)": "_s_modifying",
    }
    _s_selected = QtCore.Signal(object, object)
    _s_modifying = QtCore.Signal(str)

    def __init__(self, parent=None):
        qMRMLWidget.__init__(self, parent)
        self._s_table = table = QtWidgets.QTableWidget(0, 4)
        row(self, table)
        table.setHorizontalHeaderLabels(["", "", "Opacity", "Name"])
        table.verticalHeader().hide()
        table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        table.setEditTriggers(QtWidgets.QAbstractItemView.NoEditTriggers)
        table.horizontalHeader().setStretchLastSection(True)
        for column, width in WIDTHS.items():
            table.setColumnWidth(column, width)
        self._s_ids = []
        table.cellClicked.connect(self._s_clicked)
        table.itemSelectionChanged.connect(lambda: self._s_selected.emit(None, None))

    def _s_show_columns(self):
        self._s_table.setColumnHidden(VISIBLE, not self.visibilityColumnVisible)
        self._s_table.setColumnHidden(COLOR, not self.colorColumnVisible)
        self._s_table.setColumnHidden(OPACITY, not self.opacityColumnVisible)
        self._s_table.horizontalHeader().setVisible(self.headerVisible)

    visibilityColumnVisible = stored(bool, "visibilityColumnVisible", True, _s_show_columns)
    colorColumnVisible = stored(bool, "colorColumnVisible", True, _s_show_columns)
    opacityColumnVisible = stored(bool, "opacityColumnVisible", True, _s_show_columns)
    headerVisible = stored(bool, "headerVisible", True, _s_show_columns)
    segmentCount = QtCore.Property(int, lambda self: len(self._s_ids))

    def _s_refresh(self):
        node = self._s_node
        self._s_ids = list(node.GetSegmentation().GetSegmentIDs()) if node else []
        self._s_table.rowCount = len(self._s_ids)
        for index, segment_id in enumerate(self._s_ids):
            self._s_fill(index, segment_id)

    def _s_fill(self, index, segment_id):
        segment = self._s_node.GetSegmentation().GetSegment(segment_id)
        display = self._s_node.GetDisplayNode()
        visible = display is None or display.GetSegmentVisibility(segment_id)
        opacity = display.GetSegmentOpacity3D(segment_id) if display else 1.0
        texts = ("◉" if visible else "○", "", f"{opacity:.2f}", segment.GetName())
        for column, text in enumerate(texts):
            item = QtWidgets.QTableWidgetItem(text)
            if column == COLOR:
                item.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            self._s_table.setItem(index, column, item)
        self._s_table.setRowHeight(index, 22)

    def _s_clicked(self, index, column):
        display = self._s_node.GetDisplayNode() if self._s_node else None
        if column == VISIBLE and display:
            segment_id = self._s_ids[index]
            self._s_modifying.emit(segment_id)
            display.SetSegmentVisibility(segment_id, not display.GetSegmentVisibility(segment_id))

    def tableWidget(self):
        return self._s_table

    def selectedSegmentIDs(self):
        rows = sorted({index.row() for index in self._s_table.selectedIndexes()})
        return tuple(self._s_ids[r] for r in rows)

    def setSelectedSegmentIDs(self, ids):
        self._s_table.clearSelection()
        for segment_id in ids:
            if segment_id in self._s_ids:
                self._s_table.selectRow(self._s_ids.index(segment_id))

    def clearSelection(self):
        self._s_table.clearSelection()

    def rowForSegmentID(self, segment_id):
        return self._s_ids.index(segment_id)

    def segmentIDForRow(self, index):
        return self._s_ids[index]

    def displayedSegmentIDs(self):
        return tuple(self._s_ids)


@cpp
class qMRMLSegmentationShow3DButton(ctkMenuButton, SegmentationObserver):
    """Makes the closed surfaces and shows them, or removes them."""

    def __init__(self, parent=None):
        ctkMenuButton.__init__(self, parent)
        self.text = "Show 3D"
        self.checkable = True
        self.enabled = False
        self.clicked.connect(self._s_clicked)

    locked = stored(bool, "locked", False)

    def _s_has_surface(self):
        representation = (
            slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        )
        return bool(
            self._s_node and self._s_node.GetSegmentation().ContainsRepresentation(representation)
        )

    def _s_refresh(self):
        node = self._s_node
        self.enabled = bool(node) and node.GetSegmentation().GetNumberOfSegments() > 0
        display = node.GetDisplayNode() if node else None
        self.checked = self._s_has_surface() and (
            display is None or bool(display.GetVisibility3D())
        )

    def _s_clicked(self, on):
        if self.locked or not self._s_node:
            return
        if on:
            self._s_node.CreateClosedSurfaceRepresentation()
        else:
            self._s_node.RemoveClosedSurfaceRepresentation()
        self._s_refresh()
