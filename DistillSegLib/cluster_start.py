"""Before a batch on a Dask cluster: reach it, and find out whether its workers can do the cases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from DistillSegLib import __version__
from DistillSegLib.cluster_worker import TOKEN, Task, has_package, token_in, unseen_from_here
from DistillSegLib.errors import Cancelled, DistillSegError
from DistillSegLib.files import sha256, write_text
from DistillSegLib.inputs import Input

CONNECT_SECONDS = 10  # to reach the scheduler, and to find a first worker
POLL_SECONDS = 0.25


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of a scheduler. DistillSegError if none answers there."""
    try:
        from distributed import Client
    except ImportError as problem:
        raise DistillSegError(
            'A scheduler needs the package distributed; pip install "distillseg[dask]".'
        ) from problem
    _knock(address)
    client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="distillseg")
    try:
        yield client
    finally:
        with suppress(Exception):  # closing says nothing of the results
            client.close(timeout=5)


def _knock(address: str) -> None:
    """See whether a scheduler answers; a Client that cannot connect leaves threads that disturb."""
    from distributed import Security
    from distributed.comm import connect

    async def reach() -> None:
        settings = Security().get_connection_args("client")
        found = await asyncio.wait_for(connect(address, **settings), CONNECT_SECONDS)
        await found.close()

    try:
        with ThreadPoolExecutor(1) as thread:  # in this one a loop may run, as in Jupyter
            thread.submit(asyncio.run, reach()).result()
    except asyncio.TimeoutError:
        problem: Exception = TimeoutError(f"no answer within {CONNECT_SECONDS} s")
    except (OSError, ValueError, TypeError) as found:  # TypeError: TLS without certificates
        problem = found
    else:
        return
    reason = " ".join(str(problem).split())
    raise DistillSegError(
        f"There is no Dask scheduler at '{address}' ({reason[:200]}); start one with 'dask "
        "scheduler' and give the address that it prints, such as tcp://node0:8786."
    ) from problem


@contextmanager
def token_of(folder: Path) -> Iterator[str]:
    """The name of this batch, in a file of the results folder for as long as it runs."""
    token, new = uuid4().hex, not folder.exists()
    write_text(folder / TOKEN, token)
    try:
        yield token
    finally:
        if token_in(folder) == token:  # not that of a batch which took the folder over
            with suppress(OSError):
                (folder / TOKEN).unlink()
        if new:
            with suppress(OSError):  # it holds results, as it should
                folder.rmdir()


def find_workers(client: Any, address: str, cancelled: Callable[[], bool]) -> list[str]:
    """The addresses of the workers. DistillSegError if none comes within a while."""
    end = time.monotonic() + CONNECT_SECONDS
    while not (found := sorted(client.nthreads())):
        if cancelled():
            raise Cancelled("The batch was cancelled before it began.")
        if time.monotonic() > end:
            raise DistillSegError(
                f"The scheduler '{address}' has no workers; start some with 'dask worker "
                f"{address}' on machines where DistillSeg is installed."
            )
        time.sleep(POLL_SECONDS)
    return found


def check_versions(client: Any) -> None:
    """Refuse workers without DistillSeg or with another one; asked in plain Python."""
    asked = "__import__('DistillSegLib').__version__"
    for worker, version in client.run(eval, asked, on_error="return").items():
        if version == __version__:
            continue
        found = f"not DistillSeg ({version})" if isinstance(version, Exception) else version
        raise DistillSegError(
            f"The worker '{worker}' has {found}, here is DistillSeg {__version__}; install the "
            "same version in the Python of every worker, and start it again."
        )


def send_package(client: Any, path: Path) -> str:
    """Have the package on every worker, also on later ones; returns its file's name there."""
    from distributed.diagnostics.plugin import UploadFile

    name = f"{sha256(path)}{path.suffix}"
    if not all(client.run(has_package, name).values()):
        with TemporaryDirectory() as folder:
            copy = Path(folder) / name
            copy.write_bytes(path.read_bytes())
            client.register_plugin(UploadFile(str(copy), load=False), name=name)
    return name


def check_places(client: Any, task: Task, waiting: Sequence[Input]) -> None:
    """Refuse workers that do not see the images or the results folder."""
    images = [path.absolute() for one in waiting for path in one.images]
    for worker, unseen in client.run(unseen_from_here, task.out_folder, task.token, images).items():
        if unseen is not None:
            raise DistillSegError(
                f"The worker '{worker}' does not see '{unseen}'; put images and results on a disk "
                "that all workers have under the same path."
            )
