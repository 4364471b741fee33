"""A segmentation node as `.seg.nrrd`, as Slicer itself writes it: layers, terminology, status.

Main thread only.
"""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from DistillSegLib.files import replacing
from DistillSegPanel.Nodes import NodeError, checkTransform, worldMatrix
from DistillSegPanel.Segments import BINARY, checkSegmentation


def writeSegmentationFile(segmentationNode, path):
    """Write a segmentation where the views show it; the node and its own file stay as they are.

    Raises:
        NodeError: it holds nothing, lies below a transform that bends, or could not be written.
        ImageError: the folder refuses.
    """
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
