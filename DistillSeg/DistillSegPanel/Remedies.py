"""What one click can do about a problem: the text of the button, and what it does.

Every remedy makes something new and chooses it; what the user loaded stays as it is.
"""

import slicer
from slicer.i18n import tr as _

from DistillSegPanel.Calls import MODEL_BOX
from DistillSegPanel.Install import InstallError, ensure
from DistillSegPanel.Nodes import CURRENT_FRAME, HARDEN, currentFrame, hardenedCopy
from DistillSegPanel.Parameters import RegionKind
from DistillSegPanel.Regions import CROSSHAIR, MIDDLE, VIEWS, modelBox, placeFor, roiFromRegion

BOX = "DistillSeg.Box"  # attribute of the ROI that is ours to move
INPUTS = ("inputVolume", "inputVolume2", "inputVolume3", "inputVolume4")


def remedyOf(problem, panel):
    """The button's text and a callable; ("", None) where one click does not help."""
    if isinstance(problem, InstallError):
        return _("Install the engine"), lambda: install(panel)
    texts = {
        HARDEN: (_("Use a hardened copy"), lambda: harden(panel)),
        CURRENT_FRAME: (_("Use its current frame"), lambda: useFrame(panel)),
        MODEL_BOX: (_("Place the model's box"), lambda: placeBox(panel)),
    }
    return texts.get(getattr(problem, "remedy", ""), ("", None))


def install(panel, wheelFolder=None):
    """Install the engine; asks before it does."""
    try:
        found = ensure(wheelFolder=wheelFolder)
    except InstallError as problem:
        panel.segment.run.fail(problem)
        return
    panel.header.refresh()
    panel.changed()
    panel.say(_("onnxruntime {version} is installed.").format(version=found.version))


def harden(panel):
    """Choose copies of the volumes to which the bending transform is applied."""
    parameters = panel.parameters
    for name in INPUTS:
        node = getattr(parameters, name)
        transform = node.GetParentTransformNode() if node is not None else None
        if transform is not None and not transform.IsTransformToWorldLinear():
            setattr(parameters, name, hardenedCopy(node))
    panel.segment.releaseOutput()


def useFrame(panel):
    """Choose the volume that shows the current frame of the chosen sequence."""
    inputs = panel.segment.inputs
    inputs.choose(currentFrame(inputs.sequence))


def placeBox(panel):
    """Place a box of the model's own field of view, choose it, and say where it lies."""
    parameters = panel.parameters
    package = panel.modelList.find(parameters.model)
    position, place = placeFor(parameters.inputVolume)
    region = modelBox(parameters.inputVolume, package.manifest.scope, position)
    name = _("Box of {title}").format(title=package.manifest.title)
    roi = roiFromRegion(region, name, ownBox())
    roi.SetAttribute(BOX, "1")
    roi.SetName(name)
    parameters.roi = roi
    parameters.regionKind = RegionKind.MODEL_BOX
    panel.changed()
    panel.say(_placed(place, package.manifest.scope.body_part))


def _placed(place, part):
    """Where the box lies, and what to do if that is wrong."""
    texts = {
        CROSSHAIR: _("The box lies at the crosshair. Drag it until it holds the {part}."),
        VIEWS: _(
            "The box lies where the slice views meet, as the crosshair was not set. Hold Shift "
            "over the {part}, then click 'Place at crosshair'; or drag the box."
        ),
        MIDDLE: _(
            "The box lies in the middle of the volume, as the crosshair was not set in it. Hold "
            "Shift over the {part}, then click 'Place at crosshair'; or drag the box."
        ),
    }
    return texts[place].format(part=part)


def ownBox():
    """The ROI that an earlier click placed, or None."""
    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")
    return next((node for node in nodes if node.GetAttribute(BOX)), None)
