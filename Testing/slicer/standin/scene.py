"""The MRML scene with everything around it that the application wires up at its start.

Scene, logics, factories and events are Slicer's own C++ from slicer-core; this file only connects
them as `qSlicerCoreApplication` does.
"""

from __future__ import annotations

import colorsys
import tempfile
from pathlib import Path

import slicer
import vtk

from .subjecthierarchy import SubjectHierarchy

# Class in slicer-core and name of the module that owns it in Slicer.
LOGICS = (
    ("vtkSlicerVolumesLogic", "Volumes"),
    ("vtkSlicerTerminologiesModuleLogic", "Terminologies"),
    ("vtkSlicerSubjectHierarchyModuleLogic", "SubjectHierarchy"),
    ("vtkSlicerSegmentationsModuleLogic", "Segmentations"),
    ("vtkSlicerSequencesLogic", "Sequences"),
    ("vtkSlicerTransformLogic", "Transforms"),
    ("vtkSlicerCropVolumeLogic", "CropVolume"),
    ("vtkSlicerModelsLogic", "Models"),
    ("vtkSlicerMarkupsLogic", "Markups"),
    ("vtkSlicerTablesLogic", "Tables"),
    ("vtkSlicerTextsLogic", "Texts"),
    ("vtkSlicerPlotsLogic", "Plots"),
    ("vtkSlicerVolumeRenderingLogic", "VolumeRendering"),
    ("vtkSlicerUnitsLogic", "Units"),
    ("vtkSlicerCamerasModuleLogic", "Cameras"),
    ("vtkSlicerDataModuleLogic", "Data"),
    ("vtkSlicerViewControllersLogic", "ViewControllers"),
)
COLOR_COUNT = 320


class Scene:
    """`slicer.mrmlScene`, the application logic and the logics of all modules in C++."""

    def __init__(self):
        _print_to_stderr()
        self.folder = tempfile.mkdtemp(prefix="standin-")
        self.scene = slicer.vtkMRMLScene()
        self._add_singletons()
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        self.application_logic.SetTemporaryPath(self.folder)
        self._wire_colors()
        self._wire_views()
        self._wire_files()
        self.logics = {name: self._logic(cls, name) for cls, name in LOGICS if hasattr(slicer, cls)}
        self.logics["Colors"] = self.application_logic.GetColorLogic()
        self.application_logic.SetModuleLogic("Colors", self.logics["Colors"])
        self.subject_hierarchy = SubjectHierarchy(self.scene)

    def _add_singletons(self) -> None:
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        for node in (slicer.vtkMRMLSelectionNode(), slicer.vtkMRMLInteractionNode()):
            node.SetSingletonTag("Singleton")
            self.scene.AddNode(node)

    def _wire_colors(self) -> None:
        logic = self.application_logic.GetColorLogic()
        logic.SetMRMLScene(self.scene)
        logic.AddDefaultColorNodes()
        self.scene.AddNode(_generic_colors())

    def _wire_views(self) -> None:
        logic = self.application_logic
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        for factory in (
            slicer.vtkMRMLSliceViewDisplayableManagerFactory,
            slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
        ):
            factory.GetInstance().SetMRMLApplicationLogic(logic)
        self._links = [slicer.vtkMRMLSliceLinkLogic(), slicer.vtkMRMLViewLinkLogic()]
        for link in self._links:
            link.SetMRMLApplicationLogic(logic)
            link.SetMRMLScene(self.scene)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)

    def _wire_files(self) -> None:
        """Scene files are read through a cache folder and a data manager."""
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._remote.SetMRMLScene(self.scene)
        cache = Path(self.folder) / "cache"
        cache.mkdir()
        manager = self._remote.GetCacheManager()
        manager.SetRemoteCacheDirectory(str(cache))
        manager.SetMRMLScene(self.scene)
        self._remote.AddDataIOToScene()
        self._data = slicer.vtkDataIOManagerLogic()
        self._data.SetMRMLApplicationLogic(self.application_logic)
        self._data.SetAndObserveDataIOManager(self._remote.GetDataIOManager())

    def _logic(self, class_name: str, name: str):
        logic = getattr(slicer, class_name)()
        vtk.vtkObject.GlobalWarningDisplayOff()  # the wheel has no share folder to read
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.application_logic)
        vtk.vtkObject.GlobalWarningDisplayOn()
        self.application_logic.SetModuleLogic(name, logic)
        return logic


def _print_to_stderr() -> None:
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(window)


def _generic_colors():
    """A table under the ID of Slicer's GenericColors, which lies in a folder the wheel lacks."""
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToUser()
    node.SetName("GenericColors")
    node.SetAttribute("Category", "Discrete")
    node.SetSingletonTag("FileGenericColors.txt")
    node.SetNumberOfColors(COLOR_COUNT)
    node.SetColor(0, "Background", 0, 0, 0, 0)
    for index in range(1, COLOR_COUNT):
        color = colorsys.hsv_to_rgb((index * 0.381966) % 1, 0.65, 0.95)
        node.SetColor(index, f"label {index}", *color, 1)
    node.SetHideFromEditors(0)
    node.SaveWithSceneOff()
    return node
