"""Volume nodes into images.

With `Regions` and `Segments`, this is where MRML and the library meet, and nowhere else. Slicer
places voxels in RAS, SimpleITK in LPS; both are turned into each other here. A parent transform is
applied to the copy, so that the model sees the patient as the views show them. If this were wrong,
a structure would be outlined on the other side of the patient.

Main thread only. One copy of the voxels is made, which the worker then owns.
"""

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from DistillSegLib.errors import DistillSegError
from DistillSegLib.regions import RAS_TO_LPS
from DistillSegLib.scope import MODALITY

HARDEN = "harden"
CURRENT_FRAME = "currentFrame"
FLAT = 1e-6  # volume of a voxel whose edges are of length 1, below which it is none


class NodeError(DistillSegError):
    """A node that cannot be used as it is, in one sentence.

    Attributes:
        remedy: what one click can do about it, `HARDEN` or `CURRENT_FRAME`; empty if nothing.
        canGoOn: whether a user who knows better may go on all the same.
    """

    def __init__(self, sentence, remedy="", canGoOn=False):
        super().__init__(sentence)
        self.remedy = remedy
        self.canGoOn = canGoOn


def checkVolume(volumeNode):
    """Raise NodeError for what is no single volume with one number per voxel."""
    if volumeNode is None:
        raise NodeError(_("No volume is selected; choose one, or load the sample."))
    name = volumeNode.GetName()
    if volumeNode.IsA("vtkMRMLSequenceNode"):
        raise NodeError(
            _("'{name}' is a sequence of volumes; use its current frame.").format(name=name),
            CURRENT_FRAME,
        )
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        raise NodeError(
            _("'{name}' is a label map; choose the image that it was drawn on.").format(name=name)
        )
    if not volumeNode.IsA("vtkMRMLScalarVolumeNode"):
        raise NodeError(_("'{name}' is no volume; choose an image.").format(name=name))
    imageData = volumeNode.GetImageData()
    scalars = imageData.GetPointData().GetScalars() if imageData is not None else None
    if scalars is None or not scalars.GetNumberOfTuples():
        raise NodeError(_("'{name}' holds no voxels; load its image again.").format(name=name))
    components = imageData.GetNumberOfScalarComponents()
    if components > 1:
        raise NodeError(
            _(
                "'{name}' has {components} numbers in each voxel, such as colours or directions; "
                "choose a volume with one. The module 'Vector to Scalar Volume' makes it."
            ).format(name=name, components=components)
        )
    checkTransform(volumeNode)
    gridFromVolume(volumeNode)


def gridFromVolume(volumeNode):
    """Size (x, y, z), spacing in mm and LPS directions of a volume in the world, without voxels.

    Returns:
        (size, spacing, direction, origin), as SimpleITK takes them.
    """
    toWorld = ijkToWorld(volumeNode)
    spacing = np.linalg.norm(toWorld[:3, :3], axis=0)
    if not spacing.min() > 0 or abs(np.linalg.det(toWorld[:3, :3] / spacing)) < FLAT:
        raise NodeError(
            _("'{name}' has a spacing or a transform of zero; correct it in 'Volumes'.").format(
                name=volumeNode.GetName()
            )
        )
    direction = toWorld[:3, :3] / spacing * RAS_TO_LPS[:, None]
    origin = toWorld[:3, 3] * RAS_TO_LPS
    size = volumeNode.GetImageData().GetDimensions()
    return size, spacing.tolist(), direction.ravel().tolist(), origin.tolist()


def imageFromVolume(volumeNode):
    """A volume as an image, where the views show it; one copy of its voxels.

    Raises:
        NodeError: not one volume, empty, or below a transform that is not linear.
    """
    checkVolume(volumeNode)
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    size, spacing, direction, origin = gridFromVolume(volumeNode)
    image = sitk.GetImageFromArray(vtk_to_numpy(scalars).reshape(size[::-1]))
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    image.SetOrigin(origin)
    if modality := modalityOf(volumeNode):
        image.SetMetaData(MODALITY, modality)
    return image


def emptyImageLike(volumeNode):
    """An image of one voxel with the axes and the first corner of a volume: geometry alone."""
    _size, spacing, direction, origin = gridFromVolume(volumeNode)
    image = sitk.Image((1, 1, 1), sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    image.SetOrigin(origin)
    return image


def modalityOf(volumeNode):
    """Such as "CT", as the DICOM series said when it was loaded; empty where nothing does."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy else 0
    key = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    known = hierarchy.GetItemAttribute(item, key) if item else ""
    instances = (volumeNode.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if known or not instances or database is None or not database.isOpen:
        return known or ""
    return database.instanceValue(instances[0], "0008,0060")


def fieldOfViewMm(volumeNode):
    """What a volume spans along its axes nearest to superior, posterior and left: (z, y, x)."""
    size, spacing, direction, _origin = gridFromVolume(volumeNode)
    return _alongPatient(np.multiply(size, spacing), direction)


def spacingMm(volumeNode):
    """The spacing of a volume along the same axes: (z, y, x)."""
    _size, spacing, direction, _origin = gridFromVolume(volumeNode)
    return _alongPatient(spacing, direction)


def hardenedCopy(volumeNode):
    """A copy of a volume with its transform applied to the voxels; the original stays as it is."""
    name = _("{name}, hardened").format(name=volumeNode.GetName())
    copy = slicer.vtkSlicerVolumesLogic.CloneVolume(slicer.mrmlScene, volumeNode, name)
    copy.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    copy.HardenTransform()
    return copy


def currentFrame(sequenceNode):
    """The volume that shows a sequence's current frame; it follows when the sequence is played."""
    logic = slicer.modules.sequences.logic()
    browser = logic.GetFirstBrowserNodeForSequenceNode(sequenceNode)
    if browser is None:
        browser = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLSequenceBrowserNode", sequenceNode.GetName()
        )
        browser.SetAndObserveMasterSequenceNodeID(sequenceNode.GetID())
        logic.UpdateProxyNodesFromSequences(browser)
    return browser.GetProxyNode(sequenceNode)


def checkTransform(node):
    """Raise NodeError where a parent transform is not linear."""
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise NodeError(
            _(
                "'{name}' lies below the transform '{transform}', which bends space; harden a copy "
                "and segment that."
            ).format(name=node.GetName(), transform=transform.GetName()),
            HARDEN,
        )


def _alongPatient(values, direction):
    """Values along an image's axes, at the patient's axes (z, y, x) that they run nearest to."""
    found = np.zeros(3)
    for axis, world in enumerate(np.abs(np.reshape(direction, (3, 3))).argmax(axis=0)):
        found[2 - world] = max(found[2 - world], values[axis])
    return tuple(found.tolist())


def worldMatrix(node):
    """(4, 4) from a node's own coordinates to the world's, both RAS."""
    toWorld = vtk.vtkMatrix4x4()
    transform = node.GetParentTransformNode()
    if transform is not None:
        transform.GetMatrixTransformToWorld(toWorld)
    return slicer.util.arrayFromVTKMatrix(toWorld)


def ijkToWorld(volumeNode):
    """(4, 4) from a volume's voxel indices (i, j, k) to the world, RAS."""
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    return worldMatrix(volumeNode) @ slicer.util.arrayFromVTKMatrix(ijkToRas)
