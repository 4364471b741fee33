"""All choices of the panel, in a node that is saved with the scene."""

from enum import Enum
from typing import Annotated

from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLPlotChartNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper


class RegionKind(Enum):
    """Which part of the volume the model is asked about."""

    WHOLE = "whole"
    ROI = "roi"
    MODEL_BOX = "modelBox"  # placed at the crosshair, kept in `roi`


@parameterNodeWrapper
class Parameters:
    """What the panel shows, typed; each field is saved and restored by its name.

    model: "id@version", so that a scene names exactly what it was made with; empty before a choice.
    inputVolume: of the first channel; the others for models of several images.
    outputSegmentation: None is a new one, or the model's earlier output.
    reviewed: what Edit and Export work on; a new result becomes it.
    forceScope: segment in spite of what the panel warns of, for the present choices.
    threads: 0 leaves one core to the rest of the computer.
    naming, cleanUp, confidenceMap: see `Calls.Call`.
    toleranceMm: of the surface Dice.
    comparing: whether the comparison's layout is open.
    comparedStructure, comparedSlice: what is shown in it.
    comparePlane, compareStyle, differenceOpacity: how it is shown.
    showDistances: whether distances to A take the place of the difference of A and B.
    """

    model: str = ""
    inputVolume: vtkMRMLScalarVolumeNode
    inputVolume2: vtkMRMLScalarVolumeNode
    inputVolume3: vtkMRMLScalarVolumeNode
    inputVolume4: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    reviewed: vtkMRMLSegmentationNode
    regionKind: RegionKind = RegionKind.WHOLE
    roi: vtkMRMLMarkupsROINode
    forceScope: bool = False
    show3D: bool = True
    threads: Annotated[int, WithinRange(0, 256)] = 0
    engine: Annotated[str, Choice(["auto", "onnxruntime", "openvino"])] = "auto"
    naming: Annotated[str, Choice(["model", "standard", "tg263"])] = "model"
    cleanUp: Annotated[str, Choice(["none", "largest", "small"])] = "none"
    confidenceMap: bool = False
    compareA: vtkMRMLSegmentationNode
    compareB: vtkMRMLSegmentationNode
    toleranceMm: Annotated[float, WithinRange(0.1, 20.0)] = 1.0
    comparing: bool = False
    comparedStructure: str = ""
    comparedSlice: Annotated[int, WithinRange(-1, 100000)] = -1
    comparisonTable: vtkMRMLTableNode
    comparisonChart: vtkMRMLPlotChartNode
    difference: vtkMRMLSegmentationNode
    comparePlane: Annotated[str, Choice(["axial", "coronal", "sagittal"])] = "axial"
    compareStyle: Annotated[str, Choice(["sideBySide", "aFilled", "bFilled"])] = "sideBySide"
    differenceOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.7
    showDistances: bool = False
    distances: vtkMRMLScalarVolumeNode
