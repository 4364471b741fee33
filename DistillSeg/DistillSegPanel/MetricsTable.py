"""The table of metrics in the panel: a row for each structure, sorted as the user likes."""

import math

import qt
from slicer.i18n import tr as _

from DistillSegPanel.Bars import barIcon, profileIcon
from DistillSegPanel.ComparisonTable import POSITION, profileOf
from DistillSegPanel.ResultTexts import volumeText

KEYS = ("structure", "dice", "hd95_mm", "nsd", "volume_a_ml", "difference_percent", POSITION)
BAR, PROFILE = (10, 8), (18, 14)  # pixels
LETTERS = (0, 7.5, 5, 5.5, 4.5, 5, 6)  # of each column; the first takes what is left
PICTURES = {1: BAR, 6: PROFILE}  # by column
PADDING = 8  # pixels
LINES = 2  # of text in a row: two volumes, or a long name
MOST_ROWS = 8  # without scrolling
RIGHT = 0x82  # Qt::AlignRight | Qt::AlignVCenter


class MetricsTable:
    """Shows rows of a comparison.

    Args:
        widget: the QTableWidget.
        onChosen: called with the number of a row, as in `rows`, when the user chooses it.

    Attributes:
        rows: as `ComparisonTable.rowsOf` gives them, in the order of the comparison.
    """

    def __init__(self, widget, onChosen):
        self.rows = []
        self._widget, self._onChosen = widget, onChosen
        self._order = []
        self._sort = (1, False)  # the lowest Dice first
        self._filling = False
        header = widget.horizontalHeader()
        letter = widget.fontMetrics().averageCharWidth()
        for column, letters in enumerate(LETTERS):  # fitted to contents they are wider than a panel
            header.setSectionResizeMode(column, qt.QHeaderView.Fixed)
            picture = PICTURES.get(column, (0, 0))[0]
            header.resizeSection(column, round(letters * letter) + picture + PADDING)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSectionsClickable(True)
        header.setHighlightSections(False)
        header.connect("sectionClicked(int)", self._onSort)
        widget.setIconSize(qt.QSize(*PROFILE))
        self._rowHeight = LINES * widget.fontMetrics().lineSpacing() + 4
        widget.verticalHeader().setSectionResizeMode(qt.QHeaderView.Fixed)
        widget.verticalHeader().setDefaultSectionSize(self._rowHeight)
        widget.connect("itemSelectionChanged()", self._onSelected)

    def cleanup(self):
        """Let go of the widget."""
        self._widget.horizontalHeader().disconnect("sectionClicked(int)", self._onSort)
        self._widget.disconnect("itemSelectionChanged()", self._onSelected)

    def show(self, rows):
        """Show other rows."""
        self.rows = rows
        self._refill(None)

    def select(self, number):
        """Mark a row of `rows`, without telling anybody."""
        self._filling = True
        self._widget.selectRow(self._order.index(number))
        self._filling = False

    @property
    def worst(self):
        """The number of the row with the lowest Dice; None if there is none."""
        known = [n for n, row in enumerate(self.rows) if not math.isnan(row["dice"])]
        return min(known, key=lambda number: self.rows[number]["dice"], default=None)

    def _refill(self, chosen):
        self._filling = True
        self._order = sortedOrder(self.rows, *self._sort)
        self._showArrow()
        self._widget.setRowCount(len(self.rows))
        for place, number in enumerate(self._order):
            row = self.rows[number]
            for column, (text, share) in enumerate(_cells(row)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(_toolTip(row))
                if column:
                    item.setData(qt.Qt.TextAlignmentRole, RIGHT)
                if share is not None and not math.isnan(share):
                    item.setIcon(barIcon(share, self._widget.palette, *BAR))
                self._widget.setItem(place, column, item)
            profile = profileOf(row)
            if profile:
                self._widget.item(place, 6).setIcon(
                    profileIcon(profile, self._widget.palette, *PROFILE)
                )
        self._fitHeight()
        self._widget.clearSelection()
        self._filling = False
        if chosen is not None:
            self.select(chosen)

    def _showArrow(self):
        column, isDescending = self._sort
        header = self._widget.horizontalHeader()
        order = qt.Qt.DescendingOrder if isDescending else qt.Qt.AscendingOrder
        header.setSortIndicator(column, order)
        header.setSortIndicatorShown(bool(self.rows))

    def _fitHeight(self):
        """As high as its rows, up to `MOST_ROWS` of them."""
        rows = max(1, min(MOST_ROWS, len(self.rows)))
        header = self._widget.horizontalHeader().sizeHint.height()
        self._widget.setFixedHeight(header + rows * self._rowHeight + 2)

    def _chosen(self):
        place = self._widget.currentRow()
        isMarked = bool(self._widget.selectionModel().selectedRows())
        return self._order[place] if isMarked and 0 <= place < len(self._order) else None

    def _onSelected(self):
        number = None if self._filling else self._chosen()
        if number is not None:
            self._onChosen(number)

    def _onSort(self, column):
        chosen = self._chosen()
        isDescending = column == self._sort[0] and not self._sort[1]
        self._sort = (column, isDescending)
        self._refill(chosen)


def sortedOrder(rows, column, isDescending):
    """Numbers of the rows, sorted by a column; rows without a number last."""

    def key(number):
        value = rows[number][KEYS[column]]
        return value.casefold() if isinstance(value, str) else value

    known = [n for n in range(len(rows)) if key(n) == key(n)]
    rest = [n for n in range(len(rows)) if key(n) != key(n)]
    return sorted(known, key=key, reverse=isDescending) + rest


def _cells(row):
    """Text and length of the bar, for each column of the panel's table."""
    both = (row["volume_a_ml"], row["volume_b_ml"])
    volumes = "\n".join("–" if math.isnan(each) else volumeText(each) for each in both)
    return (
        (row["structure"], None),
        (_number(row["dice"], 3), row["dice"]),
        (_number(row["hd95_mm"], 1), None),
        (_number(row["nsd"], 3), None),
        (volumes, None),
        (_number(row["difference_percent"], 1, sign=True), None),
        (_number(row[POSITION], 0), None),
    )


def _toolTip(row):
    text = _("{structure}: matched by {way}").format(
        structure=row["structure"], way=row["matched_by"]
    )
    if row["remark"]:
        text += f"\n{row['remark']}"
    elif not math.isnan(row["worst_slice_mm2"]):
        text += "\n" + _("worst slice: {area:.0f} mm² differ").format(area=row["worst_slice_mm2"])
    return text


def _number(value, digits, *, sign=False):
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
