"""DICOM SEG, by the exporter that is installed: in Slicer itself from 5.12, before in an extension.

The exporter is given a copy that holds what it needs, which is removed again: it asks with a dialog
box about empty segments, refuses surfaces, and says nothing when files of the series are missing.
Main thread only.
"""

from contextlib import contextmanager

import slicer
from slicer.i18n import tr as _

from DistillSegPanel import Outputs
from DistillSegPanel.Nodes import NodeError
from DistillSegPanel.Segments import checkSegmentation

PLUGIN = "DICOMSegmentationPlugin"
INSTANCES = "DICOM.instanceUIDs"  # attribute of a volume that was loaded from DICOM


def exporter():
    """The class that writes DICOM SEG; NodeError where none is installed."""
    plugins = getattr(slicer.modules, "dicomPlugins", {})
    if PLUGIN not in plugins:
        raise NodeError(
            _(
                "This Slicer cannot write DICOM SEG; install the extension QuantitativeReporting, "
                "or Slicer 5.12 or later."
            )
        )
    return plugins[PLUGIN]


def exportDicom(segmentationNode, folder):
    """Write a segmentation as DICOM SEG that refers to the series of its image.

    Returns:
        The names of structures that were left out because they have no voxel.

    Raises:
        NodeError: no exporter, no DICOM series to refer to, or what the exporter says.
    """
    plugin = exporter()()
    checkSegmentation(segmentationNode)
    volume = Outputs.volumeOf(segmentationNode)
    checkSeries(segmentationNode, volume)
    with _prepared(segmentationNode, volume) as (copy, empty):
        exportables = plugin.examineForExport(_itemOf(copy))
        for exportable in exportables:
            exportable.directory = str(folder)
        problem = plugin.export(exportables) if exportables else _("it names no reason")
    if problem:
        raise NodeError(
            _("The DICOM exporter did not write '{name}': {problem}").format(
                name=segmentationNode.GetName(), problem=problem
            )
        )
    return empty


def checkSeries(segmentationNode, volume):
    """Raise NodeError unless a DICOM SEG can refer to the series of the segmentation's volume."""
    name = segmentationNode.GetName()
    instances = ((volume.GetAttribute(INSTANCES) or "") if volume is not None else "").split()
    if not instances:
        raise NodeError(
            _(
                "DICOM SEG refers to the DICOM series of its image, and that of '{name}' was not "
                "loaded from DICOM; load it in the module DICOM, or write NIfTI."
            ).format(name=name)
        )
    if segmentationNode.GetTransformNodeID() != volume.GetTransformNodeID():
        raise NodeError(
            _(
                "'{name}' and its image '{image}' lie below different transforms, so that it would "
                "be written in the wrong place; harden the transform of '{name}' first."
            ).format(name=name, image=volume.GetName())
        )
    database = getattr(slicer, "dicomDatabase", None)
    isOpen = database is not None and database.isOpen
    missing = [uid for uid in instances if not isOpen or not database.fileForInstance(uid)]
    if missing:
        raise NodeError(
            _(
                "{missing} of the {count} DICOM files of '{image}' are not in Slicer's DICOM "
                "database; import the series in the module DICOM, then export again."
            ).format(missing=len(missing), count=len(instances), image=volume.GetName())
        )


@contextmanager
def _prepared(node, volume):
    """A copy of a segmentation in the scene for the time of the export, and what it leaves out."""
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    try:
        copy.SetName(node.GetName())  # which becomes the description of the series
        copy.GetSegmentation().DeepCopy(node.GetSegmentation())
        copy.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        copy.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        copy.CreateBinaryLabelmapRepresentation()
        _describe(copy, node, volume)
        yield copy, _withoutEmpty(copy)
    finally:
        slicer.mrmlScene.RemoveNode(copy)


def _withoutEmpty(copy):
    """Remove the segments without a voxel; returns their names."""
    segmentation, removed = copy.GetSegmentation(), []
    for identifier in [segmentation.GetNthSegmentID(n) for n in range(_countOf(copy))]:
        mask, extent = slicer.vtkOrientedImageData(), [0, -1] * 3
        copy.GetBinaryLabelmapRepresentation(identifier, mask)
        effective = slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent
        if mask.IsEmpty() or not effective(mask, extent):
            removed.append(segmentation.GetSegment(identifier).GetName())
            segmentation.RemoveSegment(identifier)
    if not _countOf(copy):
        raise NodeError(
            _("No structure of '{name}' has a voxel; there is nothing to export.").format(
                name=copy.GetName()
            )
        )
    return removed


def _describe(copy, node, volume):
    """Say in the copy who made the structures, and which series they were found on."""
    edited = set(Outputs.editedSegments(node)) if Outputs.modelOf(node) else set()
    for identifier in Outputs.ownSegments(copy):
        segment = copy.GetSegmentation().GetSegment(identifier)
        kind = "SEMIAUTOMATIC" if identifier in edited else "AUTOMATIC"
        segment.SetTag("DICOM.SegmentAlgorithmType", kind)
        segment.SetTag("DICOM.SegmentAlgorithmName", f"DistillSeg {Outputs.modelOf(node)}")
    names = slicer.vtkMRMLSubjectHierarchyConstants
    hierarchy = _hierarchy()
    place = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume))
    item = hierarchy.GetItemByDataNode(copy) or hierarchy.CreateItem(place, copy)
    hierarchy.SetItemParent(item, place)
    hierarchy.SetItemAttribute(
        item,
        names.GetDICOMReferencedInstanceUIDsAttributeName(),
        volume.GetAttribute(INSTANCES),
    )


def _countOf(node):
    return node.GetSegmentation().GetNumberOfSegments()


def _itemOf(node):
    return _hierarchy().GetItemByDataNode(node)


def _hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
