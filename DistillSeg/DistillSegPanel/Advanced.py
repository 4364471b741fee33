"""What few users change: cores, engine, names, cleaning up, the confidence map, offline engine."""

import qt
from slicer.i18n import tr as _

from DistillSegPanel.Remedies import install

ENGINES = ("auto", "onnxruntime", "openvino")
NAMINGS = ("model", "standard", "tg263")
CLEAN_UPS = ("none", "largest", "small")


class Advanced:
    """The folded rows below the button."""

    def __init__(self, panel, ui):
        self.panel, self.ui = panel, ui
        fill(ui.engineBox, (_("Automatic"), "ONNX Runtime", "OpenVINO"))
        fill(ui.namingBox, (_("As the model says"), _("Standard (DICOM)"), _("TG-263")))
        fill(
            ui.cleanUpBox,
            (_("Nothing"), _("Keep the largest part of each"), _("Remove parts below 0.1 cm³")),
        )
        ui.advancedButton.collapsed = True
        ui.threadsBox.connect("valueChanged(int)", self.onThreads)
        ui.engineBox.connect("activated(int)", self.onEngine)
        ui.namingBox.connect("activated(int)", self.onNaming)
        ui.cleanUpBox.connect("activated(int)", self.onCleanUp)
        ui.confidenceBox.connect("toggled(bool)", self.onConfidence)
        ui.wheelsButton.connect("clicked(bool)", self.onWheels)

    def update(self, parameters, isEnabled):
        """Show the choices."""
        ui = self.ui
        ui.advancedButton.enabled = isEnabled
        ui.threadsBox.value = parameters.threads
        ui.engineBox.currentIndex = ENGINES.index(parameters.engine)
        ui.namingBox.currentIndex = NAMINGS.index(parameters.naming)
        ui.cleanUpBox.currentIndex = CLEAN_UPS.index(parameters.cleanUp)
        ui.confidenceBox.checked = parameters.confidenceMap

    def onThreads(self, count):
        """Cores that the network may use."""
        self._choose("threads", count)

    def onEngine(self, index):
        """What runs the network."""
        self._choose("engine", ENGINES[index])

    def onNaming(self, index):
        """What the segments are called."""
        self._choose("naming", NAMINGS[index])

    def onCleanUp(self, index):
        """What is taken away beside the structures."""
        self._choose("cleanUp", CLEAN_UPS[index])

    def onConfidence(self, isWanted):
        """Whether a map of confidence is made."""
        self._choose("confidenceMap", isWanted)

    def onWheels(self, _checked=False):
        """Install the engine from a folder of wheels."""
        title = _("Folder with the wheels of onnxruntime")
        folder = qt.QFileDialog.getExistingDirectory(self.ui.wheelsButton, title)
        if folder:
            install(self.panel, folder)

    def _choose(self, name, value):
        if self.panel.parameters is not None and not self.panel.updating:
            setattr(self.panel.parameters, name, value)


def fill(box, texts):
    """Put texts into a list to choose from."""
    for text in texts:
        box.addItem(text)
