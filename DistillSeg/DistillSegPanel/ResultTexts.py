"""What the table of results says about a structure, and about a result without any."""

from slicer.i18n import tr as _

from DistillSegPanel.Nodes import checkVolume, fieldOfViewMm


def signsOf(finding):
    """Pairs of (short text, explanation): why a person should look at a structure."""
    if finding.volume_ml == 0:
        return [(_("not found"), _("The model marked no voxel of this structure."))]
    signs = []
    if finding.touches_border:
        signs.append((_("cut off"), _("It reaches the edge of the image and may go on beyond it.")))
    if finding.parts > 1:
        text = _("{count} parts").format(count=finding.parts)
        signs.append((text, _("It falls into pieces that do not touch each other.")))
    return signs


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
