"""What makes a result doubtful, told before the run: modality, values, voxels, size and memory.

Main thread only; nothing is copied. Of a volume's values a sample is taken once, and again only
after they changed, so that looking takes milliseconds.
"""

from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from DistillSegLib.images import grid_warnings, header_warnings
from DistillSegLib.scope import (
    HOUNSFIELD_BELOW,
    Measured,
    other_modality,
    percentiles,
    scope_warnings,
)
from DistillSegPanel.Calls import checkScope, estimateFor, sizeText
from DistillSegPanel.Nodes import (
    NodeError,
    checkVolume,
    fieldOfViewMm,
    gridFromVolume,
    modalityOf,
    spacingMm,
)

SAMPLE = 1 << 16  # voxels that the percentiles are taken from
MOST_KNOWN = 16  # volumes

_headers = {}  # path of a file -> warnings of its header
_known = {}  # what tells the voxels of a volume from others -> their percentiles


def checkDoubts(package, call, size):
    """Raise NodeError for what only a user who knows better should segment.

    Args:
        size: of the volume or region, as `Calls.sizeOf` gives it.
    """
    checkScope(package, size)
    manifest = package.manifest
    if sentence := other_modality(manifest.scope, _whole(call.volumes), manifest.modality):
        raise NodeError(sentence, canGoOn=True)
    expected = estimateFor(package, size, call.engine)
    if not expected.fits:
        raise NodeError(
            _(
                "This takes about {needed} of memory, but {free} are free; close other programs, "
                "or choose a smaller region."
            ).format(needed=sizeText(expected.memory_bytes), free=sizeText(expected.free_bytes)),
            canGoOn=True,
        )


def doubtsOf(package, call, size, isWhole):
    """Sentences about what is unlike the training images but may well go right."""
    manifest, whole = package.manifest, _whole(call.volumes)
    voxels, spacing, _direction, _origin = gridFromVolume(call.volumes[0])
    # The values of a part are known only once it is cut out.
    seen = Measured(size["size_mm"], whole.spacing_mm, whole.intensity if isWhole else ())
    found = grid_warnings(voxels, spacing, anisotropy=manifest.scope.anisotropy)
    found += headerDoubts(call.volumes[0])
    found += scope_warnings(
        manifest.scope,
        seen,
        whole=whole,
        modality=manifest.modality,
        own_units=manifest.preprocessing.intensity[0].scheme == "fixed",
    )
    return list(dict.fromkeys(found))


def likelyModality(volumeNode):
    """As DICOM says; otherwise "CT" where the values are Hounsfield units; "" if nobody knows."""
    if volumeNode is None:
        return ""
    if modality := modalityOf(volumeNode):
        return modality[:2]
    values = percentilesOf(volumeNode)
    return "CT" if values is not None and values[0] <= HOUNSFIELD_BELOW else ""


def measuredOf(volumeNode):
    """A volume as the library measures images; None where it cannot be segmented as it is."""
    try:
        checkVolume(volumeNode)
        return _whole((volumeNode,))
    except NodeError:
        return None


def percentilesOf(volumeNode):
    """Low, median and high value of a volume, from a sample; None where it holds no voxels."""
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image is not None else None
    if scalars is None or scalars.GetNumberOfComponents() != 1 or not scalars.GetNumberOfTuples():
        return None
    key = scalars.__this__, scalars.GetMTime(), image.GetMTime()
    if key not in _known:
        while len(_known) >= MOST_KNOWN:
            _known.pop(next(iter(_known)))
        voxels = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
        _known[key] = percentiles(voxels, sample=SAMPLE)
    return _known[key]


def headerDoubts(volumeNode):
    """What the file of a volume leaves open, which Slicer does not tell when it loads it."""
    storage = volumeNode.GetStorageNode()
    path = storage.GetFileName() if storage is not None else None
    if not path:
        return []
    if path not in _headers:
        while len(_headers) >= MOST_KNOWN:
            _headers.pop(next(iter(_headers)))
        _headers[path] = header_warnings(path)
    return _headers[path]


def _whole(volumes):
    """The volumes as the library measures images."""
    values = [percentilesOf(node) for node in volumes]
    return Measured(
        fieldOfViewMm(volumes[0]), spacingMm(volumes[0]), tuple(values), modalityOf(volumes[0])
    )
