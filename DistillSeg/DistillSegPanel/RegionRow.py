"""Which part of the volume the model is shown: all of it, a box of the user's, or its own box."""

from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel.Nodes import checkVolume
from DistillSegPanel.Parameters import RegionKind
from DistillSegPanel.Preflight import packageOf
from DistillSegPanel.Remedies import placeBox


class RegionRow:
    """The choice of a region, with a selector for the box or a button that places it."""

    def __init__(self, panel, ui):
        self.panel, self.ui = panel, ui
        for text in (_("Whole volume"), _("ROI"), _("Model's box")):
            ui.regionBox.addItem(text)
        ui.regionBox.connect("activated(int)", self.onRegion)
        ui.placeBoxButton.connect("clicked(bool)", self.onPlaceBox)
        ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onRoi)

    def update(self, parameters, isEnabled):
        """Show the choice."""
        ui, kind = self.ui, parameters.regionKind
        ui.regionBox.currentIndex = list(RegionKind).index(kind)
        ui.regionBox.enabled = isEnabled
        ui.placeBoxButton.setVisible(kind is RegionKind.MODEL_BOX)
        ui.placeBoxButton.enabled = isEnabled
        ui.roiLabel.setVisible(kind is RegionKind.ROI)
        ui.roiSelector.setVisible(kind is RegionKind.ROI)
        ui.roiSelector.setCurrentNode(parameters.roi)
        ui.roiSelector.enabled = isEnabled

    def onRegion(self, index):
        """Another kind of region was chosen."""
        kind = list(RegionKind)[index]
        if self.panel.parameters is None:
            return
        if kind is RegionKind.MODEL_BOX:
            self.onPlaceBox()
        else:
            self.panel.parameters.regionKind = kind

    def onPlaceBox(self, _checked=False):
        """Place the model's box at the crosshair, if there is a model and a volume."""
        parameters = self.panel.parameters
        try:
            packageOf(parameters, self.panel.modelList)
            checkVolume(parameters.inputVolume)
        except DistillSegError as problem:
            self.panel.changed()
            self.panel.say(str(problem), "error")
            return
        placeBox(self.panel)

    def onRoi(self, node):
        """Another box was chosen."""
        if self.panel.parameters is not None and not self.panel.updating:
            self.panel.parameters.roi = node
