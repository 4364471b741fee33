"""The section Results: what was found, how large it is, and what a person should look at."""

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from DistillSegLib.errors import DistillSegError
from DistillSegPanel import Outputs
from DistillSegPanel.Bars import barIcon
from DistillSegPanel.Confidence import confidenceOf
from DistillSegPanel.Findings import Findings
from DistillSegPanel.ResultTexts import confidenceTip, nothingText, signsOf, volumeText
from DistillSegPanel.Views import centerViews

VISIBLE, STRUCTURE, VOLUME, CONFIDENCE, SIGNS = range(5)
SWATCH = 12  # pixels
BAR = (24, 8)  # pixels
MOST_ROWS = 8  # that are seen without scrolling


class Results(VTKObservationMixin):
    """A table of the segments that are reviewed, or of the last output.

    Attributes:
        node: the segmentation that is shown, or None.
        findings: its volumes and signs.
    """

    def __init__(self, panel, parent):
        VTKObservationMixin.__init__(self)
        self.panel = panel
        self.node = None
        self.ids = []  # of the segments, row by row
        self.findings = Findings(panel.changedSoon, self._isStack)
        self._parent = parent
        self.ui = panel.loadUi("Results", parent)
        table = self.table = self.ui.resultsTable
        table.setHorizontalHeaderLabels(
            ("", _("Structure"), _("cm³"), _("Confidence"), _("Look at"))
        )
        table.setIconSize(qt.QSize(BAR[0], SWATCH))
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(STRUCTURE, qt.QHeaderView.Stretch)
        header.setHighlightSections(False)
        table.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)
        table.connect("cellClicked(int,int)", self.onClicked)
        table.connect("cellActivated(int,int)", self.onActivated)
        table.connect("cellDoubleClicked(int,int)", self.onDoubleClicked)
        table.connect("customContextMenuRequested(QPoint)", self.onContextMenu)

    def enter(self):
        """The module is shown."""

    def exit(self):
        """Another module is shown."""

    def cleanup(self):
        """Leave no observer or thread."""
        self.findings.cleanup()
        self.removeObservers()
        self.node = None

    def sceneClosing(self):
        """The segmentation goes."""
        self._follow(None)

    def update(self):
        """Show the segments, their volumes and signs."""
        parameters = self.panel.parameters
        node = parameters.reviewed or parameters.outputSegmentation
        self._follow(node)
        self._parent.setVisible(node is not None)
        if node is None:
            return
        segmentation = node.GetSegmentation()
        self.ids = [
            segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())
        ]
        self.ui.resultLabel.text = self._sentence()
        self._showSegments(segmentation)

    def isEmpty(self):
        """Whether the model found nothing at all."""
        found = self.findings.bySegment
        return bool(found) and all(finding.volume_ml == 0 for finding in found.values())

    def onItemChanged(self, item):
        """A structure was shown or hidden."""
        if self.panel.updating or item.column() != VISIBLE or not self.ids:
            return
        isShown = item.checkState() == qt.Qt.Checked
        self.node.CreateDefaultDisplayNodes()
        self.node.GetDisplayNode().SetSegmentVisibility(self.ids[item.row()], isShown)

    def onClicked(self, row, column):
        """Centre the views on a structure and show it alone in 3D; again: show all there."""
        if column != VISIBLE and row < len(self.ids):
            self.center(self.ids[row])
            self.solo(None if self._isAlone(self.ids[row]) else self.ids[row])

    def onActivated(self, row, column):
        """The same from the keyboard."""
        if column != VISIBLE and row < len(self.ids):
            self.center(self.ids[row])
            self.solo(self.ids[row])

    def onDoubleClicked(self, row, column):
        """Edit a structure."""
        if column != VISIBLE and row < len(self.ids):
            self.panel.editing.edit(self.node, self.ids[row])

    def onContextMenu(self, position):
        """Offer what can be done with the structure below the pointer."""
        row = self.table.rowAt(position.y())
        if 0 <= row < len(self.ids):
            self.menuFor(row).popup(self.table.mapToGlobal(position))

    def menuFor(self, row):
        """The menu of a row."""
        menu = qt.QMenu(self.table)
        menu.setAttribute(qt.Qt.WA_DeleteOnClose)
        identifier = self.ids[row]
        centre = menu.addAction(_("Centre views"))
        centre.connect("triggered()", lambda: self.center(identifier))
        everything = menu.addAction(_("Show all in 3D"))
        everything.connect("triggered()", lambda: self.solo(None))
        edit = menu.addAction(_("Edit"))
        edit.connect("triggered()", lambda: self.onDoubleClicked(row, STRUCTURE))
        reset = menu.addAction(_("Reset to the model's output"))
        raw = Outputs.rawOf(self.node)
        reset.enabled = raw is not None and identifier in Outputs.ownSegments(raw)
        reset.connect("triggered()", lambda: self.reset(identifier))
        return menu

    def center(self, segmentId):
        """Centre the views on a structure; nothing happens where it is empty."""
        finding = self.findings.bySegment.get(segmentId)
        if finding is None or finding.volume_ml > 0:
            centerViews(self.node.GetSegmentCenterRAS(segmentId))

    def solo(self, segmentId):
        """Show one structure alone in 3D; None shows all."""
        display = self.node.GetDisplayNode()
        if display is not None:
            with slicer.util.NodeModify(display):
                for each in self.ids:
                    display.SetSegmentVisibility3D(each, segmentId in (None, each))

    def reset(self, segmentId):
        """Take a structure back to what the model gave; Undo in the editor takes this back."""
        try:
            self.panel.editing.saveForUndo(self.node)
            Outputs.reset(self.node, [segmentId])
        except DistillSegError as problem:
            self.panel.say(str(problem), "error")
            return
        segment = self.node.GetSegmentation().GetSegment(segmentId)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        logic.SetSegmentStatus(segment, logic.NotStarted)
        self.panel.say(_("'{name}' is as the model gave it.").format(name=segment.GetName()))

    def _follow(self, node):
        if node is self.node:
            return
        self.removeObservers()
        self.node = node
        self.findings.follow(node)
        if node is not None:
            event = slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent
            self.addObserver(node, event, self.panel.changedSoon)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.panel.changedSoon)
            for name in ("SegmentAdded", "SegmentRemoved", "SegmentModified"):
                event = getattr(slicer.vtkSegmentation, name)
                self.addObserver(node.GetSegmentation(), event, self.panel.changedSoon)

    def _showSegments(self, segmentation):
        display = self.node.GetDisplayNode()
        self._resize(len(self.ids))
        for row, identifier in enumerate(self.ids):
            segment = segmentation.GetSegment(identifier)
            isShown = display is None or bool(display.GetSegmentVisibility(identifier))
            self._put(row, VISIBLE, "").setCheckState(qt.Qt.Checked if isShown else qt.Qt.Unchecked)
            structure = self._put(row, STRUCTURE, segment.GetName())
            structure.setIcon(_swatch(segment.GetColor()))
            finding = self.findings.bySegment.get(identifier)
            volume = self._put(row, VOLUME, volumeText(finding.volume_ml) if finding else "…")
            volume.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self._showConfidence(row, confidenceOf(segment))
            signs = signsOf(finding, segment)
            item = self._put(row, SIGNS, ", ".join(text for text, _why in signs))
            item.setToolTip("\n".join(why for _text, why in signs))

    def _showConfidence(self, row, confidence):
        """A bar with its number; nothing where it is unknown."""
        isKnown = confidence is not None
        item = self._put(row, CONFIDENCE, f"{confidence:.2f}" if isKnown else "")
        item.setIcon(barIcon(confidence, self.table.palette, *BAR) if isKnown else qt.QIcon())
        item.setToolTip(confidenceTip(confidence) if isKnown else _("Not known for this structure"))

    def _isStack(self, node):
        """Whether the model that made a segmentation takes stacks from within the organ."""
        package = self.panel.modelList.find(Outputs.modelOf(node))
        return package is not None and package.manifest.preprocessing.orientation == "slices"

    def _isAlone(self, segmentId):
        """Whether a structure is the only one in 3D, of several."""
        display = self.node.GetDisplayNode()
        if display is None or len(self.ids) < 2:
            return False
        return [i for i in self.ids if display.GetSegmentVisibility3D(i)] == [segmentId]

    def _sentence(self):
        """The name of what is shown, or why there is nothing in it."""
        if self.findings.problem or not self.isEmpty():
            return self.findings.problem or self.node.GetName()
        package = self.panel.modelList.find(Outputs.modelOf(self.node))
        try:
            return nothingText(package, Outputs.volumeOf(self.node))
        except DistillSegError as problem:
            return str(problem)

    def _resize(self, count):
        table = self.table
        if table.rowCount != count:
            table.setRowCount(count)
        if count:
            height = table.rowHeight(0) * min(count, MOST_ROWS) + _headerHeight(table)
            table.setFixedHeight(height)

    def _put(self, row, column, text):
        item = self.table.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem()
            self.table.setItem(row, column, item)
        if item.text() != text:
            item.setText(text)
        return item


def _headerHeight(table):
    return table.horizontalHeader().height + 2 * table.frameWidth + 2


def _swatch(color):
    pixmap = qt.QPixmap(SWATCH, SWATCH)
    pixmap.fill(qt.QColor(*(round(255 * part) for part in color)))
    return qt.QIcon(pixmap)
