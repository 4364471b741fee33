"""What the table of results says about a structure, and about a result without any."""

import slicer
from slicer.i18n import tr as _

from DistillSegPanel.Nodes import checkVolume, fieldOfViewMm


def signsOf(finding, segment):
    """Pairs of (short text, explanation): why a person should look at a structure, or has."""
    signs = reviewOf(segment)
    if finding is None:
        return signs
    if finding.volume_ml == 0:
        return [(_("not found"), _("No voxel is marked as this structure.")), *signs]
    if finding.touches_border:
        signs.append((_("cut off"), _("It reaches the edge of the image and may go on beyond it.")))
    if finding.parts > 1:
        text = _("{count} parts").format(count=finding.parts)
        signs.append((text, _("It falls into pieces that do not touch each other.")))
    return signs


def reviewOf(segment):
    """Whether a person changed or accepted a structure, as a list of such a pair."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    texts = {
        logic.InProgress: (_("edited"), _("It was changed after the model gave it.")),
        logic.Completed: (_("accepted"), _("Somebody accepted it in 'Edit'.")),
    }
    status = logic.GetSegmentStatus(segment)
    return [texts[status]] if status in texts else []


def confidenceTip(confidence):
    """What the bar is, in two lines."""
    return _(
        "The network's highest class probability is {percent:.0f} % on average over this\n"
        "structure's voxels, before edits. It tells how sure the model was, not how right."
    ).format(percent=100 * confidence)


def volumeText(volumeMl):
    """With three digits that count, in cm³."""
    if volumeMl >= 100:
        return f"{volumeMl:.0f}"
    return f"{volumeMl:.1f}" if volumeMl >= 10 else f"{volumeMl:.2f}"


def nothingText(package, volumeNode):
    """What the model expects and what it got, where it found nothing."""
    parts = [_("Nothing found.")]
    if package is not None:
        scope = package.manifest.scope
        parts.append(
            _("This model expects {modality} of {what}, {size} mm.").format(
                modality=package.manifest.modality,
                what=scope.description,
                size=_span(scope.size_mm),
            )
        )
    if volumeNode is not None:
        checkVolume(volumeNode)
        size = " × ".join(f"{mm:.0f}" for mm in fieldOfViewMm(volumeNode)[::-1])
        parts.append(_("Your volume spans {size} mm.").format(size=size))
    parts.append(_("Choose the region that holds the structure, or another model."))
    return " ".join(parts)


def _span(ranges):
    return " × ".join(f"{low:.0f}–{high:.0f}" for low, high in ranges[::-1])
