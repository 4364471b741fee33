"""Nodes as tests need them: numbered voxels, oblique and bent in space."""

from __future__ import annotations

import numpy as np
import slicer
import vtk


def turned(*, shear=0.0, mirrored=False):
    """A 4 x 4 matrix with axes that are no patient's axis: oblique, also left-handed or sheared."""
    a, b = np.cos(0.4), np.sin(0.4)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[a, -b, 0], [b, a, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, a, -b], [0, b, a]]
    )
    matrix[0, 1] += shear
    if mirrored:
        matrix[:3, 0] *= -1
    matrix[:3, 3] = 11, -22, 33
    return matrix


def volume(voxels, matrix=None, name="volume"):
    matrix = np.eye(4) if matrix is None else matrix.copy()
    matrix[:3, :3] *= 0.5, 1.5, 2.0
    return slicer.util.addVolumeFromArray(
        voxels, ijkToRAS=matrix, name=name, nodeClassName="vtkMRMLScalarVolumeNode"
    )


def below(node, matrix):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def bent(node):
    grid = vtk.vtkThinPlateSplineTransform()
    points = [[0, 0, 0], [100, 0, 0], [0, 100, 0], [0, 0, 100]]
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for point in points:
        source.InsertNextPoint(point)
        target.InsertNextPoint([point[0] + point[1] / 20, point[1], point[2] + 3])
    target.SetPoint(1, 104, 6, 1)
    grid.SetSourceLandmarks(source)
    grid.SetTargetLandmarks(target)
    grid.SetBasisToR()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    transform.SetAndObserveTransformToParent(grid)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def numbered(*shape):
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
