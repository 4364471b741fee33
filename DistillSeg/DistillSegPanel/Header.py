"""The strip above the sections: what is ready, and the menu of things needed now and then."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from DistillSegLib.package import package_files
from DistillSegLib.places import user_folder
from DistillSegLib.runtime import available_engines
from DistillSegPanel.Calls import sizeText, threadsFor
from DistillSegPanel.Install import sizeOnDisk, state
from DistillSegPanel.SupportText import supportText

log = logging.getLogger(__name__)


class Header:
    """One line of facts and the menu "⋯"."""

    def __init__(self, panel):
        self.panel = panel
        self._label = panel.ui.engineLabel
        menu = qt.QMenu(panel.ui.menuButton)
        self.actions = {}
        for name, text, slot in (
            ("python", _("Copy Python of the last run"), self.onCopyPython),
            ("report", _("Copy report for support"), self.onCopyReport),
            ("folder", _("Open the folder of added models"), self.onFolder),
            ("documentation", _("Documentation"), self.onDocumentation),
        ):
            action = menu.addAction(text)
            action.connect("triggered()", slot)
            self.actions[name] = action
        panel.ui.menuButton.setMenu(menu)
        self._menu = menu
        self._engine = ""

    def refresh(self):
        """Look again whether the engine is there, which is not asked at every change."""
        self._engine = engineText()
        self._label.toolTip = footprintText()

    def update(self):
        """Show what is ready."""
        if not self._engine:
            self.refresh()
        count = len(self.panel.modelList.packages())
        models = _("1 model") if count == 1 else _("{count} models").format(count=count)
        parts = (self._state(), models, self._engine, *self._threads(), _("works offline"))
        self._label.text = " · ".join(parts)
        self.actions["python"].enabled = self.panel.work.lastCall is not None

    def onCopyPython(self):
        """The call just made, for the Python console."""
        text = self.panel.logic.copyPython()
        _copy(text)
        self.panel.say(_("The Python call is in the clipboard."), details=text)

    def onCopyReport(self):
        """Versions, model and geometry; nothing of the patient."""
        text = supportText(self.panel)
        _copy(text)
        self.panel.say(
            _("The report is in the clipboard; it names no patient and no file."), details=text
        )

    def onFolder(self):
        """Where added models lie; made if it is not there yet."""
        folder = user_folder() / "Models"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            self.panel.say(
                _("The folder '{folder}' cannot be made ({reason}).").format(
                    folder=folder, reason=problem.strerror or problem
                ),
                "error",
            )
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def onDocumentation(self):
        """The page of the extension."""
        url = slicer.app.moduleDocumentationUrl("DistillSeg")
        log.info("Documentation: %s", url)
        qt.QDesktopServices.openUrl(qt.QUrl(url))

    def _threads(self):
        """What a run is given; nothing where the engine decides or is absent."""
        parameters = self.panel.parameters
        count = threadsFor(parameters.threads if parameters is not None else 0)
        if not state().isUsable or not count:
            return ()
        return (_("1 thread") if count == 1 else _("{count} threads").format(count=count),)

    def _state(self):
        return _("Working") if self.panel.busy else _("Ready")


def footprintText():
    """What models and engine take of the disk."""
    models = sum(path.stat().st_size for path in package_files())
    return _("On this disk: models {models}, engine {engine}.").format(
        models=sizeText(models), engine=sizeText(sizeOnDisk())
    )


def engineText():
    """Such as "onnxruntime 1.23 on CPU"."""
    engine = state()
    if not engine.isUsable:
        return _("engine not installed yet")
    version = ".".join(engine.version.split(".")[:2])
    if "openvino" in available_engines():
        return _("onnxruntime {version} and OpenVINO on CPU").format(version=version)
    return _("onnxruntime {version} on CPU").format(version=version)


def _copy(text):
    qt.QApplication.clipboard().setText(text)
