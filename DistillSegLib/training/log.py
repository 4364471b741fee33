"""What is left of each epoch for people to look at: `metrics.csv`, and TensorBoard events."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from DistillSegLib.files import write_text
from DistillSegLib.training.fit import Epoch


class Log:
    """Writes both into a stage's folder; a context manager.

    The table is always written from all epochs, so a resumed run loses none and holds none twice.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._events: SummaryWriter | None = None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *problem: object) -> None:
        if self._events:
            self._events.close()

    def write(self, epochs: Sequence[Epoch]) -> None:
        """All epochs so far; the last one is new."""
        last = epochs[-1]
        rows = [{"epoch": epoch.number} | epoch.row for epoch in epochs]
        columns = dict.fromkeys(column for row in rows for column in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._folder / "metrics.csv", text.getvalue())
        if not self._events:  # what a killed run wrote from this epoch on is no longer shown
            self._events = SummaryWriter(str(self._folder), purge_step=last.number)
        for name, value in last.row.items():
            self._events.add_scalar(name, value, last.number)
        self._events.flush()
