"""The numbers of a comparison taken away: as a CSV file, or for a spreadsheet."""

import qt
import slicer
from slicer.i18n import tr as _

from DistillSegLib.errors import DistillSegError
from DistillSegLib.files import write_text
from DistillSegPanel import ComparisonTable


class TableFiles:
    """Two buttons below the table.

    Args:
        table: the `MetricsTable` that holds the numbers, also those of a saved scene.
    """

    def __init__(self, panel, ui, table):
        self._panel, self._ui, self._table = panel, ui, table
        ui.csvButton.connect("clicked(bool)", self.onCsv)
        ui.copyButton.connect("clicked(bool)", self.onCopy)

    def update(self):
        """Without numbers there is nothing to take away."""
        self._ui.csvButton.enabled = self._ui.copyButton.enabled = bool(self._table.rows)

    def onCsv(self, _checked=False):
        path = qt.QFileDialog.getSaveFileName(
            self._ui.csvButton.window(), _("Save the table"), "comparison.csv", "CSV (*.csv)"
        )
        if path:
            self.saveCsv(path)

    def saveCsv(self, path):
        """Write the table; what cannot be written is said."""
        try:
            write_text(path, ComparisonTable.asCsv(self._table.rows))
        except DistillSegError as problem:
            self._panel.say(str(problem), "error")
            return
        self._panel.say(_("The table was saved as '{path}'.").format(path=path))

    def onCopy(self, _checked=False):
        slicer.app.clipboard().setText(ComparisonTable.asText(self._table.rows))
        self._panel.say(_("The table was copied; paste it into a spreadsheet."))
