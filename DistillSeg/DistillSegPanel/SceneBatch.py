"""All volumes of the scene, one after the other; results go into the scene beside them.

Main thread; each volume is segmented in the worker as by the button Segment.
"""

import logging
from dataclasses import replace

import slicer
from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel import Outputs
from DistillSegPanel.BatchTable import BEFORE, DONE, FAILED, LEFT, RUNNING, WAITING, Case
from DistillSegPanel.Calls import packageOf
from DistillSegPanel.Install import InstallError
from DistillSegPanel.Nodes import NodeError
from DistillSegPanel.Worker import Progress

log = logging.getLogger(__name__)


class SceneBatch:
    """Segments volumes one by one; arguments as of `FolderBatch`."""

    def __init__(self, work, *, onNews, onProgress, onEnd):
        self.work = work
        self._waiting, self._total = [], 0  # (node, its name in the table)
        self._call, self._enough, self._cancelled = None, False, False
        self._onNews, self._onProgress, self._onEnd = onNews, onProgress, onEnd

    def start(self, call, resume):
        """Begin and return at once; raises what stands in the way of all volumes."""
        package = packageOf(call.model)
        if len(package.manifest.channels) > 1:
            raise NodeError(
                _(
                    "'{model}' takes {count} images of a patient, and the scene does not say which "
                    "belong together; use a folder."
                ).format(model=package.manifest.id, count=len(package.manifest.channels))
            )
        volumes = volumesOfScene()
        if not volumes:
            raise NodeError(_("There is no volume in the scene; load some."))
        self._call = call
        model = f"{package.manifest.id}@{package.manifest.version}"
        for node, name in zip(volumes, uniqueNames(volumes)):
            isDone = resume and hasOutput(node, model)
            self._news(name, BEFORE if isDone else WAITING)
            if not isDone:
                self._waiting.append((node, name))
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
            node, name = self._waiting.pop(0)
            if node.GetScene() is not slicer.mrmlScene:
                self._news(name, FAILED, _("It was removed from the scene."))
                continue
            try:
                self._begin(node, name)
                return
            except InstallError as problem:
                self._news(name, LEFT)
                self._end(problem)
                return
            except DistillSegError as problem:
                self._news(name, FAILED, str(problem))
        self._end(None)

    def _begin(self, node, name):
        self._news(name, RUNNING)
        sentence = _("Segmenting '{name}' …").format(name=name)
        done = self._total - len(self._waiting) - 1

        def onProgress(progress):
            share = (done + progress.fraction) / self._total
            self._onProgress(Progress(share, sentence))

        self.work.segmentInBackground(
            replace(self._call, volumes=(node,), output=None, roi=None),
            onDone=lambda output: self._done(name),
            onError=lambda problem: self._failed(name, problem),
            onCancelled=lambda: self._stopped(name),
            onProgress=onProgress,
        )

    def _done(self, name):
        found = self.work.lastSegmentation
        self._news(name, DONE, " ".join(found.warnings), sum(found.seconds.values()))
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
        for _node, name in self._waiting:
            self._news(name, LEFT)
        self._waiting = []
        self._onEnd(problem)

    def _news(self, name, status, note="", seconds=None):
        self._onNews(Case(name, status, seconds, note))


def volumesOfScene():
    """Images that a user sees in the lists of volumes; no label maps, no colours."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()
    ]


def hasOutput(volumeNode, model):
    """Whether the very model has segmented a volume already."""
    return any(
        Outputs.modelOf(node) == model and Outputs.volumeOf(node) is volumeNode
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    )


def uniqueNames(nodes):
    """A name for each node: its own, with the id where two share one."""
    names = [node.GetName() or "" for node in nodes]
    return [
        name if names.count(name) == 1 else f"{name} ({node.GetID()})"
        for node, name in zip(nodes, names)
    ]
