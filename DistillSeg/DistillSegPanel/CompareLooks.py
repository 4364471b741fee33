"""How a comparison is looked at: along which plane, in which style, with what in the third view."""

from slicer.i18n import tr as _

from DistillSegPanel import CompareLayout as Layout
from DistillSegPanel.CompareDisplay import A_FILLED, B_FILLED, SIDE_BY_SIDE

PLANES = ("axial", "coronal", "sagittal")
STYLES = (SIDE_BY_SIDE, A_FILLED, B_FILLED)


class CompareLooks:
    """The controls below the table; what they say is kept in the parameters.

    Args:
        ui: the section's widgets.
        view: its `CompareView`.
    """

    def __init__(self, panel, ui, view):
        self._panel, self._ui, self._view = panel, ui, view
        self._legends = {False: ui.legendLabel.text, True: _legendOfDistances()}
        for text in (_("Axial"), _("Coronal"), _("Sagittal")):
            ui.planeBox.addItem(text)
        for text in (_("Side by side"), _("A filled, B outlined"), _("B filled, A outlined")):
            ui.styleBox.addItem(text)
        ui.planeBox.connect("activated(int)", self.onPlane)
        ui.styleBox.connect("activated(int)", self.onStyle)
        ui.blinkButton.connect("toggled(bool)", view.setBlinking)
        ui.opacitySlider.connect("valueChanged(double)", self.onOpacity)
        ui.distanceBox.connect("toggled(bool)", self.onDistances)

    def update(self, parameters):
        """Show what was chosen."""
        ui = self._ui
        ui.planeBox.currentIndex = PLANES.index(parameters.comparePlane)
        ui.styleBox.currentIndex = STYLES.index(parameters.compareStyle)
        ui.opacitySlider.value = parameters.differenceOpacity
        ui.distanceBox.checked = parameters.showDistances
        ui.legendLabel.text = self._legends[parameters.showDistances]
        for widget in (ui.planeBox, ui.styleBox, ui.blinkButton, ui.distanceBox, ui.opacitySlider):
            widget.enabled = self._view.isOpen

    def onPlane(self, index):
        self._panel.parameters.comparePlane = PLANES[index]
        self._view.turn()

    def onStyle(self, index):
        self._panel.parameters.compareStyle = STYLES[index]
        self._view.restyle()

    def onOpacity(self, value):
        if self._isChoice():
            self._panel.parameters.differenceOpacity = value
            self._view.restyle()

    def onDistances(self, isOn):
        if self._isChoice():
            self._panel.parameters.showDistances = isOn
            self._view.showDistances()

    def _isChoice(self):
        """Whether the user, and not `update`, changed a control."""
        return self._panel.parameters is not None and not self._panel.updating


def _legendOfDistances():
    """That of the difference is in the `.ui`."""
    blue, orange = (
        f'<span style="color:{color}">■</span>' for color in (Layout.BLUE, Layout.ORANGE)
    )
    return f"{blue} {_('inside A')} {orange} {_('outside, 5 mm')}"
