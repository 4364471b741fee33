"""Segmentations of the library and segmentation nodes, both ways.

Main thread only.
"""

import hashlib

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from DistillSegLib.comparison import FRAME_OF_REFERENCE
from DistillSegLib.labels import Label, LabelTable
from DistillSegLib.regions import RAS_TO_LPS
from DistillSegLib.segmentations import Segmentation
from DistillSegPanel.Nodes import NodeError, checkTransform, worldMatrix

BINARY = "Binary labelmap"  # Slicer's name of the representation, never translated
TISSUE = "^85756007^"  # SNOMED CT's "Tissue", which Slicer gives to segments that say nothing


def labelmapFromImage(labelmap, volumeNode):
    """A label map on a volume's grid as Slicer stores it: cropped to what is not background.

    Where it lies is taken from the volume without its parent transform, which the segmentation
    node has too.
    """
    found = _boxOf(labelmap)
    part = sitk.RegionOfInterest(labelmap, found[3:], found[:3])
    voxels = sitk.GetArrayViewFromImage(part)
    image = slicer.vtkOrientedImageData()
    first, size = found[:3], found[3:]
    extent = [edge for i, n in zip(first, size) for edge in (i, i + n - 1)]
    image.SetExtent(*extent)
    image.AllocateScalars(get_vtk_array_type(voxels.dtype), 1)
    scalars = image.GetPointData().GetScalars()
    np.copyto(vtk_to_numpy(scalars).reshape(voxels.shape), voxels)
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    image.SetGeometryFromImageToWorldMatrix(ijkToRas)
    return image


def segmentationFromNode(segmentationNode):
    """Any segmentation of the scene as the library compares it, where the views show it.

    The node is not changed: what it stores as surfaces or contours is converted in a copy.

    Raises:
        NodeError: none is given, it holds no segment, or it lies below a transform that bends.
    """
    checkSegmentation(segmentationNode)
    checkTransform(segmentationNode)
    source = _withLabelmaps(segmentationNode)
    segmentation = source.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    merged = _merged(source, ids)
    labels = LabelTable(
        tuple(_labelOf(segmentation.GetSegment(i), value) for value, i in enumerate(ids, start=1))
    )
    shared = 0
    if segmentation.GetNumberOfLayers() > 1:
        shared = _voxelsOf(segmentation, ids) - _countOf(merged)
    image = _imageOnGrid(
        merged, _gridOf(source, merged), worldMatrix(segmentationNode), labels.dtype
    )
    if frame := frameOfReference(segmentationNode):
        image.SetMetaData(FRAME_OF_REFERENCE, frame)
    return Segmentation(
        image,
        labels,
        source=segmentationNode.GetName(),
        warnings=_overlapWarning(segmentationNode.GetName(), shared),
    )


def orientedFromImage(labelmap):
    """A label map in the world, with its own box, as Slicer stores it."""
    voxels = sitk.GetArrayViewFromImage(labelmap)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*labelmap.GetSize())
    image.AllocateScalars(get_vtk_array_type(voxels.dtype), 1)
    scalars = image.GetPointData().GetScalars()
    np.copyto(vtk_to_numpy(scalars).reshape(voxels.shape), voxels)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(labelmap.GetDirection(), (3, 3)) * labelmap.GetSpacing()
    matrix[:3, 3] = labelmap.GetOrigin()
    matrix[:3] *= RAS_TO_LPS[:, None]
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return image


def frameOfReference(segmentationNode):
    """The DICOM frame of reference of the volume that a segmentation was drawn on; "" if unknown.

    A transform above the segmentation is a registration, which leads to another frame.
    """
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    volumeNode = segmentationNode.GetNodeReference(role)
    if volumeNode is None or segmentationNode.GetParentTransformNode() is not None:
        return ""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMFrameOfReferenceUIDAttributeName()
    item = hierarchy.GetItemByDataNode(volumeNode)
    known = item and (hierarchy.GetItemAttribute(item, name) or hierarchy.GetItemUID(item, name))
    instances = (volumeNode.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if known or not instances or database is None or not database.isOpen:
        return known or ""
    return database.instanceValue(instances[0], "0020,0052")


def sameMask(nodeA, nodeB, segmentId):
    """Whether a segment holds the same voxels in two nodes of one geometry."""
    masks = [_cropped(node, segmentId) for node in (nodeA, nodeB)]
    if masks[0].IsEmpty() or masks[1].IsEmpty():
        return masks[0].IsEmpty() == masks[1].IsEmpty()
    if masks[0].GetExtent() != masks[1].GetExtent():
        return False
    a, b = (vtk_to_numpy(mask.GetPointData().GetScalars()) for mask in masks)
    return bool(np.array_equal(a != 0, b != 0))


def digestOf(segmentationNode, segmentId):
    """What tells a segment's voxels from others."""
    mask = _cropped(segmentationNode, segmentId)
    if mask.IsEmpty():
        return "empty"
    voxels = vtk_to_numpy(mask.GetPointData().GetScalars()) != 0
    return hashlib.sha256(repr(mask.GetExtent()).encode() + voxels.tobytes()).hexdigest()


def checkSegmentation(segmentationNode):
    """Raise NodeError for what is no segmentation or holds no segment."""
    if segmentationNode is None:
        raise NodeError(_("No segmentation is selected; choose one."))
    name = segmentationNode.GetName()
    if not segmentationNode.IsA("vtkMRMLSegmentationNode"):
        raise NodeError(
            _("'{name}' is no segmentation; import it as one in 'Segmentations'.").format(name=name)
        )
    segmentation = segmentationNode.GetSegmentation()
    if segmentation is None or segmentation.GetNumberOfSegments() == 0:
        raise NodeError(_("'{name}' holds no segment; there is nothing to see.").format(name=name))


def isEmpty(segmentationNode):
    """Whether no segment has a voxel; False where a segment is stored as something else."""
    segmentation = segmentationNode.GetSegmentation()
    count = segmentation.GetNumberOfSegments()
    stored = [segmentation.GetNthSegment(n).GetRepresentation(BINARY) for n in range(count)]
    return all(image is not None and image.GetScalarRange()[1] <= 0 for image in stored)


def terminologyOf(segment):
    """The terminology string of a segment; empty if it has none, or only Slicer's default."""
    value = vtk.reference("")
    found = segment.GetTag(segment.GetTerminologyEntryTagName(), value)
    return str(value) if found and TISSUE not in str(value) else ""


def _cropped(segmentationNode, segmentId):
    """One segment's mask, cut to its voxels; without extent if it has none."""
    mask, extent = slicer.vtkOrientedImageData(), [0, -1] * 3
    segmentationNode.GetBinaryLabelmapRepresentation(segmentId, mask)
    resample = slicer.vtkOrientedImageDataResample
    if mask.IsEmpty() or not resample.CalculateEffectiveExtent(mask, extent):
        return slicer.vtkOrientedImageData()
    cropped = slicer.vtkOrientedImageData()
    resample.CopyImage(mask, cropped, extent)
    return cropped


def _boxOf(labelmap):
    """First index and size (x, y, z) of what is not background; one voxel where all is."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.SetComputePerimeter(False)
    statistics.Execute(labelmap != 0)
    if not statistics.HasLabel(1):
        return (0, 0, 0, 1, 1, 1)
    return statistics.GetBoundingBox(1)


def _withLabelmaps(segmentationNode):
    """The node itself if it holds label maps, otherwise a copy outside of the scene that does."""
    if segmentationNode.GetSegmentation().ContainsRepresentation(BINARY):
        return segmentationNode
    copy = slicer.vtkMRMLSegmentationNode()
    copy.GetSegmentation().DeepCopy(segmentationNode.GetSegmentation())
    if not copy.CreateBinaryLabelmapRepresentation():
        raise NodeError(
            _("The surfaces of '{name}' could not be turned into a label map.").format(
                name=segmentationNode.GetName()
            )
        )
    return copy


def _merged(segmentationNode, ids):
    """All segments in one image, with values from 1 in their order, cut to what is stored."""
    renumbered = _renumbered(segmentationNode.GetSegmentation(), ids)
    if renumbered is not None:
        return renumbered
    names, values = vtk.vtkStringArray(), vtk.vtkIntArray()
    for value, identifier in enumerate(ids, start=1):
        names.InsertNextValue(identifier)
        values.InsertNextValue(value)
    merged = slicer.vtkOrientedImageData()
    extent = slicer.vtkSegmentation.EXTENT_UNION_OF_SEGMENTS
    segmentationNode.GenerateMergedLabelmapForAllSegments(merged, extent, None, names, values)
    if merged.IsEmpty() and (grid := _reference(segmentationNode)) is not None:
        return grid  # no segment has a voxel
    if merged.IsEmpty():
        raise NodeError(
            _("'{name}' has neither voxels nor a volume that it belongs to; draw it anew.").format(
                name=segmentationNode.GetName()
            )
        )
    return merged


def _renumbered(segmentation, ids):
    """The same where all segments lie in one label map, many times as fast; otherwise None."""
    segments = [segmentation.GetSegment(identifier) for identifier in ids]
    stored, values = segments[0].GetRepresentation(BINARY), [s.GetLabelValue() for s in segments]
    if any(segment.GetRepresentation(BINARY) is not stored for segment in segments):
        return None
    scalars = stored.GetPointData().GetScalars() if stored is not None else None
    if scalars is None or not scalars.GetNumberOfTuples() or len(set(values)) < len(values):
        return None
    voxels = vtk_to_numpy(scalars)
    if voxels.dtype.kind not in "iu" or voxels.min() < 0 or min(values) < 0:
        return None
    table = np.zeros(max(int(voxels.max()), *values) + 1, np.uint8 if len(ids) < 256 else np.uint16)
    table[values] = np.arange(1, len(values) + 1)
    table[0] = 0
    image = slicer.vtkOrientedImageData()
    image.SetExtent(stored.GetExtent())
    image.AllocateScalars(get_vtk_array_type(table.dtype), 1)
    renumbered = vtk_to_numpy(image.GetPointData().GetScalars())
    if np.array_equal(table, np.arange(len(table))):
        np.copyto(renumbered, voxels)
    else:
        np.take(table, voxels, out=renumbered, mode="clip")  # nothing is clipped; it saves a copy
    matrix = vtk.vtkMatrix4x4()
    stored.GetImageToWorldMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image


def _reference(segmentationNode):
    """The grid of the volume that the segments were drawn on, without voxels; None if unknown."""
    key = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    text = segmentationNode.GetSegmentation().GetConversionParameter(key)
    grid = slicer.vtkOrientedImageData()
    known = text and slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, grid, False)
    return grid if known else None


def _gridOf(segmentationNode, merged):
    """Extent of the grid that the segments were drawn on, if the node knows it and it is theirs."""
    grid = _reference(segmentationNode)
    if grid is None:
        return merged.GetExtent()
    matrices = []
    for each in (grid, merged):
        matrix = vtk.vtkMatrix4x4()
        each.GetImageToWorldMatrix(matrix)
        matrices.append(slicer.util.arrayFromVTKMatrix(matrix))
    return grid.GetExtent() if np.allclose(*matrices, atol=1e-4) else merged.GetExtent()


def _labelOf(segment, value):
    color = tuple(min(255, max(0, round(255 * part))) for part in segment.GetColor())
    return Label(value, segment.GetName() or f"Segment {value}", color, terminologyOf(segment))


def _imageOnGrid(oriented, extent, toWorld, dtype):
    """An oriented image of Slicer, on a grid of this extent, as an image in the world."""
    matrix = vtk.vtkMatrix4x4()
    oriented.GetImageToWorldMatrix(matrix)
    indexToWorld = toWorld @ slicer.util.arrayFromVTKMatrix(matrix)
    first, last = np.array(extent[::2]), np.array(extent[1::2])
    voxels = np.zeros((last - first + 1)[::-1], dtype)
    if oriented.GetPointData().GetScalars() is not None:
        _fill(voxels, first, oriented)
    image = sitk.GetImageFromArray(voxels)
    spacing = np.linalg.norm(indexToWorld[:3, :3], axis=0)
    direction = indexToWorld[:3, :3] / spacing * RAS_TO_LPS[:, None]
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(((indexToWorld @ [*first, 1])[:3] * RAS_TO_LPS).tolist())
    return image


def _fill(voxels, first, oriented):
    """Copy what of an oriented image lies within the array that begins at the index `first`."""
    found = vtk_to_numpy(oriented.GetPointData().GetScalars())
    found = found.reshape(oriented.GetDimensions()[::-1])
    here, there = [], []
    for axis, low in enumerate(oriented.GetExtent()[::2]):
        start, size = low - int(first[axis]), found.shape[2 - axis]
        inside = slice(max(start, 0), min(start + size, voxels.shape[2 - axis]))
        here.append(inside)
        there.append(slice(inside.start - start, max(inside.start, inside.stop) - start))
    if all(each.stop > each.start for each in here):
        voxels[tuple(here[::-1])] = found[tuple(there[::-1])]


def _voxelsOf(segmentation, ids):
    """Voxels of all segments, those that they share counted for each."""
    total = 0
    for identifier in ids:
        segment = segmentation.GetSegment(identifier)
        stored = segment.GetRepresentation(BINARY)
        if stored is not None and stored.GetPointData().GetScalars() is not None:
            voxels = vtk_to_numpy(stored.GetPointData().GetScalars())
            total += int(np.count_nonzero(voxels == segment.GetLabelValue()))
    return total


def _countOf(oriented):
    scalars = oriented.GetPointData().GetScalars()
    return 0 if scalars is None else int(np.count_nonzero(vtk_to_numpy(scalars)))


def _overlapWarning(name, shared):
    if shared <= 0:
        return ()
    return (
        _(
            "{shared} voxels of '{name}' belong to more than one segment; the later one keeps them."
        ).format(shared=shared, name=name),
    )
