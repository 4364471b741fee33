"""A batch on a real Dask scheduler with two workers: as the local one, also if one is killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import SimpleITK as sitk

from DistillSegLib.batch import TABLE, run_batch
from DistillSegLib.cli import main
from DistillSegLib.cluster import Cluster
from DistillSegLib.errors import Cancelled, DistillSegError
from DistillSegLib.inference import Segmenter
from DistillSegLib.inputs import find_inputs
from Testing.models import phantom, write_tiny_package

pytest.importorskip("distributed", reason="needs distributed: pip install distillseg[dask]")

ROOT = Path(__file__).parents[2]
CASES = 8
OF_RUN = ("seconds",)  # what may differ between two runs


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def process(*arguments: str, folder: Path, **environment: str):
    """`dask ...` as users start it; its log is shown when the test fails."""
    command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    with open(folder / f"{arguments[0]}-{time.monotonic_ns()}.log", "w") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        print(Path(out.name).read_text()[-4000:])


@contextmanager
def worker(address: str, folder: Path, **environment: str):
    environment = {"PYTHONPATH": str(ROOT)} | environment
    settings = ("--nthreads", "1", "--nworkers", "1", "--no-dashboard", "--host", "127.0.0.1")
    place = ("--local-directory", str(folder))
    with process("dask_worker", address, *settings, *place, folder=folder, **environment) as one:
        yield one


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory) -> str:
    """The address of a scheduler without workers."""
    folder = tmp_path_factory.mktemp("scheduler")
    address = f"tcp://127.0.0.1:{free_port()}"
    settings = ("--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard")
    with process("dask_scheduler", *settings, folder=folder):
        yield address


@pytest.fixture(scope="module")
def workers(scheduler, tmp_path_factory) -> str:
    """The same scheduler with two worker processes."""
    from distributed import Client

    folders = [tmp_path_factory.mktemp("worker") for _ in range(2)]
    with worker(scheduler, folders[0]), worker(scheduler, folders[1]):
        with Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield scheduler


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Segmenter:
    """Slow enough that a worker can be killed in the middle of a case."""
    package = tmp_path_factory.mktemp("package") / "slow.distillseg"
    return Segmenter(write_tiny_package(package, blur=25), threads=1, engine="onnxruntime")


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for number in range(CASES):
        place = folder / ("s" if number % 2 else "") / f"case{number}.nii.gz"
        place.parent.mkdir(exist_ok=True)
        sitk.WriteImage(phantom((30 - number, 30, 28)), str(place))
    (folder / "broken.nii.gz").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def local(segmenter, cases, tmp_path_factory) -> Path:
    """The results of the same batch without a cluster."""
    out = tmp_path_factory.mktemp("local") / "out"
    run_batch(segmenter, find_inputs([cases])[0], out)
    return out


def table(out: Path) -> list[dict[str, str]]:
    with open(out / TABLE, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: value for name, value in row.items() if name not in OF_RUN} for row in rows]


def files(out: Path) -> dict[str, bytes]:
    """Every file but the table, hidden ones included."""
    found = sorted(path for path in out.rglob("*") if path.is_file() and path.name != TABLE)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def test_a_worker_killed_amid_a_case_loses_nothing_and_nothing_is_done_twice(
    segmenter, cases, local, workers, tmp_path
):
    from distributed import Client

    inputs, _ = find_inputs([cases])
    out, rows, interrupted = tmp_path / "out", [], set()

    with Client(workers, set_as_default=False) as client:
        pids = client.run(os.getpid)

        def kill_one() -> None:
            """Kill a worker with a case in hand, once two cases are done."""
            while not interrupted:
                busy = [(at, keys) for at, keys in client.processing().items() if keys]
                if len(rows) >= 2 and busy:
                    address, keys = busy[0]
                    os.kill(pids[address], signal.SIGKILL)
                    interrupted.update(str(key).rpartition("-")[2] for key in keys)
                time.sleep(0.01)

        killer = threading.Thread(target=kill_one)
        killer.start()
        result = run_batch(
            segmenter, inputs, out, cluster=Cluster(workers, threads=1), on_row=rows.append
        )
        killer.join(10)
    assert interrupted <= {one.id for one in inputs} and interrupted
    assert sorted(row.case for row in rows) == sorted(one.id for one in inputs)  # each once
    assert table(out) == table(local)
    assert files(out) == files(local)
    assert {row.status for row in result.rows} == {"done", "failed"} and result.left == ()
    assert result.busy > 0 and result.cpu_seconds > 0


def test_a_batch_that_is_cancelled_goes_on_where_it_was(segmenter, cases, local, workers, tmp_path):
    inputs, _ = find_inputs([cases])
    out, enough = tmp_path / "out", threading.Event()
    cluster = Cluster(workers, threads=1)
    with pytest.raises(Cancelled, match="were kept"):
        run_batch(
            segmenter,
            inputs,
            out,
            cluster=cluster,
            on_row=lambda row: row.status == "done" and enough.set(),
            cancelled=enough.is_set,
        )
    done = {row["case"] for row in table(out) if row["status"] == "done"}
    assert 0 < len(done) < CASES
    told = []
    stopped = run_batch(
        segmenter,
        inputs,
        out,
        cluster=cluster,
        on_status=lambda case, status: told.append((case, status)),
        enough=lambda: sum(status == "running" for _, status in told) > 1,
    )
    assert stopped.resumed == done and len(stopped.left) == len(inputs) - len(done) - 2
    result = run_batch(segmenter, inputs, out, cluster=cluster)
    assert result.resumed > done and result.left == ()
    assert table(out) == table(local)
    assert files(out) == files(local)


def test_the_command_line_takes_an_address_and_shows_how_busy_the_cores_were(
    segmenter, cases, workers, tmp_path, capsys
):
    package, out = str(segmenter.package.path), str(tmp_path / "out")
    call = ["segment", str(cases / "s"), "--package", package, "--out", out]
    report = tmp_path / "report.json"
    assert main([*call, "--scheduler", workers, "--json", str(report)]) == 0
    told, printed = json.loads(report.read_text()), capsys.readouterr().out
    assert told["busy"] == pytest.approx(
        told["cpu_seconds"] / (told["seconds"] * told["cores"]), abs=1e-3
    )
    assert told["busy"] > 0 and f"{told['busy']:.0%} of {told['cores']} core" in printed
    assert [row["case"] for row in told["cases"]] == [f"case{n}" for n in range(1, CASES, 2)]
    image = str(cases / "case0.nii.gz")
    alone = ["segment", image, *call[2:4], "--out", f"{out}.seg.nrrd", "--scheduler", workers]
    assert main(alone) == 1
    assert "--scheduler is for a folder of cases" in capsys.readouterr().err


def test_what_workers_cannot_see_is_one_sentence_before_any_case(
    segmenter, cases, workers, tmp_path, monkeypatch
):
    """Workers look at the folder of results as it is for them: here it lies in a private one."""
    inputs, _ = find_inputs([cases])
    from DistillSegLib import cluster_start

    monkeypatch.setattr(cluster_start, "write_text", lambda path, text: path.parent.mkdir())
    with pytest.raises(DistillSegError, match=r"does not see .*out'; put images and results"):
        run_batch(segmenter, inputs, tmp_path / "out", cluster=Cluster(workers))
    assert not (tmp_path / "out").exists()


def test_unreachable_schedulers_and_bare_workers_are_one_sentence(
    segmenter, cases, tmp_path, monkeypatch
):
    from DistillSegLib import cluster_start

    monkeypatch.setattr(cluster_start, "CONNECT_SECONDS", 1)
    inputs, _ = find_inputs([cases])
    for address in (f"tcp://127.0.0.1:{free_port()}", "no address", "tcp://:x"):
        with pytest.raises(DistillSegError, match=r"no Dask scheduler at .* start one with"):
            run_batch(segmenter, inputs, tmp_path / "out", cluster=Cluster(address))
    assert not (tmp_path / "out").exists()


def test_workers_without_distillseg_are_named(segmenter, cases, tmp_path):
    from distributed import Client

    folder = tmp_path / "worker"
    folder.mkdir()
    address = f"tcp://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    inputs, _ = find_inputs([cases])
    hide = "import sys; sys.modules['DistillSegLib'] = None\n"
    (folder / "sitecustomize.py").write_text(hide)
    with (
        process(
            "dask_scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "--no-dashboard",
            folder=tmp_path,
        ),
        worker(address, folder, PYTHONPATH=str(folder)),
    ):
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=120)
        with pytest.raises(DistillSegError, match=r"has not DistillSeg .*; install the same"):
            run_batch(segmenter, inputs, tmp_path / "out", cluster=Cluster(address))
    assert not (tmp_path / "out").exists()
