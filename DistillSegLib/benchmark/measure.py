"""One measurement in one fresh process, so that imports and the peak of memory are honest.

The parent calls `run_job`; the child runs `main`, which calls one function of `WORK` with a
stopwatch. Only the standard library is imported here: what a child imports belongs to what it
measures.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from DistillSegLib.errors import DistillSegError
from DistillSegLib.machine import peak_memory_bytes

WORK = {
    "phantom": "DistillSegLib.benchmark.subject:write_phantom",
    "students": "DistillSegLib.benchmark.students:make",
    "agreement": "DistillSegLib.benchmark.lean:agreement",
    "lean": "DistillSegLib.benchmark.lean:once",
    "warm": "DistillSegLib.benchmark.lean:warm",
    "torch": "DistillSegLib.benchmark.peers:torch_engine",
    "monai": "DistillSegLib.benchmark.peers:monai",
    "nnunet": "DistillSegLib.benchmark.peers:nnunet",
}
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "nnUNet_def_n_proc",
)


class Stopwatch:
    """Wall and CPU seconds by stage.

    Attributes:
        wall, cpu: seconds by stage, in the order in which stages began; a stage may come twice.
    """

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the block's time to a stage."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[stage] = self.wall.get(stage, 0.0) + time.perf_counter() - wall
        self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - cpu


class JobFailed(DistillSegError):
    """A child did not give a measurement; the sentence says why."""


def run_job(work: str, settings: Mapping[str, Any], *, threads: int) -> dict[str, Any]:
    """Do one piece of work in a fresh Python.

    Args:
        work: a key of `WORK`.
        settings: what its function takes, as JSON can say it.
        threads: that any library in the child may use.

    Returns:
        `wall_s` from the start of the process to its end, `cpu_s` of all its threads, `peak_mb` of
        its resident memory (in 10^6 bytes), `stages` and `stages_cpu` in seconds, and `found`, what
        the function returned.

    Raises:
        JobFailed: in one sentence.
    """
    with tempfile.TemporaryDirectory(prefix="distillseg-") as folder:
        result = Path(folder) / "result.json"
        job = {"work": work, "settings": settings, "threads": threads, "result": str(result)}
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "DistillSegLib.benchmark.measure"],
            input=json.dumps(job),
            env=_environment(threads),
            capture_output=True,
            text=True,
            errors="replace",
        )
        wall = time.perf_counter() - start
        if done.returncode or not result.exists():
            raise JobFailed(_reason(work, done))
        found = json.loads(result.read_text(encoding="utf-8"))
    if "error" in found:
        raise JobFailed(found["error"])
    return {"wall_s": wall, **found}


def main() -> None:
    """In the child: read the job, do it, and write what was measured."""
    job = json.load(sys.stdin)
    module, name = WORK[job["work"]].split(":")
    stopwatch = Stopwatch()
    try:
        function = getattr(importlib.import_module(module), name)
        found = function(stopwatch, job["threads"], **job["settings"])
        result = {
            "cpu_s": time.process_time(),
            "peak_mb": peak_memory_bytes() / 1e6,
            "stages": stopwatch.wall,
            "stages_cpu": stopwatch.cpu,
            "found": found,
        }
    except DistillSegError as problem:
        result = {"error": str(problem)}
    except MemoryError:
        result = {"error": "It needs more memory than there is; close other programs."}
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def _environment(threads: int) -> dict[str, str]:
    library = str(Path(__file__).parents[2])
    paths = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = dict.fromkeys(THREADS, str(threads))
    # Unset, nnU-Net complains about its folders, which no predictor needs.
    folders = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), os.devnull)
    more = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
    return os.environ | settings | folders | more | {"nnUNet_compile": "0"}


def _reason(work: str, done: subprocess.CompletedProcess) -> str:
    if done.returncode < 0:
        return (
            f"The process '{work}' was ended by signal {-done.returncode}, probably because memory "
            "ran out; close other programs or take a smaller volume."
        )
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"The process '{work}' failed ({last[:300].rstrip('.')}); repeat on another machine."


if __name__ == "__main__":
    main()
