"""The section Export: a result as a file, for other programs and other people."""

import logging

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegPanel.DicomExport import exportDicom
from DistillSegPanel.ExportTasks import (
    freePath,
    labelMapTask,
    otherOf,
    reportTask,
    tablesTask,
)
from DistillSegPanel.Folders import EXPORT, checkFolder, openFolder, remember, remembered
from DistillSegPanel.SegmentationFile import segmentationFileTask

log = logging.getLogger(__name__)


class Export:
    """One folder, and a button for each kind of file; nothing is ever overwritten."""

    def __init__(self, panel, parent):
        self.panel = panel
        self.ui = panel.loadUi("Export", parent)
        self.ui.exportFolder.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.exportFolder.currentPath = remembered(EXPORT)
        self._toolTips = [button.toolTip for button in self._buttons()]
        ui = self.ui
        ui.exportedSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onSegmentation)
        ui.segmentationButton.connect("clicked(bool)", self.onSegmentationFile)
        ui.labelMapButton.connect("clicked(bool)", self.onLabelMap)
        ui.tablesButton.connect("clicked(bool)", self.onTables)
        ui.reportButton.connect("clicked(bool)", self.onReport)
        ui.dicomButton.connect("clicked(bool)", self.onDicom)

    # What the panel calls

    def enter(self):
        """Nothing to begin."""

    def exit(self):
        """Nothing to end."""

    def cleanup(self):
        """Nothing observes."""

    def update(self):
        """Show what is exported, and whether it can be."""
        parameters = self.panel.parameters
        node = parameters.reviewed
        self.ui.exportedSelector.setCurrentNode(node)
        other = otherOf(parameters, node)
        self.ui.comparedLabel.setVisible(other is not None)
        if other is not None:
            self.ui.comparedLabel.text = _("CSV and report compare it with '{name}'.").format(
                name=other.GetName()
            )
        reason = ""
        if node is None:
            reason = _("Segment a volume, or choose a segmentation.")
        elif self.panel.busy:
            reason = _("Another task is running; wait for it.")
        for button, toolTip in zip(self._buttons(), self._toolTips):
            button.enabled = not reason
            button.toolTip = reason or toolTip

    # What users do

    def onSegmentation(self, node):
        if self.panel.parameters is not None and not self.panel.updating:
            self.panel.parameters.reviewed = node

    def onSegmentationFile(self, _checked=False):
        self._write(segmentationFileTask, ".seg.nrrd")

    def onLabelMap(self, _checked=False):
        self._write(labelMapTask, ".nii.gz")

    def onTables(self, _checked=False):
        self._write(self._compared(tablesTask), ".csv")

    def onReport(self, _checked=False):
        self._write(self._compared(reportTask), ".html")

    def onDicom(self, _checked=False):
        """The exporter names the file itself."""
        panel, folder = self.panel, self.ui.exportFolder.currentPath.strip()
        node = panel.parameters.reviewed
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)  # the exporter is a program of its own
        try:
            panel.checkFree()
            checkFolder(folder)
            empty = exportDicom(node, folder)
        except DistillSegError as problem:
            panel.say(str(problem), "error")
            return
        finally:
            slicer.app.restoreOverrideCursor()
        remember(EXPORT, folder)
        sentence = _("DICOM SEG was written to '{name}'.").format(name=folder)
        if empty:
            left = _("Left out, being empty: {names}.").format(names=", ".join(empty))
            sentence = f"{sentence} {left}"
        self._written([folder], sentence)

    def _write(self, make, ending):
        """Write one kind of file, by the worker with what `make` copies here."""
        panel, folder = self.panel, self.ui.exportFolder.currentPath.strip()
        node = panel.parameters.reviewed
        try:
            panel.checkFree()
            checkFolder(folder)
            made = make(node, freePath(folder, node.GetName(), ending))
        except DistillSegError as problem:
            panel.say(str(problem), "error")
            return
        remember(EXPORT, folder)
        jobs = panel.work.jobs
        jobs.start(
            made,
            onDone=self._written,
            onError=self._failed,
            onCancelled=self._cancelled,
            onProgress=self._progress,
        )
        panel.say(_("Writing …"), "info", "", _("Cancel"), jobs.cancel)
        panel.changed()

    def _compared(self, make):
        parameters = self.panel.parameters
        other = otherOf(parameters, parameters.reviewed)
        return lambda node, path: make(node, path, other, parameters.toleranceMm)

    def _written(self, files, sentence=""):
        folder = self.ui.exportFolder.currentPath
        names = ", ".join(f"'{file.name}'" for file in files) if not sentence else ""
        self.panel.say(
            sentence or _("Written: {names}.").format(names=names),
            "info",
            "",
            _("Open the folder"),
            lambda: openFolder(folder),
        )
        self.panel.changed()

    def _progress(self, progress):
        sentence = progress.sentence or _("Writing …")
        if sentence != self.panel.said:
            self.panel.say(sentence, "info", "", _("Cancel"), self.panel.work.jobs.cancel)

    def _cancelled(self):
        self.panel.say(_("Cancelled; nothing more was written."))
        self.panel.changed()

    def _failed(self, problem):
        if not isinstance(problem, DistillSegError):
            log.error("An export failed.", exc_info=problem)
        self.panel.say(str(problem) or repr(problem), "error")
        self.panel.changed()

    def _buttons(self):
        ui = self.ui
        return (
            ui.segmentationButton,
            ui.labelMapButton,
            ui.tablesButton,
            ui.reportButton,
            ui.dicomButton,
        )
