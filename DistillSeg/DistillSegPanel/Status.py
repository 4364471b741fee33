"""The one status sentence of the panel, with its icon, details and a remedy in one click."""

import qt
import slicer

ICON_PIXELS = 16


class Status:
    """Shows a sentence in the widgets of the frame."""

    def __init__(self, ui):
        self._ui = ui
        self._remedy = self._other = None
        self.sentence = ""
        ui.remedyButton.connect("clicked(bool)", self._onRemedy)
        ui.otherButton.connect("clicked(bool)", self._onOther)
        ui.detailsButton.connect("toggled(bool)", ui.detailsLabel.setVisible)
        self.show("")

    def show(
        self,
        sentence,
        kind="info",
        details="",
        remedyText="",
        remedy=None,
        otherText="",
        other=None,
    ):
        """See `Panel.say`."""
        ui, self._remedy, self._other = self._ui, remedy, other
        if sentence != self.sentence:
            ui.detailsButton.checked = False
        self.sentence = sentence
        ui.statusFrame.setVisible(bool(sentence))
        ui.statusLabel.text = sentence
        ui.statusIcon.setPixmap(_pixmap(kind))
        ui.remedyButton.text = remedyText
        ui.remedyButton.setVisible(bool(remedyText))
        ui.otherButton.text = otherText
        ui.otherButton.setVisible(bool(otherText))
        ui.detailsLabel.text = details
        ui.detailsButton.setVisible(bool(details))
        ui.detailsLabel.setVisible(bool(details) and ui.detailsButton.checked)

    def cleanup(self):
        """Let go of what the remedy refers to."""
        self._remedy = self._other = None
        self._ui.remedyButton.disconnect("clicked(bool)", self._onRemedy)
        self._ui.otherButton.disconnect("clicked(bool)", self._onOther)

    def _onRemedy(self, _checked=False):
        if self._remedy is not None:
            self._remedy()

    def _onOther(self, _checked=False):
        if self._other is not None:
            self._other()


def _pixmap(kind):
    style = qt.QStyle
    icons = {
        "info": style.SP_MessageBoxInformation,
        "warning": style.SP_MessageBoxWarning,
        "error": style.SP_MessageBoxCritical,
    }
    return slicer.app.style().standardIcon(icons[kind]).pixmap(ICON_PIXELS, ICON_PIXELS)
