"""One worker thread at a time, its progress, and its end told on the main thread.

The worker touches neither MRML nor Qt. Slicer's Python keeps its lock while the event loop idles,
so that a worker would starve: a timer therefore wakes the main thread every 50 ms, and its handler
waits up to 20 ms on the worker's event, which hands the lock over. Measured in Slicer 5.8, that
costs the worker nothing and leaves the window alive; a timer alone made it 17 times slower.

    jobs.start(task, onDone=show, onError=tell)  # returns at once
"""

import logging
import time

from DistillSegLib.errors import Cancelled
from DistillSegPanel.Worker import QUIT_SECONDS, Worker

POLL_MS = 50
WAIT_SECONDS = 0.02
CANCELLING_MS = 10  # between two turns while a worker is about to stop
PATIENCE_SECONDS = 0.3  # after which a cancelled worker is left to itself, its result dropped

log = logging.getLogger(__name__)


class Jobs:
    """Runs one job at a time beside the event loop; all callbacks come on the main thread."""

    def __init__(self):
        self._worker = None
        self._calls = {}
        self._cancelledAt = None
        self._leaving = []  # cancelled workers that have not noticed yet
        self._timer = None

    @property
    def isRunning(self):
        """Whether a job is going on, so that no second one may be started."""
        return self._worker is not None

    def start(
        self,
        function,
        *,
        onProgress=None,
        onDone=None,
        onError=None,
        onCancelled=None,
        stillWanted=None,
        expectedSeconds=None,
    ):
        """Begin a job and return at once.

        Args:
            function: called in the worker as `function(report, cancelled)`.
            onProgress: called with a `Progress`, about 20 times a second.
            onDone: called with the result.
            onError: called with the exception; also with one that `onDone` raised.
            onCancelled: called without arguments.
            stillWanted: asked at every turn, on the main thread; False cancels, as when the volume
                was deleted or the scene closed.

        Raises:
            RuntimeError: a job is running.
        """
        if self.isRunning:
            raise RuntimeError("A job is running; wait for its end or cancel it.")
        self._calls = {
            "progress": onProgress,
            "done": onDone,
            "error": onError or self._logged,
            "cancelled": onCancelled,
            "wanted": stillWanted,
        }
        self._cancelledAt = None
        self._worker = Worker(function, expectedSeconds=expectedSeconds).start()
        self._wake()

    def cancel(self):
        """Stop the job; `onCancelled` follows within half a second."""
        if self._worker is not None and self._cancelledAt is None:
            self._worker.cancel()
            self._cancelledAt = time.perf_counter()
            if self._timer is not None:
                self._timer.setInterval(CANCELLING_MS)

    def close(self):
        """Stop everything without further calls: for quitting, reloading and closing the module."""
        self.cancel()
        workers, self._worker, self._calls = [*self._leaving, self._worker], None, {}
        self._leaving = []
        self._sleep()
        for worker in workers:
            if worker is not None and not worker.join(QUIT_SECONDS):
                log.warning("A cancelled job has not stopped yet; it ends by itself.")

    def poll(self):
        """One turn of the timer: let the worker run, then tell what it did."""
        for worker in self._leaving:
            worker.wait(WAIT_SECONDS)
        self._leaving = [worker for worker in self._leaving if not worker.join(0)]
        if self._worker is not None:
            self._turn(self._worker)
        if self._worker is None and not self._leaving:
            self._sleep()

    def _turn(self, worker):
        worker.wait(WAIT_SECONDS)
        wanted = self._calls["wanted"]
        if wanted is not None and not worker.isCancelled and not wanted():
            self.cancel()
        if worker.finished:
            self._end(worker)
        elif self._cancelledAt and time.perf_counter() - self._cancelledAt > PATIENCE_SECONDS:
            self._leaving.append(worker)
            self._end(worker)
        elif self._calls["progress"]:
            self._calls["progress"](worker.progress())

    def _end(self, worker):
        calls, self._calls, self._worker = self._calls, {}, None
        if worker.isCancelled or isinstance(worker.problem, Cancelled):
            if calls["cancelled"]:
                calls["cancelled"]()
            return
        if worker.problem is not None:
            calls["error"](worker.problem)
            return
        try:
            if calls["done"]:
                calls["done"](worker.result)
        except Exception as problem:
            calls["error"](problem)

    def _wake(self):
        import qt

        if self._timer is None:
            self._timer = qt.QTimer()
            self._timer.connect("timeout()", self.poll)
        self._timer.setInterval(POLL_MS)
        self._timer.start()

    def _sleep(self):
        if self._timer is not None:
            self._timer.stop()
            self._timer.disconnect("timeout()", self.poll)
            self._timer.deleteLater()
            self._timer = None

    @staticmethod
    def _logged(problem):
        log.error("A job failed.", exc_info=problem)
