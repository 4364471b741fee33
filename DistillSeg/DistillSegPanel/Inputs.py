"""One row for each channel of the model: which volumes are segmented."""

import slicer
from slicer.i18n import tr as _

from DistillSegPanel.Nodes import NodeError, checkVolume, gridFromVolume, modalityOf
from DistillSegPanel.Remedies import INPUTS

SEQUENCE = "vtkMRMLSequenceNode"
LABELMAP = "vtkMRMLLabelMapVolumeNode"


class Inputs:
    """The selectors of the volumes.

    Attributes:
        sequence: chosen as input; not a volume, but its current frame can be one.
    """

    def __init__(self, panel, ui):
        self.panel = panel
        self.sequence = None
        self._selectors = [getattr(ui, f"inputSelector{n}") for n in (1, 2, 3, 4)]
        self._labels = [getattr(ui, f"inputLabel{n}") for n in (1, 2, 3, 4)]
        for selector in self._selectors:
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self.onInput)

    def update(self, parameters, isEnabled):
        """Show the chosen volumes, in as many rows as the model has channels."""
        package = self.panel.modelList.find(parameters.model)
        channels = package.manifest.channels if package is not None else ("",)
        for number, (name, selector) in enumerate(zip(INPUTS, self._selectors)):
            isShown = number < len(channels)
            selector.setVisible(isShown)
            self._labels[number].setVisible(isShown)
            node = getattr(parameters, name)
            selector.setCurrentNode(self.sequence if self.sequence and not number else node)
            selector.enabled = isEnabled
            selector.toolTip = describe(node)
            if isShown:
                text = _("Input volume:") if len(channels) == 1 else f"{channels[number]}:"
                self._labels[number].text = text

    def forgetRemoved(self):
        """Let go of a sequence that is not in the scene any more."""
        if self.sequence is not None and self.sequence.GetScene() is None:
            self.sequence = None

    def chooseDefaults(self):
        """Fill empty rows: what the views show, and by the channels' names for the others."""
        parameters = self.panel.parameters
        if parameters is None or self.sequence is not None:
            return
        if parameters.inputVolume is None:
            parameters.inputVolume = shownVolume()
        package = self.panel.modelList.find(parameters.model)
        channels = package.manifest.channels if package is not None else ()
        if len(channels) > 1:
            for name, channel in zip(INPUTS, channels):
                if getattr(parameters, name) is None:
                    setattr(parameters, name, volumeNamed(channel))

    def choose(self, volumeNode):
        """Choose the first volume, as if the user did."""
        self.sequence = None
        self.panel.parameters.inputVolume = volumeNode
        self._chosen()

    def onInput(self, _node=None):
        """Another volume was chosen in one of the rows."""
        parameters = self.panel.parameters
        if parameters is None or self.panel.updating:
            return
        node = self._selectors[0].currentNode()
        self.sequence = node if node is not None and node.IsA(SEQUENCE) else None
        for name, selector in zip(INPUTS, self._selectors):
            node = selector.currentNode()
            setattr(parameters, name, node if node is not self.sequence else None)
        self._chosen()

    def _chosen(self):
        self.panel.segment.releaseOutput()
        self.panel.changed()


def shownVolume():
    """The volume behind the slice views, or the first one that is loaded; None without any."""
    active = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
    node = slicer.mrmlScene.GetNodeByID(active) if active else None
    if _isImage(node):
        return node
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return next((node for node in nodes if _isImage(node) and not node.GetHideFromEditors()), None)


def volumeNamed(channel):
    """The volume whose name holds a channel's, such as "T1"; None unless there is exactly one."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    named = [n for n in nodes if _isImage(n) and channel.lower() in (n.GetName() or "").lower()]
    return named[0] if len(named) == 1 else None


def describe(volumeNode):
    """Size, spacing and modality of a volume, for a tool tip."""
    if volumeNode is None or volumeNode.GetImageData() is None:
        return _("The image to segment.")
    try:
        checkVolume(volumeNode)
    except NodeError as problem:
        return str(problem)
    size, spacing, _direction, _origin = gridFromVolume(volumeNode)
    return _("{size} voxels of {spacing} mm{modality}").format(
        size=" × ".join(map(str, size)),
        spacing=" × ".join(f"{mm:.3g}" for mm in spacing),
        modality=f", {modalityOf(volumeNode)}" if modalityOf(volumeNode) else "",
    )


def _isImage(node):
    return node is not None and node.IsA("vtkMRMLScalarVolumeNode") and not node.IsA(LABELMAP)
