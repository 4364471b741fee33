"""A segmentation node as `.seg.nrrd`: layers, terminology, status.

Where no segments overlap, as in every result, the worker writes the file; otherwise Slicer does,
which knows layers. Main thread, but for the tasks that are returned.
"""

from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from DistillSegLib.files import replacing
from DistillSegLib.segmentations import relabelled, write_segmentation
from DistillSegPanel.Nodes import NodeError, checkTransform, worldMatrix
from DistillSegPanel.Outputs import MODEL
from DistillSegPanel.Segments import BINARY, checkSegmentation, segmentationFromNode

# Of a segment, beside its terminology; Slicer cannot list them.
TAGS = (MODEL, "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName", "Description")


def segmentationFileTask(segmentationNode, path):
    """Write a segmentation where the views show it; the node and its own file stay as they are.

    Returns:
        `task(report, cancelled)` for the worker, which returns the files.

    Raises:
        NodeError: it holds nothing, lies below a transform that bends, or could not be written.
        ImageError: the folder refuses.
    """
    segmentation = segmentationFromNode(segmentationNode)
    if segmentation.warnings:  # segments share voxels
        files = writeLayers(segmentationNode, path)
        return lambda report, cancelled: files
    values = valuesOf(segmentationNode)
    tags = dict(zip(values, tagsOf(segmentationNode)))

    def task(_report, _cancelled):
        return [write_segmentation(relabelled(segmentation, values), path, tags=tags)]

    return task


def valuesOf(segmentationNode):
    """The label value of each segment in a file: its own, or from 1 where two share one."""
    values = [segment.GetLabelValue() for segment in _segmentsOf(segmentationNode)]
    if len(set(values)) == len(values) and all(1 <= value <= 65535 for value in values):
        return values
    return list(range(1, len(values) + 1))


def tagsOf(segmentationNode):
    """What is written about each segment, beside name, colour and terminology."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    found = []
    for segment in _segmentsOf(segmentationNode):
        tags, value = {}, vtk.reference("")
        for name in (logic.GetStatusTagName(), *TAGS):
            if segment.GetTag(name, value):
                tags[name] = str(value)
        found.append(tags)
    return found


def writeLayers(segmentationNode, path):
    """The same by Slicer, at once, with segments that overlap in layers; returns the files."""
    checkSegmentation(segmentationNode)
    checkTransform(segmentationNode)
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetName(segmentationNode.GetName())
    copy.GetSegmentation().DeepCopy(segmentationNode.GetSegmentation())
    copy.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(worldMatrix(segmentationNode)))
    if not copy.CreateBinaryLabelmapRepresentation():
        raise NodeError(
            _("The surfaces of '{name}' could not be turned into a label map.").format(
                name=segmentationNode.GetName()
            )
        )
    copy.GetSegmentation().SetSourceRepresentationName(BINARY)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    with replacing(path) as temporary:
        storage.SetFileName(str(temporary))
        storage.SetUseCompression(1)
        if not storage.WriteData(copy):
            raise NodeError(
                _("'{name}' could not be written to '{folder}'; check the free space.").format(
                    name=segmentationNode.GetName(), folder=Path(path).parent
                )
            )
    return [Path(path)]


def _segmentsOf(segmentationNode):
    segmentation = segmentationNode.GetSegmentation()
    return [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
