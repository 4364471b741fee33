"""The section Batch: many images with one click, and what became of each."""

import logging
import os

import ctk
import slicer
from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel import Preflight
from DistillSegPanel.BatchTable import FAILED, BatchTable, statusText
from DistillSegPanel.Calls import Call
from DistillSegPanel.FolderBatch import FolderBatch
from DistillSegPanel.Folders import (
    BATCH_IN,
    BATCH_OUT,
    checkFolder,
    openFolder,
    remember,
    remembered,
)
from DistillSegPanel.Nodes import NodeError
from DistillSegPanel.Remedies import remedyOf
from DistillSegPanel.SceneBatch import SceneBatch

FOLDER, SCENE = 0, 1  # rows of the box "Images"

log = logging.getLogger(__name__)


class Batch:
    """Starts and stops a batch; one button, which first stops after the present case.

    Attributes:
        table: the cases.
        batch: what runs, or None.
    """

    def __init__(self, panel, parent):
        self.panel = panel
        self.batch, self._isStopping = None, False
        self.ui = ui = panel.loadUi("Batch", parent)
        for text in (_("A folder"), _("All volumes of the scene")):
            ui.imagesBox.addItem(text)
        for edit, what in ((ui.imagesFolder, BATCH_IN), (ui.resultsFolder, BATCH_OUT)):
            edit.filters = ctk.ctkPathLineEdit.Dirs
            edit.currentPath = remembered(what)
        self.table = BatchTable(ui.caseTable)
        ui.caseTable.setVisible(False)
        ui.batchProgress.setVisible(False)
        ui.imagesBox.connect("currentIndexChanged(int)", self.onImages)
        ui.batchButton.connect("clicked(bool)", self.onButton)
        ui.caseTable.connect("cellClicked(int,int)", self.onCase)
        self.onImages(FOLDER)

    # What the panel calls

    def enter(self):
        """A batch goes on while other modules are shown."""

    def exit(self):
        """A batch goes on while other modules are shown."""

    def cleanup(self):
        """The panel stops what runs."""
        self.batch = None

    def update(self):
        """Show what the button does now."""
        ui, isRunning = self.ui, self.batch is not None
        for widget in (ui.imagesBox, ui.imagesFolder, ui.resultsFolder, ui.resumeBox):
            widget.enabled = not isRunning
        ui.batchProgress.setVisible(isRunning)
        reason = ""
        if not isRunning and self.panel.busy:
            reason = _("Another task is running; wait for it.")
        elif not isRunning and not self.panel.parameters.model:
            reason = _("No model is chosen; choose one in 'Model'.")
        package = self.panel.modelList.find(self.panel.parameters.model)
        title = package.manifest.title if package is not None else _("none is chosen")
        ui.batchModelLabel.text = title
        ui.batchButton.enabled = not reason
        ui.batchButton.text, toolTip = self._look(isRunning)
        ui.batchButton.toolTip = reason or toolTip

    # What users do

    def onImages(self, row):
        """A folder or the scene: only what matters is shown."""
        ui = self.ui
        for widget in (
            ui.imagesFolderLabel,
            ui.imagesFolder,
            ui.resultsFolderLabel,
            ui.resultsFolder,
        ):
            widget.setVisible(row == FOLDER)

    def onButton(self, _checked=False):
        """Begin; then stop after this case; then at once."""
        if self.batch is None:
            self._start()
        elif not self._isStopping:
            self._isStopping = True
            self.batch.stopAfterThis()
            self.panel.say(_("The batch stops after this case; what is done is kept."))
        else:
            self.batch.cancel()
        self.panel.changed()

    def onCase(self, row, _column):
        """Say in full what the row has no room for; show the result, or offer to."""
        case = self.table.caseIn(row)
        if self.batch is not None:
            return
        kind = "error" if case.status == FAILED else "warning" if case.note else "info"
        said = f"{case.name}: {case.note or statusText(case.status)}"
        nodes = [slicer.mrmlScene.GetNodeByID(each) for each in case.nodes]
        if nodes and None not in nodes:
            self._show(*nodes)
        if case.files:
            text, remedy = _("Load image and result"), lambda: self._load(*case.files)
            self.panel.say(said, kind, case.details, text, remedy)
        else:
            self.panel.say(said, kind, case.details)

    def _load(self, image, result):
        """Bring a case of a folder into the scene, both files or none."""
        for path in (image, result):
            if not os.path.isfile(path):
                said = _("'{file}' is not there any more; run the batch again.").format(file=path)
                self.panel.say(said, "error")
                return
        try:
            volume = slicer.util.loadVolume(image)
            segmentation = slicer.util.loadSegmentation(result)
        except RuntimeError as problem:
            self.panel.say(str(problem), "error")
            return
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        self._show(volume, segmentation)

    def _show(self, volume, segmentation):
        """Choose a case, so that the other sections speak of it."""
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        self.panel.parameters.inputVolume = volume
        self.panel.parameters.reviewed = segmentation

    def _start(self):
        panel, parameters = self.panel, self.panel.parameters
        self.table.clear()
        self._isStopping = False
        try:
            panel.checkFree()
            Preflight.packageOf(parameters, panel.modelList)
            self.batch = (
                self._folder() if self.ui.imagesBox.currentIndex == FOLDER else self._scene()
            )
            call = Call(
                (),
                parameters.model,
                forceScope=parameters.forceScope,
                threads=parameters.threads,
                engine=parameters.engine,
            )
            panel.say(_("The batch begins …"))
            self.ui.caseTable.setVisible(True)
            self.batch.start(call, self.ui.resumeBox.checked)
        except DistillSegError as problem:
            self._end(problem)

    def _folder(self):
        source = self.ui.imagesFolder.currentPath.strip()
        target = self.ui.resultsFolder.currentPath.strip()
        if not os.path.isdir(source):
            raise NodeError(_("Choose the folder with the images."))
        if os.path.realpath(source) == os.path.realpath(target):
            raise NodeError(_("Choose another folder for the results than that of the images."))
        checkFolder(target)
        remember(BATCH_IN, source)
        remember(BATCH_OUT, target)
        return FolderBatch(self.panel.work, source, target, **self._callbacks())

    def _scene(self):
        return SceneBatch(self.panel.work, **self._callbacks())

    def _callbacks(self):
        return {"onNews": self.table.put, "onProgress": self._progress, "onEnd": self._end}

    def _progress(self, progress):
        self.ui.batchProgress.value = int(1000 * progress.fraction)
        if not self._isStopping and progress.sentence != self.panel.said:
            self.panel.say(progress.sentence)

    def _end(self, problem):
        batch, self.batch = self.batch, None
        self.table.leaveRest()
        target = getattr(batch, "target", None)
        if problem is not None:
            self._tell(problem)
        elif target is not None:
            self.panel.say(
                _("{summary} The table is in 'results.csv'.").format(summary=self.table.summary()),
                "info",
                "",
                _("Open the folder"),
                lambda: openFolder(target),
            )
        else:
            self.panel.say(self.table.summary())
        self.panel.changed()

    def _tell(self, problem):
        if not isinstance(problem, DistillSegError):
            log.error("A batch failed.", exc_info=problem)
        text, remedy = remedyOf(problem, self.panel)
        self.panel.say(str(problem) or repr(problem), "error", "", text, remedy)

    def _look(self, isRunning):
        if not isRunning:
            return _("Segment all"), _("Runs the chosen model on every image, whole.")
        if not self._isStopping:
            return _("Stop after this case"), _("What is done is kept, and a later run goes on.")
        return _("Cancel this case too"), _("Stops at once; what is done is kept.")
