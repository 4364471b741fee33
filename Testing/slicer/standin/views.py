"""Slice and 3D views that draw off screen through Slicer's own displayable managers (no Qt)."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
)
THREE_D_MANAGERS = (
    "vtkMRMLVolumeRenderingDisplayableManager",
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager3D",
    "vtkMRMLColorLegendDisplayableManager",
)
FIRST_SIZE = (400, 400)


class View:
    """A render window with the displayable managers of one factory."""

    def __init__(self, factory, managers, application_logic):
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.ShowWindowOff()
        self.window.SetMultiSamples(0)
        self.window.AddRenderer(self.renderer)
        self.window.SetSize(*FIRST_SIZE)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.EnableRenderOff()
        self.application_logic = application_logic
        instance = factory.GetInstance()
        for name in managers:
            if hasattr(slicer, name) and not instance.IsDisplayableManagerRegistered(name):
                instance.RegisterDisplayableManager(name)
        self.managers = instance.InstantiateDisplayableManagers(self.renderer)
        self.managers.UnRegister(None)

    def resize(self, width: int, height: int) -> None:
        if self.window.GetSize() != (width, height):
            self.window.SetSize(width, height)
            self.interactor.SetSize(width, height)

    def image(self) -> np.ndarray:
        """The picture: (height, width, 3) uint8, top row first."""
        self.window.Render()
        reader = vtk.vtkWindowToImageFilter()
        reader.SetInput(self.window)
        reader.ReadFrontBufferOff()
        reader.SetInputBufferTypeToRGB()
        reader.Update()
        width, height, _ = reader.GetOutput().GetDimensions()
        values = vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars())
        return np.ascontiguousarray(values.reshape(height, width, 3)[::-1])

    def send(self, event: str, x: float, y: float, *, control=False, shift=False) -> None:
        """A user's event through Slicer's own interactor style."""
        self.interactor.SetEventInformationFlipY(
            int(x), int(y), int(control), int(shift), "\0", 0, None
        )
        self.interactor.InvokeEvent(event)


class SliceView(View):
    """One slice view: image of the slice logic below, segmentations and markups above it."""

    def __init__(self, scene, application_logic, node):
        super().__init__(
            slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS, application_logic
        )
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        overlay = vtk.vtkRenderer()
        overlay.SetLayer(1)
        overlay.GetActiveCamera().ParallelProjectionOn()
        self.window.SetNumberOfLayers(2)
        self.window.SetAlphaBitPlanes(1)
        self.window.AddRenderer(overlay)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        self.logic.SetMRMLScene(scene)
        application_logic.GetSliceLogics().AddItem(self.logic)
        self.node = node
        self.logic.SetSliceNode(node)
        self.logic.ResizeSliceNode(*FIRST_SIZE)
        self._add_image()
        self.managers.SetMRMLDisplayableNode(node)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(self.logic)
        self._style.SetDisplayableManagers(self.managers)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._style.SetInteractor(self.interactor)

    def _add_image(self) -> None:
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._actor)
        self.logic.AddObserver(vtk.vtkCommand.ModifiedEvent, self._connect_image)
        self._connect_image()

    def _connect_image(self, *_) -> None:
        connection = self.logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)
        self._actor.SetVisibility(connection is not None)

    def resize(self, width: int, height: int) -> None:
        if self.window.GetSize() != (width, height):
            super().resize(width, height)
            self.logic.ResizeSliceNode(width, height)

    @property
    def composite(self):
        return self.logic.GetSliceCompositeNode()

    def fit(self) -> None:
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()


class ThreeDView(View):
    """One 3D view with its camera."""

    def __init__(self, scene, application_logic, node):
        super().__init__(
            slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS, application_logic
        )
        self.renderer.SetUseDepthPeeling(1)
        self.renderer.SetUseDepthPeelingForVolumes(1)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        self.logic.SetMRMLScene(scene)
        application_logic.GetViewLogics().AddItem(self.logic)
        self.node = node
        if hasattr(self.logic, "SetViewNode"):
            self.logic.SetViewNode(node)
        self._style = slicer.vtkMRMLThreeDViewInteractorStyle()
        self._style.SetDisplayableManagers(self.managers)
        self._style.SetInteractor(self.interactor)
        self.managers.SetMRMLDisplayableNode(node)

    def camera_node(self):
        manager = self.managers.GetDisplayableManagerByClassName("vtkMRMLCameraDisplayableManager")
        return manager.GetCameraNode()

    def reset_focal_point(self) -> None:
        """Looks at what is visible, without the box around it."""
        box, labels = self.node.GetBoxVisible(), self.node.GetAxisLabelsVisible()
        self.node.SetBoxVisible(0)
        self.node.SetAxisLabelsVisible(0)
        self.window.Render()
        self.renderer.ResetCamera()
        self.node.SetBoxVisible(box)
        self.node.SetAxisLabelsVisible(labels)
        self.node.InvokeEvent(slicer.vtkMRMLViewNode.ResetFocalPointRequestedEvent)
        self.renderer.ResetCameraClippingRange()
