"""What the list says about a model: title, structures, scope, seconds here, size, accuracy."""

from math import prod

from slicer.i18n import tr as _

from DistillSegLib.estimates import estimate, known_speed
from DistillSegLib.ranking import mean_dice, reference_of, same_test
from DistillSegPanel.Synonyms import withSynonyms

MOST_NAMES = 4  # structures that a row names


def rowText(entry, others=()):
    """Four lines: title; what it finds; in what, and its size; how fast and how good it is.

    Args:
        others: packages at hand, among which may be the one that it was distilled from.
    """
    if entry.package is None:
        return f"{entry.title}\n{_('This file cannot be used; select it to see why.')}"
    manifest = entry.package.manifest
    scope = _("{modality} · {spacing} mm").format(
        modality=manifest.modality, spacing=spacingText(manifest.preprocessing.spacing_mm)
    )
    return "\n".join(
        (
            manifest.title,
            structuresText(manifest),
            f"{scope} · {sizeText(entry.path)}",
            " · ".join((secondsText(manifest), *accuracyTexts(entry.package, others))),
        )
    )


def structuresText(manifest):
    """Such as "Liver, spleen" or "24 structures"."""
    names = [label.name for label in manifest.labels]
    if len(names) > MOST_NAMES:
        return _("{count} structures").format(count=len(names))
    groups = [name.partition(", ") for name in names]
    if len({first for first, _comma, _rest in groups}) == 1 and all(g[2] for g in groups):
        return f"{groups[0][0]} ({', '.join(rest for _first, _comma, rest in groups)})"
    return ", ".join(names)


def secondsText(manifest):
    """Seconds for an image like those of training, measured here if it ever ran here."""
    size = [(low + high) / 2 for low, high in manifest.scope.size_mm]
    spacing = [(low + high) / 2 for low, high in manifest.scope.spacing_mm]
    voxels = int(prod(mm / each for mm, each in zip(size, spacing)))
    engines = ("openvino", "onnxruntime")
    speeds = (known_speed(manifest.name, engine) for engine in engines)
    speed = next((each for each in speeds if each is not None), None)
    seconds = estimate(
        manifest, manifest.variants[0], size_mm=size, voxels=voxels, speed=speed
    ).seconds
    if speed is None:
        return _("≈ {seconds} s").format(seconds=numberText(seconds))
    return _("{seconds} s here").format(seconds=numberText(seconds))


def spacingText(spacingMm):
    """The edge of a voxel; of a thick slice that within it, and its thickness: "1.4 × 8"."""
    least, most = min(spacingMm), max(spacingMm)
    return f"{most:.3g}" if most < 2 * least else f"{least:.2g} × {most:.3g}"


def numberText(seconds):
    """Seconds with the digits that can be told beforehand; never 0."""
    if seconds < 0.1:
        return "0.1"
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"


def sizeText(path):
    """Such as "1.2 MB"."""
    return _("{size:.1f} MB").format(size=path.stat().st_size / 1e6)


def accuracyTexts(package, others=()):
    """The mean Dice over structures, where it was tested, and beside it that of its reference."""
    dice = mean_dice(package.manifest)
    if dice is None:
        return ()
    large = reference_of(package, same_test(package, others))
    reference = mean_dice(large.manifest) if large is not None else None
    if reference is None:
        return (_("Dice {dice:.3f}").format(dice=dice),)
    return (
        _("Dice {dice:.3f} (reference's {reference:.3f})").format(dice=dice, reference=reference),
    )


def searchText(entry):
    """All words that a search may find, in lower case."""
    if entry.package is None:
        return entry.title.casefold()
    manifest = entry.package.manifest
    words = [manifest.title, manifest.id, manifest.description, manifest.modality]
    words += [manifest.scope.body_part, manifest.scope.description]
    for label in manifest.labels:
        words += [label.name, label.terminology]
    return withSynonyms(" ".join(words).casefold())
