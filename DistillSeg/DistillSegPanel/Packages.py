"""Adding and removing model packages, for the section Models."""

import qt
import slicer
from slicer.i18n import tr as _

from DistillSegLib.catalogue import install_package, remove_package
from DistillSegLib.errors import DistillSegError
from DistillSegPanel.Install import InstallError, ensure
from DistillSegPanel.ModelList import modelOf
from DistillSegPanel.Remedies import remedyOf


class Packages:
    """What the buttons "Add model…" and "Remove" do."""

    def __init__(self, panel):
        self.panel = panel

    def askAndAdd(self, parent):
        """Let the user choose a file and add it."""
        path = qt.QFileDialog.getOpenFileName(
            parent, _("Add a model"), "", _("Model packages (*.distillseg)")
        )
        if path:
            self.add(path)

    def add(self, path):
        """Check a package on this computer beside the event loop, then add and choose it."""
        panel = self.panel
        try:
            ensure()
        except InstallError as problem:
            self._tell(problem)
            return
        panel.say(_("Checking the model on this computer …"))
        panel.work.jobs.start(
            lambda report, cancelled: install_package(
                path, on_progress=report, cancelled=cancelled
            ),
            onDone=self._onAdded,
            onError=self._tell,
        )
        panel.changed()

    def remove(self, entry):
        """Delete an added package from this computer, if the user agrees."""
        question = _("Remove '{title}' from this computer? Scenes made with it stay.").format(
            title=entry.title
        )
        if not slicer.util.confirmOkCancelDisplay(question, _("DistillSeg")):
            return
        try:
            remove_package(entry.name)
        except DistillSegError as problem:
            self._tell(problem)
            return
        self.panel.changed()
        self.panel.say(_("'{title}' was removed.").format(title=entry.title))

    def _onAdded(self, package):
        if self.panel.parameters is not None:
            self.panel.models.choose(modelOf(package))
        self.panel.changed()
        self.panel.say(
            _("'{title}' was added; it gives the right numbers on this computer.").format(
                title=package.manifest.title
            )
        )

    def _tell(self, problem):
        self.panel.changed()
        text, remedy = remedyOf(problem, self.panel)
        self.panel.say(str(problem), "error", "", text, remedy)
