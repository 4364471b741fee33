"""The panel: a frame with a status, and sections that are put into it.

A section is a class of its own in the file of the same name:

    class Models:
        def __init__(self, panel, parent): ...  # builds its widgets into parent.layout()
        def update(self): ...                   # shows what the parameters say; creates nothing
        def enter(self): ...
        def exit(self): ...
        def cleanup(self): ...

It may also have `sceneChanged()`, called shortly after nodes came or went, and `sceneClosing()`,
called before all of them go. Sections reach each other as `panel.models`, `panel.segment` and so
on. What they choose they write into `panel.parameters`; every change of that node calls `update` of
all sections.
"""

import importlib
import logging
import os
import traceback

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from DistillSegPanel.Header import Header
from DistillSegPanel.ModelList import ModelList
from DistillSegPanel.Nodes import NodeError
from DistillSegPanel.Run import unexpected
from DistillSegPanel.Status import Status

SECTIONS = ("Models", "Segment", "Results", "Comparison", "Editing", "Export", "Batch", "Live")
OPEN = ("Models", "Segment", "Results")  # the others are folded at first
SOON_MS = 30  # within which changes of the scene are taken together

log = logging.getLogger(__name__)


class Panel(VTKObservationMixin):
    """Holds the sections, the parameter node and the status; see the module's docstring.

    Attributes:
        widget: to be put into the module's layout.
        logic: `DistillSegLogic`; work: its `Logic`.
        parameters: all choices; None while the scene closes.
        modelList: the packages at hand.
        onSegmented: called with the segmentation node when a result is in the scene.
        updating: while widgets are set, so that their signals are no choices.
        faults: what failed in a section, which keeps no other section from its work.
    """

    def __init__(self, logic, uiPath):
        VTKObservationMixin.__init__(self)
        self.logic, self.work = logic, logic.work
        self.uiFolder = os.path.dirname(uiPath)
        self.widget = slicer.util.loadUI(uiPath)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.modelList = ModelList()
        self.parameters = None
        self.updating = False
        self.onSegmented = []
        self.sections = []
        self.faults = set()
        self._entered = False
        self._status = Status(self.ui)
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(SOON_MS)
        self._soon.connect("timeout()", self._onSoon)
        self.header = Header(self)
        for name in SECTIONS:
            self._addSection(name)
        self._observeScene()
        self._useParameters()

    @property
    def busy(self):
        """Whether a task is running in the background."""
        return self.work.jobs.isRunning

    def checkFree(self):
        """Raise NodeError while a task is running, so that no second one is begun."""
        if self.busy:
            raise NodeError(_("Another task is running; wait for its end, then click again."))

    def say(self, sentence, kind="info", details="", remedyText="", remedy=None, **other):
        """Show the one status sentence.

        Args:
            kind: "info", "warning" or "error".
            details: shown on request.
            remedyText, remedy: a button below the sentence, and what it calls.
            otherText, other: a second button, for those who want something else.
        """
        self._status.show(sentence, kind, details, remedyText, remedy, **other)

    @property
    def state(self):
        """Of the run: idle, running, cancelling or failed."""
        return self.segment.run.state

    @property
    def said(self):
        """The status sentence."""
        return self._status.sentence

    def changed(self, *_):
        """Let every section show what the parameters say now."""
        if self.updating or self.parameters is None:
            return
        self.updating = True
        try:
            self._each("update", self.header, *self.sections)
        finally:
            self.updating = False

    def changedSoon(self, *_):
        """The same, once for many changes that come together."""
        self._soon.start()

    def loadUi(self, name, parent):
        """Put a section's `.ui` into its parent; returns its widgets by name."""
        widget = slicer.util.loadUI(os.path.join(self.uiFolder, f"{name}.ui"))
        if hasattr(widget, "setMRMLScene"):
            widget.setMRMLScene(slicer.mrmlScene)
        parent.layout().addWidget(widget)
        return slicer.util.childWidgetVariables(widget)

    def enter(self):
        """The module is shown."""
        self._entered = True
        if self.parameters is None:
            self._useParameters()
        self.header.refresh()
        self._each("enter", *self.sections)
        self.changed()

    def exit(self):
        """Another module is shown; what runs goes on."""
        self._entered = False
        self._each("exit", *self.sections)

    def cleanup(self):
        """Leave no timer, observer or thread."""
        self.work.jobs.close()
        self._soon.stop()
        self._soon.disconnect("timeout()", self._onSoon)
        self._each("cleanup", *self.sections)
        self.sections = []
        self.onSegmented = []
        self._status.cleanup()
        self._setParameters(None)
        self.removeObservers()

    def _each(self, what, *parts):
        """Call a method of all that have it; where one fails, the others are called as well."""
        failed = []
        for part in parts:
            try:
                if hasattr(part, what):
                    getattr(part, what)()
            except Exception as problem:
                failed.append((f"{type(part).__name__}.{what}", problem))
        for place, problem in failed:  # after what the others said
            self._tellFault(place, problem)

    def _tellFault(self, place, problem):
        """Once for each, as sections are updated many times a second."""
        fault = (place, repr(problem))
        if fault not in self.faults:
            self.faults.add(fault)
            log.error("%s failed.", place, exc_info=problem)
            lines = traceback.format_exception(type(problem), problem, problem.__traceback__)
            self.say(unexpected(problem), "error", "".join(lines))

    def _addSection(self, name):
        attribute, parent = name.lower(), getattr(self.ui, f"{name.lower()}Section")
        module = importlib.import_module(f"DistillSegPanel.{name}")
        section = getattr(module, name)(self, parent)
        setattr(self, attribute, section)
        self.sections.append(section)
        parent.collapsed = name not in OPEN

    def _observeScene(self):
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self._onSceneRead)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneRead)
        self.addObserver(scene, scene.NodeAddedEvent, self.changedSoon)
        self.addObserver(scene, scene.NodeRemovedEvent, self.changedSoon)

    def _onSceneStartClose(self, _caller, _event):
        self._each("sceneClosing", *self.sections)
        self.work.forget()
        self._setParameters(None)

    def _onSceneRead(self, _caller, _event):
        """The scene was closed or a saved one was opened: its choices are shown."""
        if self._entered or self.parameters is not None:
            self._useParameters()

    def _onSoon(self):
        if slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsImporting():
            return  # its end calls
        if self.parameters is not None and self._entered:
            self._each("sceneChanged", *self.sections)
        self.changed()

    def _useParameters(self):
        self._setParameters(self.logic.getParameterNode())
        self.changedSoon()
        self.changed()

    def _setParameters(self, parameters):
        if self.parameters is not None:
            node = self.parameters.parameterNode
            self.removeObserver(node, vtk.vtkCommand.ModifiedEvent, self.changed)
        self.parameters = parameters
        if parameters is not None:
            node = parameters.parameterNode
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.changed)
