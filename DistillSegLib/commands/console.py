"""What the user sees: results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from DistillSegLib.commands import harmless
from DistillSegLib.files import write_text

Result = TypeVar("Result")
WIDE = 160  # columns of a table that goes to a file or another program


class Terminal:
    """Where one command prints.

    Args:
        json_file: of `--json`; with "-" standard output is the JSON alone.
    """

    def __init__(self, json_file: str | None = None) -> None:
        self.json_file = json_file
        self._out = _console(sys.stdout, quiet=json_file == "-")
        self._err = _console(sys.stderr)
        self._bar: Progress | None = None

    def print(self, text: str = "") -> None:
        """A line of the result."""
        # a terminal with a bar at its foot takes lines through the bar, which moves out of the way
        through_bar = self._bar and self._out.is_terminal
        (self._bar.console if through_bar else self._out).print(harmless(text), soft_wrap=True)

    def remark(self, text: str) -> None:
        """A line that is not part of the result, such as a warning."""
        self._err.print(harmless(text), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
        """Numbers are aligned right and rounded to three decimals."""
        table = Table(
            title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD
        )
        for number, name in enumerate(columns):
            numeric = any(isinstance(row[number], (int, float)) for row in rows)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(shown, row))
        self._out.print(table)

    @contextmanager
    def progress(
        self, description: str, *, announce: bool = True
    ) -> Iterator[Callable[[float], None]]:
        """A bar while the block runs; it takes the share done, 0 to 1.

        Where standard error is no terminal there is one line instead, when the block ended well;
        `announce` can keep it back, where that is known later.
        """
        start = time.perf_counter()
        if self._err.is_terminal:
            with _bar() as bar:
                task = bar.add_task(description, total=None)  # to and fro, until a share is told
                self._bar = bar
                try:
                    yield lambda share: bar.update(task, total=1.0, completed=share)
                finally:
                    self._bar = None
        else:
            yield lambda share: None
            if announce:
                self.remark(f"{description}: done in {time.perf_counter() - start:.1f} s.")

    def write_json(self, data: Any) -> None:
        """Write `data` where `--json` says; nothing without it."""
        if self.json_file is None:
            return
        text = json.dumps(jsonable(data), indent=1, allow_nan=False)
        if self.json_file == "-":
            sys.stdout.write(text + "\n")
        else:
            write_text(self.json_file, text + "\n")


def jsonable(data: Any) -> Any:
    """Data as JSON has it: paths as text, and null for NaN and infinity, which it does not know."""
    if is_dataclass(data) and not isinstance(data, type):
        return jsonable(asdict(data))
    if isinstance(data, dict):
        return {str(key): jsonable(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [jsonable(value) for value in data]
    if isinstance(data, Path):
        return str(data)
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def shown(value: Any) -> str:
    """A value in a table for people."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return "" if value is None else harmless(str(value))


def interruptible(work: Callable[[Callable[[], bool]], Result]) -> Result:
    """Do `work(cancelled)` so that Ctrl-C is heard at once, even amid a long pass of the engine.

    Python hears it in the main thread and between two instructions only, so the work is done in
    another; it is told through `cancelled` and leaves nothing half-written. A second Ctrl-C ends
    the process on the spot.
    """
    stop = threading.Event()
    ended: list[Result] = []
    failed: list[BaseException] = []

    def target() -> None:
        try:
            ended.append(work(stop.is_set))
        except BaseException as problem:  # raised again below, in the thread that asked
            failed.append(problem)

    thread = threading.Thread(target=target)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(0.2)  # Windows hears nothing while it waits without end
    except KeyboardInterrupt:
        stop.set()
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        while thread.is_alive():
            thread.join(0.2)
        signal.signal(signal.SIGINT, before)
        raise
    if failed:
        raise failed[0]
    return ended[0]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let `cli.py` decide what a reader means who has seen enough; rich would exit with 1."""
        raise  # called while BrokenPipeError is handled


def _console(stream: Any, *, quiet: bool = False) -> Console:
    # No markup, emoji or highlighting: names of files and structures may look like them.
    terminal = stream.isatty()
    return _Console(
        file=stream,
        quiet=quiet,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if terminal else WIDE,
    )


def _bar() -> Progress:
    # On a descriptor of its own: readers silence the error stream while ITK speaks (`quiet.py`).
    stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace")
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%", markup=False),
        TimeRemainingColumn(),
        console=_console(stream),
        speed_estimate_period=24 * 3600,  # an epoch of training may last an hour
        transient=True,  # an error's sentence, or the result, then stands alone
    )
