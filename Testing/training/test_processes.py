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
from Testing.training.two_processes import build, gradients_in_one_process, methods

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
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


def in_two_processes(*words: object) -> tuple[str, int]:
    """What a program says under `torchrun`, and how it ended."""
    done = subprocess.run(
        [*TORCHRUN, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=300,
    )
    return done.stdout, done.returncode


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "gradients.pt"
    said, code = in_two_processes(ROOT / "Testing/training/two_processes.py", out)
    assert code == 0, said[-3000:]
    return torch.load(out, weights_only=True)


def test_torchrun_started_two_processes(two):
    assert two["processes"] == 2


@pytest.mark.parametrize("name", [name for name, _, _ in methods()])
def test_two_processes_give_the_mean_gradient_of_their_halves(two, name):
    recipe, stage = next((recipe, stage) for found, recipe, stage in methods() if found == name)
    expected = gradients_in_one_process(build(recipe, stage), stage)
    measured = two["gradients"][name]
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
    said, code = in_two_processes(program, data, out, *SET)
    assert code != 0, said
    assert len(load(out / "student" / "state.pt")["epochs"]) == 2, said[-3000:]

    before = load_network(out / "teacher" / "teacher.pt")[0].state_dict()
    run(load_recipe("distil", SET), {"": data}, out, resume=True)
    after = load_network(out / "teacher" / "teacher.pt")[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stages"]["student"]["epochs"] == 3
