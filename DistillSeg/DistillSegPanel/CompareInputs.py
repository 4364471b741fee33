"""What is compared: segmentations of the scene, of a file, or of the reference model."""

import qt
import slicer
from slicer.i18n import tr as _

from DistillSegPanel import Outputs, ReferenceModel


class CompareInputs:
    """The choosers of the section Compare.

    Args:
        ui: the section's widgets.
        run: its `CompareRun`.
        compare: called when B is there after one click.
    """

    def __init__(self, panel, ui, run, compare):
        self._panel, self._ui, self._run, self._compare = panel, ui, run, compare
        ui.selectorA.connect("currentNodeChanged(vtkMRMLNode*)", self.onChosen)
        ui.selectorB.connect("currentNodeChanged(vtkMRMLNode*)", self.onChosen)
        ui.referenceButton.connect("clicked(bool)", self.onReference)
        ui.otherButton.connect("clicked(bool)", self.onOther)
        ui.swapButton.connect("clicked(bool)", self.onSwap)
        ui.loadButton.connect("clicked(bool)", self.onLoad)
        ui.toleranceBox.connect("valueChanged(double)", self.onTolerance)

    def update(self, parameters, isActive):
        """Show what is chosen."""
        ui = self._ui
        ui.selectorA.setCurrentNode(parameters.compareA)
        ui.selectorB.setCurrentNode(parameters.compareB)
        ui.toleranceBox.value = parameters.toleranceMm
        why = ReferenceModel.why(parameters, self._panel.modelList, parameters.compareA)
        ui.referenceButton.enabled = not self._panel.busy and not why
        ui.referenceButton.toolTip = why or _(
            "Runs the large model that stands behind the fast one, and compares."
        )
        others = self._others()
        ui.otherButton.enabled = not self._panel.busy and bool(others)
        ui.otherButton.toolTip = (
            _("Runs one of the {count} other models for these structures, and compares.").format(
                count=len(others)
            )
            if others
            else why or _("No other model for these structures is on this computer.")
        )
        ui.swapButton.enabled = not self._panel.busy and bool(
            parameters.compareA and parameters.compareB
        )
        for widget in (ui.selectorA, ui.selectorB, ui.loadButton, ui.toleranceBox):
            widget.enabled = not isActive

    def chooseDefaults(self):
        """A is our output; B the only other segmentation, if there is one."""
        parameters = self._panel.parameters
        if parameters.compareA is None:
            parameters.compareA = parameters.outputSegmentation
        if parameters.compareB is None and parameters.compareA is not None:
            nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            hidden = (parameters.compareA, parameters.difference)
            others = [n for n in nodes if not n.GetHideFromEditors() and n not in hidden]
            if len(others) == 1:
                parameters.compareB = others[0]

    def onChosen(self, _node=None):
        """Another A or B."""
        parameters = self._panel.parameters
        if parameters is not None and not self._panel.updating:
            parameters.compareA = self._ui.selectorA.currentNode()
            parameters.compareB = self._ui.selectorB.currentNode()

    def onTolerance(self, value):
        if self._panel.parameters is not None and not self._panel.updating:
            self._panel.parameters.toleranceMm = value

    def onSwap(self, _checked=False):
        """A becomes B; what was compared is compared anew, for all is measured on A's grid."""
        parameters = self._panel.parameters
        a, b = parameters.compareA, parameters.compareB
        if parameters.comparisonTable is not None:
            self._compare(nodes=(b, a))  # first, so that the views stay open
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.compareA, parameters.compareB = b, a

    def menuOfOthers(self):
        """The models that can be run beside the one of A."""
        menu = qt.QMenu(self._ui.otherButton)
        menu.setAttribute(qt.Qt.WA_DeleteOnClose)
        for package in self._others():
            action = menu.addAction(package.manifest.title)
            action.connect("triggered()", lambda package=package: self.onReference(False, package))
        return menu

    def onOther(self, _checked=False):
        button = self._ui.otherButton
        self.menuOfOthers().popup(button.mapToGlobal(qt.QPoint(0, button.height)))

    def _others(self):
        a = self._panel.parameters.compareA
        if Outputs.modelOf(a) == "" or Outputs.volumeOf(a) is None:
            return []
        return ReferenceModel.othersFor(self._panel.modelList.packages(), Outputs.modelOf(a))

    def onReference(self, _checked=False, package=None):
        """Run the large model, or another one, on the volume of A and compare."""
        parameters = self._panel.parameters
        a = parameters.compareA
        try:
            call = ReferenceModel.callFor(parameters, self._panel.modelList, a, package)
        except ReferenceModel.PackageError as problem:
            self._panel.say(str(problem), "error")
            return
        self._run.segment(call, self.onReferenceDone)

    def onReferenceDone(self, segmentationNode):
        self._panel.parameters.compareB = segmentationNode
        self._compare()

    def onLoad(self, _checked=False):
        """Choose a file that holds a reference."""
        path = qt.QFileDialog.getOpenFileName(
            self._ui.loadButton.window(),
            _("Load a reference segmentation"),
            "",
            _("Segmentations") + " (*.seg.nrrd *.nrrd *.nii.gz *.nii *.mha *.stl *.vtm)",
        )
        if path:
            self.loadReference(path)

    def loadReference(self, path):
        """Load a segmentation or a label map and take it as B."""
        try:
            node = slicer.util.loadSegmentation(path)
        except RuntimeError:
            self._panel.say(
                _("'{path}' could not be loaded as a segmentation.").format(path=path), "error"
            )
            return
        self._panel.parameters.compareB = node
