"""Where a result goes: a segmentation node of our own beside its volume, and its raw copy.

What DistillSeg did not create is never written to. Running a model again updates its own output;
segments that the user added to it stay. The raw output is kept in a hidden node, so that each
structure can be taken back to what the model said, also after the scene was saved and opened again.

Main thread only.
"""

import slicer
import vtk
from slicer.i18n import tr as _

from DistillSegPanel import Confidence
from DistillSegPanel.Nodes import NodeError
from DistillSegPanel.Segments import BINARY, digestOf, labelmapFromImage, sameMask

MODEL = "DistillSeg.Model"  # attribute and tag: "hippocampus-fast@1.0.0"
CLEANED = "DistillSeg.Cleaned"  # tag of a segment: what was left of it, as a digest
RAW = "DistillSeg.Raw"  # role of the reference from an output to the model's own
SURFACE = "Closed surface"  # Slicer's name of the representation, never translated

# What a user may have set for a segment, and keeps when it is segmented anew.
DISPLAY = (
    "Visibility",
    "Visibility3D",
    "Visibility2DFill",
    "Visibility2DOutline",
    "Opacity3D",
    "Opacity2DFill",
    "Opacity2DOutline",
)


def modelOf(outputNode):
    """The model that wrote a node, as "id@version"; empty if none did."""
    return (outputNode.GetAttribute(MODEL) or "") if outputNode is not None else ""


def volumeOf(outputNode):
    """The volume that an output belongs to, or None."""
    return outputNode.GetNodeReference(outputNode.GetReferenceImageGeometryReferenceRole())


def rawOf(outputNode):
    """The hidden node with the model's raw output, or None."""
    return outputNode.GetNodeReference(RAW)


def ownSegments(outputNode):
    """Ids of the segments that a model made, in their order."""
    segmentation = outputNode.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    return [i for i in ids if segmentation.GetSegment(i).HasTag(MODEL)]


def checkOutput(outputNode, volumeNode):
    """Raise NodeError for a node that holds work which is not ours to overwrite."""
    count = outputNode.GetSegmentation().GetNumberOfSegments()
    others = count - len(ownSegments(outputNode))
    if not others or (modelOf(outputNode) and volumeOf(outputNode) is volumeNode):
        return
    raise NodeError(
        _(
            "'{name}' holds segments that DistillSeg did not make; choose another output, or "
            "'Create new'."
        ).format(name=outputNode.GetName())
    )


def outputFor(volumeNode, modelId):
    """The model's earlier output for this volume if nobody edited it, otherwise None."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        same = modelOf(node).partition("@")[0] == modelId and volumeOf(node) is volumeNode
        if same and rawOf(node) is not None and not editedSegments(node):
            return node
    return None


def put(segmentation, volumeNode, model, outputNode=None):
    """Show a result in the scene.

    Args:
        segmentation: of the library, on the grid of `volumeNode`.
        model: "id@version".
        outputNode: where to; by default the model's earlier output, or a new node.

    Returns:
        The segmentation node.
    """
    node = (
        outputNode
        or outputFor(volumeNode, model.partition("@")[0])
        or _newNode(f"{volumeNode.GetName()} {model.partition('@')[0]}")
    )
    checkOutput(node, volumeNode)
    labelmap = labelmapFromImage(segmentation.image, volumeNode)
    hadSurface = node.GetSegmentation().ContainsRepresentation(SURFACE)
    with slicer.util.NodeModify(node):
        # In this order: the geometry is stored as seen from below the node's own transform.
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        renamed = modelOf(node) != model
        node.SetAttribute(MODEL, model)
        renamed |= _rawNames(node) != [label.name for label in segmentation.labels]
        if renamed or not _updated(node, labelmap, segmentation.labels):
            _replace(node, labelmap, segmentation.labels, model)
        raw = getattr(segmentation, "raw", None)
        _keepRaw(
            node,
            labelmapFromImage(raw, volumeNode) if raw is not None else labelmap,
            segmentation.labels,
            model,
        )
        _keepDigests(node, raw is not None)
        for label in segmentation.labels:
            segment = node.GetSegmentation().GetSegment(_segmentId(label))
            Confidence.keep(segment, segmentation.confidence.get(label.value))
    if hadSurface:
        node.CreateClosedSurfaceRepresentation()
    _placeBeside(node, volumeNode)
    return node


def editedSegments(outputNode):
    """Ids of the model's segments that are no longer as the model gave them."""
    raw, ids = rawOf(outputNode), ownSegments(outputNode)
    if raw is None:
        return ids
    known = [raw.GetSegmentation().GetNthSegmentID(n) for n in range(len(ownSegments(raw)))]
    changed = [i for i in ids if i not in known or not _isAsGiven(outputNode, raw, i)]
    return changed + [i for i in known if i not in ids]


def _isAsGiven(outputNode, raw, segmentId):
    """Whether a segment holds what the model gave, or what cleaning up left of that."""
    if sameMask(outputNode, raw, segmentId):
        return True
    value = vtk.reference("")
    segment = outputNode.GetSegmentation().GetSegment(segmentId)
    isCleaned = segment.GetTag(CLEANED, value)
    return bool(isCleaned) and str(value) == digestOf(outputNode, segmentId)


def reset(outputNode, segmentIds=None):
    """Take segments back to the model's output; all of the model's by default.

    Other segments keep their voxels, also where they then overlap.
    """
    raw = rawOf(outputNode)
    if raw is None:
        raise NodeError(
            _("The model's output for '{name}' is not there any more; segment again.").format(
                name=outputNode.GetName()
            )
        )
    segmentation = outputNode.GetSegmentation()
    for identifier in segmentIds or ownSegments(raw):
        original = raw.GetSegmentation().GetSegment(identifier)
        if original is None:
            continue
        if segmentation.GetSegment(identifier) is None:  # deleted by the user
            segment = slicer.vtkSegment()
            segment.DeepCopyMetadata(original)
            segmentation.AddSegment(segment, identifier)
        mask = slicer.vtkOrientedImageData()
        raw.GetBinaryLabelmapRepresentation(identifier, mask)
        slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(
            mask, outputNode, identifier
        )


def removeOrphans():
    """Remove hidden raw outputs whose segmentation was deleted; returns how many."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    wanted = {node.GetNodeReferenceID(RAW) for node in nodes}
    orphans = [n for n in nodes if n.GetAttribute(RAW) and n.GetID() not in wanted]
    for node in orphans:
        slicer.mrmlScene.RemoveNode(node)
    return len(orphans)


def _newNode(name, *, hidden=False):
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentationNode")
    node.UnRegister(None)
    node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
    node.SetHideFromEditors(hidden)
    slicer.mrmlScene.AddNode(node)
    if not hidden:
        node.CreateDefaultDisplayNodes()
    return node


def _segmentId(label):
    return f"DistillSeg_{label.value}"


def _updated(node, labelmap, labels):
    """Change the voxels alone, which keeps all that users set; False where that is not possible."""
    segmentation = node.GetSegmentation()
    ids = ownSegments(node)
    if ids != [_segmentId(label) for label in labels]:
        return False
    stored = segmentation.GetSegment(ids[0]).GetRepresentation(BINARY)
    segments = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
    together = [each for each in segments if each.GetRepresentation(BINARY) is stored]
    ours = [segmentation.GetSegment(i) for i in ids]
    values = [segment.GetLabelValue() for segment in ours]
    if together != ours or values != [label.value for label in labels]:
        return False  # edited into layers, or shared with a segment of the user's
    stored.ShallowCopy(labelmap)
    return True


def _replace(node, labelmap, labels, model):
    """Remove what models made before and add the new segments, shown as those were."""
    segmentation, display = node.GetSegmentation(), node.GetDisplayNode()
    shown = {i: _shown(display, i) for i in ownSegments(node)}
    for identifier in shown:
        segmentation.RemoveSegment(identifier)
    for label in labels:
        segmentation.AddSegment(_segment(label, labelmap, model), _segmentId(label))
        for what, value in shown.get(_segmentId(label), {}).items():
            getattr(display, f"SetSegment{what}")(_segmentId(label), value)


def _shown(display, segmentId):
    if display is None:
        return {}
    return {what: getattr(display, f"GetSegment{what}")(segmentId) for what in DISPLAY}


def _segment(label, labelmap, model):
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor(*(part / 255 for part in label.color))
    segment.SetColorAutoGenerated(False)
    segment.SetLabelValue(label.value)
    if label.terminology:
        segment.SetTag(segment.GetTerminologyEntryTagName(), label.terminology)
    segment.SetTag(MODEL, model)
    segment.AddRepresentation(BINARY, labelmap)  # one for all segments, told apart by value
    return segment


def _keepRaw(node, labelmap, labels, model):
    raw = rawOf(node)
    if raw is None:
        raw = _newNode(f"{node.GetName()} raw", hidden=True)
        raw.SetAttribute(RAW, "1")
        node.SetNodeReferenceID(RAW, raw.GetID())
    copy = slicer.vtkOrientedImageData()
    copy.DeepCopy(labelmap)  # of its own: the editor changes voxels in place
    raw.GetSegmentation().RemoveAllSegments()
    for label in labels:
        raw.GetSegmentation().AddSegment(_segment(label, copy, model), _segmentId(label))


def _keepDigests(node, isCleaned):
    """Remember what cleaning up left, which is no edit of the user's."""
    for identifier in ownSegments(node):
        segment = node.GetSegmentation().GetSegment(identifier)
        segment.RemoveTag(CLEANED)
        if isCleaned:
            segment.SetTag(CLEANED, digestOf(node, identifier))


def _rawNames(node):
    """The names that the last run gave; those that the user sees may be the user's."""
    raw = rawOf(node)
    if raw is None:
        return []
    segmentation = raw.GetSegmentation()
    return [
        segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())
    ]


def _placeBeside(node, volumeNode):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem = hierarchy.GetItemByDataNode(volumeNode)
    parent = hierarchy.GetItemParent(volumeItem) if volumeItem else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
    hierarchy.SetItemParent(item, parent)
