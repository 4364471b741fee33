"""A corrected segmentation of the scene as a pair to train with.

Main thread only, but for what `correctionTask` returns.
"""

from slicer.i18n import tr as _

from DistillSegLib.corrections import save_correction
from DistillSegPanel import Outputs, Preflight
from DistillSegPanel.Nodes import NodeError, imageFromVolume
from DistillSegPanel.Segments import segmentationFromNode


def correctionTask(segmentationNode, folder, panel):
    """Copy what was corrected; returns the job that saves it, for the worker.

    Raises:
        DistillSegError: no model's output, or its volume, raw output or model is not there.
    """
    package = _packageOf(segmentationNode, panel.modelList)
    images = [imageFromVolume(node) for node in _volumesOf(segmentationNode, package, panel)]
    corrected = segmentationFromNode(segmentationNode)
    raw = segmentationFromNode(_rawOf(segmentationNode))

    def task(report, _cancelled):
        report(0.1, lambda: _("Saving the correction …"))
        return save_correction(folder, images, corrected, raw, package)

    return task


def sentenceOf(correction):
    """What was saved, for the status line; and what was not, for its details."""
    changed = [row for row in correction.comparison.rows if row.dice != 1 and row.dice == row.dice]
    if changed:
        lowest = min(changed, key=lambda row: row.dice)
        difference = _("Dice to the model's output {dice:.3f} ({structure})").format(
            dice=lowest.dice, structure=lowest.structure
        )
    else:
        difference = _("equal to the model's output")
    sentence = _("Saved as '{case}', {difference}; the folder holds {count} cases.").format(
        case=correction.case, difference=difference, count=correction.cases
    )
    if correction.left_out:
        sentence += " " + _("The model has no structure for: {names}.").format(
            names=", ".join(correction.left_out)
        )
    return sentence


def _packageOf(node, models):
    if not Outputs.modelOf(node) or Outputs.rawOf(node) is None:
        raise NodeError(
            _("'{name}' was not made by a model here; there is nothing to correct.").format(
                name=node.GetName()
            )
        )
    package = models.find(Outputs.modelOf(node))
    if package is None:
        raise NodeError(
            _("The model '{model}' is not on this computer; add it in 'Model'.").format(
                model=Outputs.modelOf(node)
            )
        )
    return package


def _volumesOf(node, package, panel):
    first, count = Outputs.volumeOf(node), len(package.manifest.channels)
    if first is None:
        raise NodeError(
            _("The image of '{name}' is not in the scene any more; load it again.").format(
                name=node.GetName()
            )
        )
    volumes = Preflight.inputsOf(panel.parameters, count) if count > 1 else (first,)
    if volumes[0] is not first or None in volumes:
        raise NodeError(
            _("Choose the {count} images of '{name}' in 'Segment' first.").format(
                count=count, name=node.GetName()
            )
        )
    return volumes


def _rawOf(node):
    """The model's output, placed where the output itself is."""
    raw, volume = Outputs.rawOf(node), Outputs.volumeOf(node)
    raw.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    raw.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return raw
