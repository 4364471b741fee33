"""What the views of a comparison show: which structure, which slice, how; and leaving it all.

Main thread only.
"""

import qt
import slicer
from slicer.i18n import tr as _

from DistillSegPanel import CompareLayout as Layout
from DistillSegPanel import DifferenceMap, DisagreementPlot, DistanceMap, Outputs
from DistillSegPanel.CompareDisplay import CompareDisplay
from DistillSegPanel.Run import showSurfaces
from DistillSegPanel.WorstSlices import WorstSlices

BLINK_MS = 500
ACROSS = {  # planes whose normals run across and up in the pictures of a plane
    "axial": ("sagittal", "coronal"),
    "coronal": ("sagittal", "axial"),
    "sagittal": ("coronal", "axial"),
}


class CompareView:
    """Opens, steers and leaves the views.

    Args:
        onMoved: called when another slice is shown.
        onLeft: called when the views were left, also by choosing another layout.

    Attributes:
        isOpen: whether they are shown.
        worst: which slice of which structure is looked at.
    """

    def __init__(self, panel, onMoved, onLeft):
        self.panel = panel
        self.isOpen = False
        self.worst = WorstSlices()
        self.display = CompareDisplay()
        self.distances = DistanceMap.DistanceMap(panel, self.onDistances)
        self.comparison = self.a = self.b = None
        self._ids = ([], [])
        self._onMoved, self._onLeft = onMoved, onLeft
        self._timer = self._plot = None

    @property
    def plane(self):
        """Along which A and B are cut: "axial", "coronal" or "sagittal"."""
        return self.panel.parameters.comparePlane

    def use(self, comparison, a, b, ids):
        """What is to be shown: A, B and the IDs of their segments as they were compared."""
        self.comparison, self.a, self.b, self._ids = comparison, a, b, ids
        self.worst.clear()

    def forget(self):
        """There is nothing to show any more."""
        self.close()
        self.comparison = self.a = self.b = None
        self.worst.clear()

    def open(self):
        """Show the views; False where there is no window for them."""
        if self.comparison is None or not Layout.show():
            return False
        wasOpen, self.isOpen = self.isOpen, True
        for node in (self.a, self.b):
            if Outputs.modelOf(node):  # others' are left as they are
                showSurfaces(node)
        self.display.style = self.panel.parameters.compareStyle
        Layout.setBackground(self._volume(), self.plane)
        self._showDifference(None)
        if not wasOpen:
            slicer.app.layoutManager().connect("layoutChanged(int)", self.onLayout)
            self._plot = Layout.plotView()
            if self._plot is not None:
                self._plot.connect(
                    "dataSelected(vtkStringArray*,vtkCollection*)", self.onPlotClicked
                )
        Layout.look3D()
        return True

    def close(self):
        """Leave the views and bring back what was there before."""
        if not self.isOpen:
            return
        self.isOpen = False
        self.setBlinking(False)
        self.distances.stop()
        DistanceMap.show(None)
        slicer.app.layoutManager().disconnect("layoutChanged(int)", self.onLayout)
        if self._plot is not None:
            self._plot.disconnect(
                "dataSelected(vtkStringArray*,vtkCollection*)", self.onPlotClicked
            )
            self._plot = None
        self.display.leave()
        Layout.hide()
        self._onLeft()

    def choose(self, row, index=None):
        """Show one structure alone, at its worst slice or at a given one."""
        self.worst.start(self.comparison, row, self.plane)
        if index is not None and index >= 0:
            self.worst.goTo(index)
        parameters = self.panel.parameters
        parameters.comparisonChart = DisagreementPlot.put(self.worst, parameters.comparisonChart)
        self.keepTogether()
        if self.isOpen:
            ids = [self._segmentId(0, row.a), self._segmentId(1, row.b)]
            self._showDifference([row])
            self.display.solo(self.a, self.b, *ids)
            self._frame(row)
            self.showDistances()
        self._moved()

    def step(self, by):
        """The next (1) or previous (-1) of the worst slices."""
        self.worst.step(by)
        self._moved()

    def turn(self):
        """Another plane was chosen."""
        if self.isOpen:
            Layout.setPlane(self.plane, self._volume())
        if self.worst.row is not None:
            self.choose(self.worst.row)

    def restyle(self):
        """Another look was chosen: style, or opacity of the difference."""
        self.display.style = self.panel.parameters.compareStyle
        if self.isOpen:
            self.display.apply()
            self.display.setDifferenceOpacity(self.panel.parameters.differenceOpacity)

    def showDistances(self):
        """Show what the parameters say in the view of the difference: the map, or distances."""
        isOn, row = self.panel.parameters.showDistances, self.worst.row
        known = isOn and self.isOpen and row is not None and row.disagreement is not None
        if known:
            self.distances.compute(self.comparison, row)
        else:
            self.distances.stop()
            self._useDistances(None)

    def setBlinking(self, isOn):
        """Show A and B in turns in the view of A, twice a second."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.disconnect("timeout()", self.onBlink)
            self._timer.deleteLater()
            self._timer = None
        self.display.blinkingB = False if isOn else None
        if isOn:
            self._timer = qt.QTimer()
            self._timer.setInterval(BLINK_MS)
            self._timer.connect("timeout()", self.onBlink)
            self._timer.start()
        if self.isOpen:
            self.display.apply()

    def keepTogether(self):
        """Put what a comparison leaves in the scene into one folder."""
        parameters = self.panel.parameters
        chart = parameters.comparisonChart
        nodes = [parameters.comparisonTable, parameters.difference, parameters.distances, chart]
        nodes += DisagreementPlot.nodesOf(chart) if chart is not None else []
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        name, scene = _("DistillSeg comparison"), hierarchy.GetSceneItemID()
        folder = hierarchy.GetItemChildWithName(scene, name)
        folder = folder or hierarchy.CreateFolderItem(scene, name)
        for node in nodes:
            item = hierarchy.GetItemByDataNode(node) if node is not None else 0
            if item and hierarchy.GetItemParent(item) != folder:
                hierarchy.SetItemParent(item, folder)

    def _showDifference(self, rows):
        parameters = self.panel.parameters
        labelmap = self.comparison.difference(rows)
        node = DifferenceMap.put(labelmap, self._volume(), parameters.difference)
        parameters.difference = node
        self.display.show(self.a, self.b, node)
        self.display.setDifferenceOpacity(parameters.differenceOpacity)

    def _useDistances(self, node):
        self.display.distances = node is not None
        if self.isOpen:
            DistanceMap.show(node)
            self.display.apply()

    def _frame(self, row):
        if row.disagreement is not None:
            center, size = self.comparison.extent_of(row)
            width, height = (size[plane] for plane in ACROSS[self.plane])
            Layout.frame(center.tolist(), width, height)

    def _moved(self):
        point = self.worst.point()
        if point is not None and self.isOpen:
            Layout.jumpTo(point)
        self._onMoved()

    def _volume(self):
        return Outputs.volumeOf(self.a) or self.panel.parameters.inputVolume

    def _segmentId(self, which, label):
        known = self._ids[which]
        return known[label.value - 1] if label is not None else None

    def onBlink(self):
        self.display.blinkingB = not self.display.blinkingB
        self.display.apply()

    def onDistances(self, image):
        """They are computed."""
        parameters = self.panel.parameters
        if self.isOpen and parameters is not None:
            node = DistanceMap.put(image, parameters.distances)
            parameters.distances = node
            self.keepTogether()
            self._useDistances(node)

    def onLayout(self, _number):
        if self.isOpen and not Layout.isShown():
            self.close()

    def onPlotClicked(self, seriesIds, selections):
        index = DisagreementPlot.sliceAt(seriesIds, selections)
        if index is not None and self.isOpen:
            self.worst.goTo(index)
            self._moved()
