"""The section Compare: any two segmentations side by side, and where they differ most."""

import qt
from slicer.i18n import tr as _

from DistillSegPanel import ComparisonTable, DifferenceMap
from DistillSegPanel.CompareEdits import CompareEdits
from DistillSegPanel.CompareInputs import CompareInputs
from DistillSegPanel.CompareKeys import CompareKeys
from DistillSegPanel.CompareLooks import CompareLooks
from DistillSegPanel.CompareRun import CompareRun
from DistillSegPanel.CompareView import CompareView
from DistillSegPanel.Matching import Matching, keepPairs, keptPairs
from DistillSegPanel.MetricsTable import MetricsTable
from DistillSegPanel.TableFiles import TableFiles


class Comparison:
    """Choosers, table and steering; see `CompareRun` for the work and `CompareView` for the views.

    Attributes:
        run, view: those two; inputs: the choice of A and B.
        table: of the metrics.
    """

    def __init__(self, panel, parent):
        self.panel = panel
        self.ui = panel.loadUi("Comparison", parent)
        self.run = CompareRun(panel, self.onCompared, panel.changed, self.onProgress)
        self.view = CompareView(panel, self.onMoved, self.onLeft)
        self.matching = Matching(self.ui.matchingTable, self.onPairs)
        self.inputs = CompareInputs(panel, self.ui, self.run, self.compare)
        self.table = MetricsTable(self.ui.metricsTable, self.onRow)
        self.looks = CompareLooks(panel, self.ui, self.view)
        self.files = TableFiles(panel, self.ui, self.table)
        self.edits = CompareEdits(panel.changedSoon)
        self.keys = CompareKeys(panel.widget, self.view.step, self.ui.blinkButton.click)
        self._isEntered = False
        self._pairs = None  # of the comparison that runs
        self._shown = None  # the table node and its state that the table shows
        self._fill()
        self._connect()

    def _fill(self):
        ui = self.ui
        ui.matchingTable.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        ui.matchingButton.collapsed = True
        ui.progressBar.hide()
        ui.notesLabel.hide()
        ui.editedLabel.hide()

    def _connect(self):
        ui = self.ui
        ui.compareButton.connect("clicked(bool)", self.onCompareButton)
        ui.previousButton.connect("clicked(bool)", self.onPrevious)
        ui.nextButton.connect("clicked(bool)", self.onNext)
        ui.viewButton.connect("clicked(bool)", self.onViewButton)

    # What the panel calls

    def enter(self):
        self._isEntered = True
        self._resume()

    def exit(self):
        self._isEntered = False
        wasOpen = self.view.isOpen
        self.view.close()
        if self.panel.parameters is not None:
            self.panel.parameters.comparing = wasOpen  # comes back with the module
        self._updateKeys()

    def cleanup(self):
        self._isEntered = False
        self._updateKeys()
        self.edits.follow(None)
        self.view.forget()
        self.view.distances.close()
        self.matching.clear()
        self.table.cleanup()

    def sceneClosing(self):
        """The scene is about to close: leave the views while its nodes are there."""
        self.edits.follow(None)
        self.view.forget()
        self.matching.clear()

    def sceneChanged(self):
        """Nodes came or went, or a scene was opened."""
        self.inputs.chooseDefaults()
        self._resume()

    def update(self):
        """Show the choices, the table and what can be done."""
        parameters = self.panel.parameters
        gone = [n for n in (self.view.a, self.view.b) if n is not None and n.GetScene() is None]
        other = (parameters.compareA, parameters.compareB) != (self.view.a, self.view.b)
        if gone or (other and self.view.comparison is not None and not self.run.isActive):
            self.view.forget()
            self.matching.clear()
        self.inputs.update(parameters, self.run.isActive)
        self._showTable(parameters.comparisonTable)
        self._showEdits(parameters)
        self._showState(parameters)
        self._updateKeys()

    # What users do

    def onCompareButton(self, _checked=False):
        """The one button: compare, or cancel."""
        if self.run.isActive:
            self.run.cancel()
        else:
            self.compare()

    def compare(self, pairs=None, nodes=None):
        """Compare what is chosen, or two nodes, and show it; returns at once."""
        parameters = self.panel.parameters
        self.run.compare(*(nodes or (parameters.compareA, parameters.compareB)), pairs)
        if self.run.isActive:
            self._pairs = pairs

    def onPairs(self, pairs):
        """The user matched structures by hand."""
        self.compare(pairs)

    def onRow(self, number):
        """A structure was chosen in the table."""
        if self.view.comparison is not None:
            self.view.choose(self.view.comparison.rows[number])

    def onPrevious(self, _checked=False):
        self.view.step(-1)

    def onNext(self, _checked=False):
        self.view.step(1)

    def onViewButton(self, _checked=False):
        """Leave the views, or show them again."""
        if self.view.isOpen:
            self.view.close()
        else:
            self._open()

    # What the work tells

    def onProgress(self, progress):
        self.ui.progressBar.value = round(100 * progress.fraction)
        self.ui.progressBar.format = f"{progress.sentence}  %p %"

    def onCompared(self, comparison, a, b, ids):
        """The numbers are there: keep them, and go to the structure that differs most."""
        parameters = self.panel.parameters
        table = ComparisonTable.put(comparison, parameters.comparisonTable)
        keepPairs(table, self._pairs)
        self.edits.compared(table, a, b)
        parameters.comparisonTable = table
        self.view.use(comparison, a, b, ids)
        self.matching.show(comparison)
        self._showTable(table)
        self._showNotes(comparison)
        self._open()
        self._chooseFirst(parameters)
        self._tell(a, b)
        self.ui.metricsTable.setFocus()  # for the arrow keys; and Space presses no button then

    def onMoved(self):
        worst, parameters = self.view.worst, self.panel.parameters
        parameters.comparedStructure = worst.row.structure if worst.row is not None else ""
        parameters.comparedSlice = worst.shown
        self.ui.sliceLabel.text = worst.sentence()

    def onLeft(self):
        parameters = self.panel.parameters
        self.ui.blinkButton.checked = False
        if parameters is not None:
            parameters.comparing = False
            if parameters.difference is not None:
                DifferenceMap.hideElsewhere(parameters.difference)

    def _open(self):
        parameters = self.panel.parameters
        parameters.comparing = self.view.open()
        self.view.keepTogether()
        if self.view.isOpen and self.view.worst.row is not None:
            self.view.choose(self.view.worst.row, self.view.worst.shown)

    def _chooseFirst(self, parameters):
        """The structure and slice that were looked at before, or the one that differs most."""
        rows = self.view.comparison.rows
        names = [row.structure for row in rows]
        name, index = parameters.comparedStructure, parameters.comparedSlice
        isKnown = name in names
        number = names.index(name) if isKnown else self.table.worst
        if number is not None:
            self.table.select(number)
            self.view.choose(rows[number], index if isKnown else None)

    def _tell(self, a, b):
        sentence = _("'{a}' and '{b}' are compared.").format(a=a.GetName(), b=b.GetName())
        if self.table.worst is not None:
            row = self.table.rows[self.table.worst]
            sentence += " " + _("Lowest Dice: {dice:.3f}, {structure}.").format(
                dice=row["dice"], structure=row["structure"]
            )
        self.panel.say(sentence)

    def _resume(self):
        """Show again what was compared when the module was left or the scene was saved."""
        parameters, view = self.panel.parameters, self.view
        if parameters is None or not parameters.comparing or view.isOpen or self.panel.busy:
            return
        if parameters.compareA is None or parameters.compareB is None:
            parameters.comparing = False
        elif view.comparison is not None:
            self._open()
        else:
            self.compare(keptPairs(parameters.comparisonTable))

    def _showTable(self, node):
        shown = (node, node.GetMTime() if node is not None else 0)
        if shown != self._shown:
            self._shown = shown
            self.table.show(ComparisonTable.rowsOf(node))

    def _showEdits(self, parameters):
        """Say where the numbers are not those of A and B as they are now."""
        self.edits.follow(parameters.comparisonTable)
        text = self.edits.warning(parameters.compareA, parameters.compareB)
        self.ui.editedLabel.text = "⚠ " + text if text else ""
        self.ui.editedLabel.setVisible(bool(text) and not self.run.isActive)

    def _updateKeys(self):
        self.keys.update(self._isEntered and self.view.isOpen, self.panel.editing.isListening)

    def _showNotes(self, comparison):
        notes = [*comparison.a.warnings, *comparison.b.warnings, *comparison.notes]
        self.ui.notesLabel.text = "\n".join(notes)
        self.ui.notesLabel.setVisible(bool(notes))

    def _showState(self, parameters):
        ui, view = self.ui, self.view
        isFree = not self.panel.busy
        isActive, hasBoth = self.run.isActive, bool(parameters.compareA and parameters.compareB)
        ui.compareButton.text = _("Cancel") if isActive else _("Compare")
        ui.compareButton.enabled = isActive or (isFree and hasBoth)
        ui.compareButton.toolTip = (
            _("Measures every structure and shows A and B side by side.")
            if hasBoth
            else _("Choose A and B first; any two segmentations of the scene.")
        )
        ui.progressBar.setVisible(isActive)
        ui.previousButton.enabled = ui.nextButton.enabled = view.isOpen
        self.looks.update(parameters)
        self.files.update()
        ui.viewButton.enabled = view.comparison is not None
        ui.viewButton.text = _("Leave views") if view.isOpen else _("Show views")
        ui.matchingButton.enabled = view.comparison is not None and isFree
        if view.comparison is None:
            ui.sliceLabel.text = ""
            ui.notesLabel.hide()
