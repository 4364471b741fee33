"""DICOM SEG, by the exporter that is installed: in Slicer itself from 5.12, before in an extension.

Main thread only.
"""

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

    Raises:
        NodeError: no exporter, no DICOM series to refer to, or what the exporter says.
    """
    plugin = exporter()()
    checkSegmentation(segmentationNode)
    volume = Outputs.volumeOf(segmentationNode)
    if volume is None or not volume.GetAttribute(INSTANCES):
        raise NodeError(
            _(
                "DICOM SEG refers to the DICOM series of its image, and that of '{name}' was not "
                "loaded from DICOM; load it in the module DICOM, or write NIfTI."
            ).format(name=segmentationNode.GetName())
        )
    if Outputs.modelOf(segmentationNode):
        _describe(segmentationNode, volume)
    exportables = plugin.examineForExport(_itemOf(segmentationNode))
    for exportable in exportables:
        exportable.directory = str(folder)
    problem = plugin.export(exportables) if exportables else _("nothing can be exported")
    if problem:
        raise NodeError(
            _("The DICOM exporter did not write '{name}': {problem}").format(
                name=segmentationNode.GetName(), problem=problem
            )
        )


def _describe(node, volume):
    """Say who made the structures, and which series they were found on."""
    edited = set(Outputs.editedSegments(node))
    for identifier in Outputs.ownSegments(node):
        segment = node.GetSegmentation().GetSegment(identifier)
        kind = "SEMIAUTOMATIC" if identifier in edited else "AUTOMATIC"
        segment.SetTag("DICOM.SegmentAlgorithmType", kind)
        segment.SetTag("DICOM.SegmentAlgorithmName", f"DistillSeg {Outputs.modelOf(node)}")
    names = slicer.vtkMRMLSubjectHierarchyConstants
    _hierarchy().SetItemAttribute(
        _itemOf(node),
        names.GetDICOMReferencedInstanceUIDsAttributeName(),
        volume.GetAttribute(INSTANCES),
    )


def _itemOf(node):
    return _hierarchy().GetItemByDataNode(node)


def _hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
