"""A function in a thread: how far it is, how to stop it, what it gave. Neither Qt nor MRML.

result = runAndWait(task)  # for scripts and the console, without an event loop
"""

import threading
import time
from dataclasses import dataclass

from slicer.i18n import tr as _

from DistillSegLib.errors import Cancelled

TURN_SECONDS = 0.05  # between two looks at a worker that a script waits for
QUIT_SECONDS = 5.0  # that quitting or reloading waits for a worker to notice
LATE = 3.0  # times the expected duration, after which the user is told
STARTING_SECONDS = 0.3  # for what is done once, such as loading the model


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        fraction: 0 to 1, never falling.
        sentence: what is being done, for people.
        secondsLeft: None where nobody knows.
    """

    fraction: float
    sentence: str
    secondsLeft: float | None = None


class Worker:
    """A function in a thread: `function(report, cancelled)`, with `report(share, sentence="")`.

    A sentence that is translated is given as a function, such as `lambda: _("Loading …")`, which is
    called on the main thread: Slicer translates with Qt, which workers must not touch.

    Where the function cannot tell how far it is, as in a single pass of a network,
    `expectedSeconds` fills the time between two reports.
    """

    def __init__(self, function, *, expectedSeconds=None):
        self.result = None
        self.problem = None
        self._function = function
        self._expected = expectedSeconds + STARTING_SECONDS if expectedSeconds else None
        self._end = threading.Event()  # of the work alone: news would cut the waits short
        self._stop = threading.Event()
        self._share, self._sentence = 0.0, ""
        self._shown = 0.0
        self._started = time.perf_counter()
        self._thread = threading.Thread(target=self._run, name="DistillSeg", daemon=True)

    def start(self):
        """Begin; returns itself."""
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def cancel(self):
        """Ask the function to stop; it ends with `Cancelled`."""
        self._stop.set()

    @property
    def isCancelled(self):
        """Whether it was asked to stop."""
        return self._stop.is_set()

    @property
    def finished(self):
        """Whether `result` or `problem` is there."""
        return self._end.is_set()

    def wait(self, seconds):
        """Hand the interpreter to the worker until it has finished or the time is over."""
        self._end.wait(seconds)

    def join(self, seconds):
        """Wait for the thread's end; returns whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def progress(self):
        """How far it is now."""
        elapsed = time.perf_counter() - self._started
        share = self._share
        if self._expected and not self.finished:
            share = max(share, min(0.95, elapsed / self._expected))
        self._shown = max(self._shown, share)
        return Progress(self._shown, self._sentenceAfter(elapsed), self._secondsLeft(elapsed))

    def _sentenceAfter(self, elapsed):
        if self._expected and elapsed > LATE * max(self._expected, 2.0):
            return _(
                "This takes {elapsed:.0f} s instead of about {expected:.0f} s; cancel it, or wait."
            ).format(elapsed=elapsed, expected=max(1, self._expected))
        sentence = self._sentence
        return sentence() if callable(sentence) else sentence

    def _secondsLeft(self, elapsed):
        if self.finished:
            return 0.0
        if self._expected and elapsed < self._expected:
            return self._expected - elapsed
        if self._share > 0.1:
            return elapsed * (1 - self._share) / self._share
        return None

    def _run(self):
        try:
            self.result = self._function(self._report, self._stop.is_set)
        except BaseException as problem:  # told on the main thread, whatever it is
            self.problem = problem
        self._end.set()

    def _report(self, share, sentence=""):
        self._share = max(self._share, min(1.0, share))
        self._sentence = sentence or self._sentence


def runAndWait(function, *, onProgress=None, cancelled=None, expectedSeconds=None):
    """Run a job and return its result, without an event loop: for scripts and the console.

    Args:
        onProgress: called with a `Progress`; cancelled: asked, both on the calling thread.

    Raises:
        Whatever the function raised; `Cancelled` if `cancelled` said so.
    """
    worker = Worker(function, expectedSeconds=expectedSeconds).start()
    told = None
    try:
        while not worker.finished:
            worker.wait(TURN_SECONDS)
            if cancelled is not None and not worker.isCancelled and cancelled():
                worker.cancel()
            if onProgress is not None and (now := worker.progress()) != told:
                onProgress(now)
                told = now
    except BaseException:  # of the callbacks, or Ctrl+C
        worker.cancel()
        raise
    worker.join(QUIT_SECONDS)
    if worker.problem is not None:
        raise worker.problem
    if worker.isCancelled:
        raise Cancelled("The job was cancelled; nothing was written.")
    return worker.result
