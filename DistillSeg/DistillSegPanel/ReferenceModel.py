"""The large model that stands behind a fast one, so that one click can run it beside.

Main thread only.
"""

from dataclasses import replace

from slicer.i18n import tr as _

from DistillSegLib.errors import PackageError
from DistillSegLib.ranking import reference_of
from DistillSegPanel import Outputs, Preflight
from DistillSegPanel.Calls import Call
from DistillSegPanel.ModelList import modelOf


def referenceFor(models, model):
    """The reference of "id@version" among packages by that name; None if none is larger."""
    package = models.get(model)
    return reference_of(package, models.values()) if package is not None else None


def othersFor(models, model):
    """Models that share structures with "id@version" on the same kind of images, by their names."""
    package = models.get(model)
    if package is None:
        return []
    others = [each for each in models.values() if _shares(each, package)]
    return sorted(others, key=lambda each: each.manifest.title.casefold())


def callFor(parameters, modelList, segmentationNode, package=None):
    """The run of the reference model, or of another one, on the volume of a model's output.

    The region, the further channels and the settings are those of the panel where it shows the
    same volume.

    Raises:
        PackageError: there is no such model.
    """
    if package is None:
        package = referenceFor(modelList.packages(), Outputs.modelOf(segmentationNode))
    volume = Outputs.volumeOf(segmentationNode) if segmentationNode is not None else None
    if package is None or volume is None:
        raise PackageError(why(parameters, modelList, segmentationNode))
    if parameters.inputVolume is not volume:
        return Call((volume,), modelOf(package), threads=parameters.threads)
    call = Preflight.callFrom(parameters, package)
    return replace(call, model=modelOf(package), output=None)


def why(parameters, modelList, segmentationNode):
    """Why no reference model can be run for a segmentation; empty if one can."""
    model = Outputs.modelOf(segmentationNode)
    if not model:
        return _("A is not the result of a model here; choose one, or load a reference.")
    if Outputs.volumeOf(segmentationNode) is None:
        return _("The volume of A is not in the scene any more; load it again.")
    if referenceFor(modelList.packages(), model) is None:
        return _("No larger model for these structures is on this computer; add one in 'Model'.")
    return ""


def _shares(package, other):
    a, b = package.manifest, other.manifest
    names = [{label.name.casefold() for label in each.labels} for each in (a, b)]
    return a.id != b.id and a.channels == b.channels and bool(names[0] & names[1])
