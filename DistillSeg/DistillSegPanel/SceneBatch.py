"""All volumes of the scene, one after the other; results go into the scene beside them.

Main thread; each volume is segmented in the worker as by the button Segment.
"""

import logging
from dataclasses import replace

import slicer
from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel import Outputs
from DistillSegPanel.BatchTable import (
    BEFORE,
    DONE,
    FAILED,
    LEFT,
    RUNNING,
    SKIPPED,
    WAITING,
    Case,
)
from DistillSegPanel.Calls import packageOf
from DistillSegPanel.Install import InstallError
from DistillSegPanel.Nodes import NodeError
from DistillSegPanel.SceneCases import casesOfScene
from DistillSegPanel.Worker import Progress

log = logging.getLogger(__name__)


class SceneBatch:
    """Segments volumes one by one; arguments as of `FolderBatch`."""

    def __init__(self, work, *, onNews, onProgress, onEnd):
        self.work = work
        self._waiting, self._total = [], 0  # (volumes, their name in the table)
        self._call, self._enough, self._cancelled = None, False, False
        self._onNews, self._onProgress, self._onEnd = onNews, onProgress, onEnd

    def start(self, call, resume):
        """Begin and return at once; raises what stands in the way of all volumes."""
        package = packageOf(call.model)
        cases = casesOfScene(package.manifest.channels)
        if not cases:
            raise NodeError(_("There is no volume in the scene; load some."))
        self._call = call
        model = f"{package.manifest.id}@{package.manifest.version}"
        for case in cases:
            if case.reason:
                self._news(case.name, SKIPPED, case.reason)
            elif resume and hasOutput(case.volumes[0], model):
                self._news(case.name, BEFORE)
            else:
                self._news(case.name, WAITING)
                self._waiting.append((case.volumes, case.name))
        self._total = len(self._waiting)
        self._next()

    def stopAfterThis(self):
        """Let the present volume be the last one."""
        self._enough = True

    def cancel(self):
        """Stop in the middle of the present volume."""
        self._enough = self._cancelled = True
        self.work.jobs.cancel()

    def _next(self):
        """Begin the next volume that can be begun, or end."""
        while self._waiting and not self._enough:
            volumes, name = self._waiting.pop(0)
            if any(node.GetScene() is not slicer.mrmlScene for node in volumes):
                self._news(name, FAILED, _("It was removed from the scene."))
                continue
            try:
                self._begin(volumes, name)
                return
            except InstallError as problem:
                self._news(name, LEFT)
                self._end(problem)
                return
            except DistillSegError as problem:
                self._news(name, FAILED, str(problem))
        self._end(None)

    def _begin(self, volumes, name):
        self._news(name, RUNNING)
        sentence = _("Segmenting '{name}' …").format(name=name)
        done = self._total - len(self._waiting) - 1

        def onProgress(progress):
            share = (done + progress.fraction) / self._total
            self._onProgress(Progress(share, sentence))

        self.work.segmentInBackground(
            replace(self._call, volumes=volumes, output=None, roi=None),
            onDone=lambda output: self._done(name, volumes[0], output),
            onError=lambda problem: self._failed(name, problem),
            onCancelled=lambda: self._stopped(name),
            onProgress=onProgress,
        )

    def _done(self, name, volume, output):
        found = self.work.lastSegmentation
        seconds, ids = sum(found.seconds.values()), (volume.GetID(), output.GetID())
        self._onNews(Case(name, DONE, seconds, " ".join(found.warnings), nodes=ids))
        self._next()

    def _failed(self, name, problem):
        if not isinstance(problem, DistillSegError):
            log.error("A volume of the batch failed.", exc_info=problem)
        self._news(name, FAILED, str(problem) or repr(problem))
        self._next()

    def _stopped(self, name):
        """It was cancelled, or its volume was removed."""
        if self._cancelled:
            self._news(name, LEFT)
            self._end(None)
        else:
            self._news(name, FAILED, _("It was removed from the scene."))
            self._next()

    def _end(self, problem):
        for _volumes, name in self._waiting:
            self._news(name, LEFT)
        self._waiting = []
        self._onEnd(problem)

    def _news(self, name, status, note="", seconds=None):
        self._onNews(Case(name, status, seconds, note))


def hasOutput(volumeNode, model):
    """Whether the very model has segmented a volume already."""
    return any(
        Outputs.modelOf(node) == model and Outputs.volumeOf(node) is volumeNode
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    )
