"""Segments a volume again whenever its voxels change: sequences that are played, streams.

Frames that come while the network works are dropped, but for the newest; nothing queues. Main
thread; the network runs in the worker as by the button Segment.
"""

import time
from collections import deque

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from DistillSegPanel import Preflight
from DistillSegPanel.Remedies import INPUTS

WINDOW_SECONDS = 5.0  # over which volumes per second are counted


class LiveRun(VTKObservationMixin):
    """Follows the chosen volume from `start` to `stop`.

    Args:
        onResult: called with the segmentation node; onStop: with a problem, or None.

    Attributes:
        isOn: whether it follows a volume.
        done, dropped: how many volumes were segmented, and how many frames were not.
    """

    def __init__(self, panel, onResult, onStop):
        VTKObservationMixin.__init__(self)
        self.panel = panel
        self.isOn, self.done, self.dropped = False, 0, 0
        self._onResult, self._onStop = onResult, onStop
        self._volumes, self._stamps = (), ()
        self._isPending, self._isRunning = False, False
        self._begins, self._ends = 0.0, deque()  # of passes, in seconds
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.connect("timeout()", self._go)

    def start(self):
        """Segment the chosen volume now and after every change; raises what stands in the way."""
        problem = Preflight.problemOf(self.panel.parameters, self.panel.modelList)
        if problem is not None:
            raise problem
        self.isOn, self.done, self.dropped = True, 0, 0
        self._begins = time.perf_counter()
        self._ends.clear()
        self.follow()

    def follow(self):
        """Follow the volumes that are chosen now, one for each channel of the model."""
        volumes = self._chosen()
        if volumes != self._volumes:
            self.removeObservers()
            self._volumes = volumes
            for volume in volumes:
                for event in (volume.ImageDataModifiedEvent, vtk.vtkCommand.ModifiedEvent):
                    self.addObserver(volume, event, self._onVolume)
        self._stamps = tuple(stampOf(volume) for volume in volumes)
        self._isPending = True
        self.goOn()

    def goOn(self):
        """Begin what waits, when nothing else runs."""
        if self.isOn and self._isPending:
            self._soon.start()

    def stop(self, problem=None):
        """Follow nothing; a pass that runs is cancelled."""
        if not self.isOn:
            return
        self.isOn, self._isPending = False, False
        self.removeObservers()
        self._volumes = ()
        self._soon.stop()
        if self._isRunning:
            self.panel.work.jobs.cancel()
        self._onStop(problem)

    def cleanup(self):
        """Leave no timer and no observer."""
        self.stop()
        self._soon.disconnect("timeout()", self._go)

    def volumesPerSecond(self):
        """Over the last seconds; 0 where nothing came."""
        now = time.perf_counter()
        while self._ends and now - self._ends[0] > WINDOW_SECONDS:
            self._ends.popleft()
        seconds = min(WINDOW_SECONDS, now - self._begins)
        return len(self._ends) / seconds if seconds > 0 else 0.0

    def _chosen(self):
        """The volumes of the channels, without those that are not chosen."""
        parameters = self.panel.parameters
        package = self.panel.modelList.find(parameters.model)
        channels = len(package.manifest.channels) if package is not None else 1
        nodes = (getattr(parameters, name) for name in INPUTS[:channels])
        return tuple(node for node in nodes if node is not None)

    def _onVolume(self, _volume, _event):
        stamps = tuple(stampOf(volume) for volume in self._volumes)
        if stamps == self._stamps:
            return  # renamed, for example
        self._stamps = stamps
        self.dropped += self._isPending
        self._isPending = True
        self.goOn()

    def _go(self):
        panel = self.panel
        if not (self.isOn and self._isPending) or panel.busy:
            return  # what runs calls `goOn` at its end
        try:
            package = Preflight.packageOf(panel.parameters, panel.modelList)
            call = Preflight.callFrom(panel.parameters, package)
            panel.work.segmentInBackground(
                call, onDone=self._onDone, onError=self._onError, onCancelled=self._onCancelled
            )
        except Preflight.DistillSegError as problem:
            self.stop(problem)
            return
        self._isPending, self._isRunning = False, True

    def _onDone(self, segmentationNode):
        self._isRunning = False
        self.done += 1
        self._ends.append(time.perf_counter())
        self._onResult(segmentationNode)
        self.goOn()

    def _onError(self, problem):
        self._isRunning = False
        self.stop(problem)

    def _onCancelled(self):
        """By `stop`, or because the volume was removed."""
        self._isRunning = False
        self.stop()


def stampOf(volumeNode):
    """What is another one when the voxels or their place are; None without voxels."""
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image is not None else None
    if scalars is None:
        return None
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    place = tuple(slicer.util.arrayFromVTKMatrix(matrix).ravel().tolist())
    return scalars.__this__, scalars.GetMTime(), image.GetMTime(), place
