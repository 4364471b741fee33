"""Which structure of A is compared with which of B: found by the library, changed by the user."""

import json

import qt
from slicer.i18n import tr as _

PAIRS = "DistillSeg.Pairs"  # attribute of the comparison's table node


class Matching:
    """A table with a row for each structure of A and a choice among those of B.

    Args:
        widget: the table.
        onChange: called with the pairs when the user changed one.
    """

    def __init__(self, widget, onChange):
        self._widget, self._onChange = widget, onChange
        self._boxes = []  # (value of A, choice of B)
        self._valuesB = []

    def show(self, comparison):
        """Show how the structures were matched."""
        self.clear()
        labelsA, labelsB = list(comparison.a.labels), list(comparison.b.labels)
        partners = {row.a.value: row.b.value for row in comparison.rows if row.a and row.b}
        self._valuesB = [None, *(label.value for label in labelsB)]
        self._widget.setRowCount(len(labelsA))
        for number, label in enumerate(labelsA):
            item = qt.QTableWidgetItem(label.name)
            item.setToolTip(label.name)
            self._widget.setItem(number, 0, item)
            box = qt.QComboBox()
            box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
            box.addItem(_("(none)"))
            for other in labelsB:
                box.addItem(other.name)
            box.currentIndex = self._valuesB.index(partners.get(label.value))
            box.toolTip = _("The structure of B that is compared with '{name}'.").format(
                name=label.name
            )
            box.connect("activated(int)", self.onActivated)
            self._widget.setCellWidget(number, 1, box)
            self._boxes.append((label.value, box))

    def clear(self):
        """Show nothing."""
        for _value, box in self._boxes:
            box.disconnect("activated(int)", self.onActivated)
        self._boxes = []
        self._widget.setRowCount(0)

    def pairs(self):
        """(value of A, value of B or None), and what of B is left as (None, value)."""
        found = [(value, self._valuesB[box.currentIndex]) for value, box in self._boxes]
        taken = {value for _other, value in found}
        return found + [(None, value) for value in self._valuesB[1:] if value not in taken]

    def onActivated(self, _index):
        self._onChange(self.pairs())


def keepPairs(tableNode, pairs):
    """Save what the user chose with the scene; None where the library matched."""
    if pairs is None:
        tableNode.RemoveAttribute(PAIRS)
    else:
        tableNode.SetAttribute(PAIRS, json.dumps(pairs))


def keptPairs(tableNode):
    """What was saved, or None."""
    text = tableNode.GetAttribute(PAIRS) if tableNode is not None else None
    return [tuple(pair) for pair in json.loads(text)] if text else None
