"""The cases of a batch, a row for each: what became of it, in how many seconds, what to look at."""

from dataclasses import dataclass, replace

import qt
from slicer.i18n import tr as _

WAITING, RUNNING, DONE, BEFORE = "waiting", "running", "done", "resumed"
FAILED, SKIPPED, LEFT = "failed", "skipped", "left"
COLUMNS = 4
ROW_PIXELS = 22
FEWEST, MOST = 3, 10  # rows that are seen at once


@dataclass(frozen=True)
class Case:
    """One image of a batch.

    Attributes:
        name: unique in the batch.
        status: one of the names above.
        seconds: None before there are any.
        note: warnings, or why it failed or was skipped.
        details: for the tool tip, such as the volumes.
        files: the image and its result, of a folder.
        nodes: ids of the volume and of its result, of the scene.
    """

    name: str
    status: str = WAITING
    seconds: float | None = None
    note: str = ""
    details: str = ""
    files: tuple = ()
    nodes: tuple = ()


class BatchTable:
    """Fills a `QTableWidget`; a case keeps its row.

    Attributes:
        cases: by name.
    """

    def __init__(self, widget):
        self.widget = widget
        self.cases = {}
        self._rows = {}
        widget.setColumnCount(COLUMNS)
        widget.setHorizontalHeaderLabels([_("Case"), _("Status"), _("Seconds"), _("Notes")])
        widget.setWordWrap(False)
        widget.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        widget.verticalHeader().setVisible(False)
        widget.verticalHeader().setDefaultSectionSize(ROW_PIXELS)
        widget.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        widget.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        header = widget.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.Interactive)
        header.setStretchLastSection(True)
        for column, width in enumerate((96, 82, 58)):
            widget.setColumnWidth(column, width)

    def clear(self):
        """Forget all cases."""
        self.cases, self._rows = {}, {}
        self.widget.setRowCount(0)
        self._fit()

    def put(self, case):
        """Show a case, new or with news; the one that runs is kept in sight."""
        widget = self.widget
        if case.name not in self._rows:
            self._rows[case.name] = widget.rowCount
            widget.setRowCount(widget.rowCount + 1)
            self._fit()
        row = self._rows[case.name]
        self.cases[case.name] = case
        texts = (case.name, statusText(case.status), secondsText(case.seconds), case.note)
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip("\n".join(part for part in (case.note, case.details) if part) or text)
            if column == 2:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            widget.setItem(row, column, item)
        if case.status == RUNNING:
            widget.scrollToItem(widget.item(row, 0))

    def leaveRest(self):
        """What waits or runs is not done any more: the batch has ended."""
        for case in list(self.cases.values()):
            if case.status in (WAITING, RUNNING):
                self.put(replace(case, status=LEFT))

    def caseIn(self, row):
        """The case of a row."""
        return self.cases[self.widget.item(row, 0).text()]

    def _fit(self):
        """As high as its rows, so that a short list leaves no empty space."""
        rows = min(max(self.widget.rowCount, FEWEST), MOST)
        self.widget.setFixedHeight((rows + 1) * ROW_PIXELS + 8)

    def summary(self):
        """Such as "12 cases: 9 done, 2 failed, 1 skipped."."""
        counts = {}
        for case in self.cases.values():
            counts[case.status] = counts.get(case.status, 0) + 1
        parts = [
            f"{counts[status]} {statusText(status)}"
            for status in (DONE, BEFORE, FAILED, SKIPPED, LEFT, WAITING)
            if status in counts
        ]
        total = len(self.cases)
        text = _("1 case") if total == 1 else _("{count} cases").format(count=total)
        return f"{text}: {', '.join(parts)}." if parts else f"{text}."


def secondsText(seconds):
    """Tenths, below one second hundredths."""
    if seconds is None:
        return ""
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2f}"


def statusText(status):
    """A status in the user's language."""
    return {
        WAITING: _("waiting"),
        RUNNING: _("running"),
        DONE: _("done"),
        BEFORE: _("done before"),
        FAILED: _("failed"),
        SKIPPED: _("skipped"),
        LEFT: _("not begun"),
    }[status]
