"""The choices of the panel as a call, and what stands in its way, before anything is copied.

Main thread only; takes milliseconds.
"""

from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError, PackageError
from DistillSegPanel import Outputs
from DistillSegPanel.Calls import Call, checkChannels, estimateFor, sizeOf
from DistillSegPanel.Doubts import checkDoubts, doubtsOf
from DistillSegPanel.Nodes import checkVolume
from DistillSegPanel.Parameters import RegionKind
from DistillSegPanel.Regions import checkOverlap, regionFromRoi

MOST_CHANNELS = 4  # that the panel has rows for


def inputsOf(parameters, count=MOST_CHANNELS):
    """The chosen volumes, one for each channel; None where none is chosen."""
    names = ("inputVolume", "inputVolume2", "inputVolume3", "inputVolume4")
    return tuple(getattr(parameters, name) for name in names[:count])


def callFrom(parameters, package):
    """What the choices ask for.

    The model's own output for the same volume is left to `Outputs.put`: it is updated if nobody
    edited it, and otherwise kept beside a new one.
    """
    volumes = inputsOf(parameters, len(package.manifest.channels))
    output = parameters.outputSegmentation
    same = Outputs.modelOf(output).partition("@")[0] == package.manifest.id
    if same and Outputs.volumeOf(output) is volumes[0]:
        output = None
    roi = parameters.roi if parameters.regionKind is not RegionKind.WHOLE else None
    return Call(
        volumes,
        parameters.model,
        roi,
        output,
        parameters.forceScope,
        parameters.threads,
        parameters.engine,
        parameters.naming,
        parameters.cleanUp,
        parameters.confidenceMap,
    )


def problemOf(parameters, models):
    """What stands in the way of segmenting, as an exception; None if nothing does."""
    try:
        package = packageOf(parameters, models)
        call = callFrom(parameters, package)
        checkVolume(call.volumes[0])
        checkChannels(package, call.volumes)
        for node in call.volumes:
            checkVolume(node)
        if call.output is not None:
            Outputs.checkOutput(call.output, call.volumes[0])
        size = _sizeOf(parameters, call)
        if not call.forceScope:
            checkDoubts(package, call, size)
    except DistillSegError as problem:
        return problem
    return None


def warningsOf(parameters, models):
    """Sentences about choices that can be segmented and may disappoint; nothing is copied."""
    package = models.find(parameters.model)
    call = callFrom(parameters, package)
    isWhole = parameters.regionKind is RegionKind.WHOLE
    return doubtsOf(package, call, _sizeOf(parameters, call), isWhole)


def estimateOf(parameters, models):
    """What the run will take; None where the choices do not allow one."""
    package = models.find(parameters.model)
    volume = parameters.inputVolume
    if package is None or volume is None:
        return None
    try:
        checkVolume(volume)
        size = _sizeOf(parameters, callFrom(parameters, package))
    except DistillSegError:
        return None
    return estimateFor(package, size, parameters.engine)


def packageOf(parameters, models):
    """The chosen package; PackageError where it is not at hand."""
    if not parameters.model:
        raise PackageError(_("No model is chosen; choose one in 'Model'."))
    package = models.find(parameters.model)
    if package is None:
        raise PackageError(
            _("The model '{model}' is not on this computer; add it in 'Model'.").format(
                model=parameters.model
            )
        )
    if len(package.manifest.channels) > MOST_CHANNELS:
        raise PackageError(
            _("'{model}' takes {count} volumes, the panel {most}; use the Python console.").format(
                model=package.manifest.id,
                count=len(package.manifest.channels),
                most=MOST_CHANNELS,
            )
        )
    return package


def _sizeOf(parameters, call):
    isWhole = parameters.regionKind is RegionKind.WHOLE
    if isWhole:
        return sizeOf(call.volumes[0], None)
    region = regionFromRoi(call.roi)
    checkOverlap(region, call.roi, call.volumes[0])
    return sizeOf(call.volumes[0], region)
