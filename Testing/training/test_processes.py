"""Several processes: `torchrun` gives the gradients of one process, and their runs interchange."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from DistillSegLib.training.checkpoints import load, load_network
from DistillSegLib.training.recipe import load_recipe
from DistillSegLib.training.stages import run
from Testing.datasets import write_decathlon
from Testing.training.small_recipes import EVERYWHERE, SMALL
from Testing.training.two_processes import methods

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "Testing/training/two_processes.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SET = [*EVERYWHERE, *SMALL["distil"].overrides, "stages.student.epochs=3"]
KILLED = """
import os, signal, sys
from DistillSegLib.training.recipe import load_recipe
from DistillSegLib.training.stages import run

def stop(event):
    if event.stage == "student" and event.epoch and event.epoch.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)

data, out, *settings = sys.argv[1:]
run(load_recipe("distil", settings), {"": data}, out, on_event=stop)
"""


def started(*words: object) -> tuple[str, int]:
    """What a program says, and how it ended."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=300,
    )
    return done.stdout, done.returncode


def gradients(out: Path, *launcher: str) -> dict:
    """What `two_processes.py` writes."""
    said, code = started(*launcher, PROGRAM, out)
    assert code == 0, said[-3000:]
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return gradients(tmp_path_factory.mktemp("two") / "gradients.pt", *TORCHRUN)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return gradients(tmp_path_factory.mktemp("one") / "gradients.pt")


def test_torchrun_started_two_processes(two, one):
    assert (two["processes"], one["processes"]) == (2, 1)


@pytest.mark.parametrize("name", [name for name, _, _ in methods()])
def test_two_processes_give_the_mean_gradient_of_their_halves(two, one, name):
    expected, measured = one["gradients"][name], two["gradients"][name]
    assert measured.keys() == expected.keys()
    size = max(float(gradient.abs().max()) for gradient in expected.values())
    assert size > 0
    for weight, gradient in expected.items():
        torch.testing.assert_close(measured[weight], gradient, atol=1e-5 * max(size, 1), rtol=1e-5)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of Unix")
def test_a_run_killed_in_two_processes_goes_on_in_one(tmp_path):
    data, out = write_decathlon(tmp_path / "data", cases=12), tmp_path / "run"
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    said, code = started(*TORCHRUN, program, data, out, *SET)
    assert code != 0, said
    assert len(load(out / "student" / "state.pt")["epochs"]) == 2, said[-3000:]

    before = load_network(out / "teacher" / "teacher.pt")[0].state_dict()
    run(load_recipe("distil", SET), {"": data}, out, resume=True)
    after = load_network(out / "teacher" / "teacher.pt")[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stages"]["student"]["epochs"] == 3
