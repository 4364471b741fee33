"""A folder of images, one after the other, in the worker and with the model that is loaded.

The library does it: `DistillSegLib.batch`. What it tells goes through a queue, so that only the
main thread touches the table.
"""

import queue
import threading
from pathlib import Path

from slicer.i18n import tr as _

from DistillSegLib.batch import run_batch
from DistillSegLib.errors import ImageError
from DistillSegLib.inputs import find_inputs
from DistillSegPanel.BatchTable import LEFT, SKIPPED, Case

ENDING = ".seg.nrrd"


class FolderBatch:
    """Segments all images below a folder into another one.

    Args:
        onNews: called with a `Case` on the main thread.
        onProgress: with a `Progress`.
        onEnd: with a problem, or None; after everything was told.
    """

    def __init__(self, work, source, target, *, onNews, onProgress, onEnd):
        self.work = work
        self.source, self.target = Path(source), Path(target)
        self._news = queue.SimpleQueue()
        self._enough = threading.Event()
        self._calls = onNews, onProgress, onEnd

    def start(self, call, resume):
        """Begin and return at once.

        Args:
            call: names model and options; its volumes do not matter.
            resume: leave out what an earlier run finished.
        """
        package, load = self.work.prepareBatch(call)
        nothing = _("There is no image in '{folder}'; choose another folder.")
        nothing = nothing.format(folder=self.source)

        def task(report, cancelled):
            return self._run(package, load, call, resume, nothing, report, cancelled)

        self.work.jobs.start(
            task,
            onProgress=self._tell,
            onDone=lambda _result: self._end(None),
            onError=self._end,
            onCancelled=lambda: self._end(None),
        )

    def stopAfterThis(self):
        """Let the present case be the last one; a later run goes on."""
        self._enough.set()

    def cancel(self):
        """Stop in the middle of the present case."""
        self.work.jobs.cancel()

    def _run(self, package, load, call, resume, nothing, report, cancelled):
        """The worker's part; `nothing` says that there is no image."""
        report(0.0, lambda: _("Looking for images …"))
        channels = len(package.manifest.channels)
        inputs, skipped = find_inputs([self.source], channels=channels, ignored=self.target)
        for one in inputs:
            self._news.put(Case(one.id))
        for one in skipped:
            self._news.put(Case(one.id, SKIPPED, note=one.reason))
        if not inputs:
            raise ImageError(nothing)
        report(0.0, lambda: _("Loading the model …"))
        result = run_batch(
            load(),
            inputs,
            self.target,
            ending=ENDING,
            force_scope=call.forceScope,
            skipped=skipped,
            resume=resume,
            on_row=lambda row: self._news.put(caseOf(row, self.target)),
            on_status=self._begun(report),
            on_progress=report,
            enough=self._enough.is_set,
            cancelled=cancelled,
        )
        for name in result.left:
            self._news.put(Case(name, LEFT))
        return result

    def _begun(self, report):
        def tell(name, status):
            self._news.put(Case(name, status))
            report(0.0, lambda: _("Segmenting '{name}' …").format(name=name))

        return tell

    def _tell(self, progress):
        onNews, onProgress, _onEnd = self._calls
        while not self._news.empty():
            onNews(self._news.get())
        if progress is not None:
            onProgress(progress)

    def _end(self, problem):
        self._tell(None)
        self._calls[2](problem)


def caseOf(row, target):
    """A line of the library's table as a line of ours."""
    volumes = (f"{name}: {volume:.2f} ml" for name, volume in row.volumes_ml.items())
    note = row.reason or " ".join(row.warnings)
    files = (
        (row.input, str(target / row.output)) if row.output and Path(row.input).is_file() else ()
    )
    return Case(row.case, row.status, row.seconds or None, note, "\n".join(volumes), files)
