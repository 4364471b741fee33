"""How far B lies from A's surface, as a scalar volume in the view of the difference.

Main thread only.
"""

import logging

import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from DistillSegLib.errors import DistillSegError
from DistillSegPanel import CompareLayout as Layout
from DistillSegPanel.Jobs import Jobs
from DistillSegPanel.Segments import orientedFromImage

RANGE_MM = 5.0  # of the window, on both sides of 0
OPACITY = 0.6
COLORS = "DistillSeg.Distances"  # singleton tag of the table of colours
STEPS = 255
INSIDE, MIDDLE, OUTSIDE = (0.0, 0.447, 0.698), (0.96, 0.96, 0.96), (0.902, 0.624, 0.0)


log = logging.getLogger(__name__)


class DistanceMap:
    """Computes beside the event loop, for one structure after another.

    Its worker is of its own, so that it keeps nobody from comparing.

    Args:
        onReady: called with the image of distances.
    """

    def __init__(self, panel, onReady):
        self._panel, self._onReady = panel, onReady
        self._jobs = Jobs()
        self._wanted = None

    @property
    def isRunning(self):
        """Whether distances are on their way."""
        return self._jobs.isRunning

    def compute(self, comparison, row):
        """Begin with a structure, or wait for the end of the one before."""
        self._wanted = (comparison, row)
        if not self._jobs.isRunning:
            self._next()

    def stop(self):
        """Nothing is wanted any more."""
        self._wanted = None
        self._jobs.cancel()

    def close(self):
        """Leave no thread."""
        self._wanted = None
        self._jobs.close()

    def _next(self):
        if self._wanted is not None:
            (comparison, row), self._wanted = self._wanted, None
            self._jobs.start(
                lambda _report, _cancelled: comparison.distance_to_a(row),
                onDone=self._onDone,
                onError=self._onError,
                onCancelled=self._next,
            )
            self._jobs.poll()  # what is small is there at once

    def _onDone(self, distances):
        if self._wanted is None:
            self._onReady(distances)
        self._next()

    def _onError(self, problem):
        if isinstance(problem, DistillSegError):
            self._panel.say(str(problem), "warning")
        else:
            log.error("The distances could not be computed.", exc_info=problem)
        self._next()


def put(distances, node=None):
    """Show an image of the library, as `Comparison.distance_to_a` gives it.

    Args:
        node: where to; None for a new one.

    Returns:
        The volume node.
    """
    if node is None:
        name = slicer.mrmlScene.GenerateUniqueName(_("Distance to A in mm"))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    oriented = orientedFromImage(distances)
    matrix = vtk.vtkMatrix4x4()
    oriented.GetImageToWorldMatrix(matrix)
    voxels = vtk_to_numpy(oriented.GetPointData().GetScalars())
    with slicer.util.NodeModify(node):
        slicer.util.updateVolumeFromArray(node, voxels.reshape(oriented.GetDimensions()[::-1]))
        node.SetIJKToRASMatrix(matrix)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(2 * RANGE_MM, 0.0)
        display.SetAutoThreshold(False)
        display.SetThreshold(float(min(voxels.min(), -RANGE_MM)), RANGE_MM)
        display.SetApplyThreshold(True)  # what is farther away than the window shows the image
        display.SetAndObserveColorNodeID(_colors().GetID())
    return node


def show(node):
    """Lay it over the image in the view of the difference; None takes it away."""
    composite = Layout.compositeNode(Layout.MAP)
    if composite is None:
        return
    linked = composite.GetLinkedControl(), composite.GetHotLinkedControl()
    composite.SetLinkedControl(False)  # in this view alone
    composite.SetHotLinkedControl(False)
    composite.SetForegroundVolumeID(node.GetID() if node is not None else None)
    composite.SetForegroundOpacity(OPACITY if node is not None else 0.0)
    composite.SetLinkedControl(linked[0])
    composite.SetHotLinkedControl(linked[1])


def _colors():
    """Blue inside A, white at its surface, orange outside; one table for all."""
    node = slicer.mrmlScene.GetSingletonNode(COLORS, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLColorTableNode")
    node.UnRegister(None)
    node.SetName(_("Distances"))
    node.SetSingletonTag(COLORS)
    node.SetTypeToUser()
    node.SetNumberOfColors(STEPS)
    for number in range(STEPS):
        share = 2 * number / (STEPS - 1) - 1
        end = OUTSIDE if share > 0 else INSIDE
        color = [m + (e - m) * abs(share) for m, e in zip(MIDDLE, end)]
        node.SetColor(number, f"{RANGE_MM * share:+.2f} mm", *color, 1.0)
    node.SetHideFromEditors(True)
    return slicer.mrmlScene.AddNode(node)
