"""Several processes: `torchrun` gives the gradients of one process, and their runs interchange."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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
SET = [*EVERYWHERE, *SMALL["distil"].overrides, "stages.student.epochs=40"]


def in_two_processes(*words: object) -> subprocess.Popen:
    """`torchrun` in a session of its own, so that all of it can be killed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*TORCHRUN, *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "gradients.pt"
    process = in_two_processes(ROOT / "Testing/training/two_processes.py", out)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
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


@pytest.mark.skipif(os.name != "posix", reason="sessions and SIGKILL are of Unix")
def test_a_run_in_two_processes_is_gone_on_with_in_one(tmp_path):
    data, out = write_decathlon(tmp_path / "data", cases=12), tmp_path / "run"
    words = ["train", "distil", "--data", data, "--out", out, "--set", *SET]
    process = in_two_processes("-m", "DistillSegLib.cli", *words)
    state = out / "student" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    said, _ = process.communicate()
    assert state.is_file(), said[-3000:]
    begun = len(load(state)["epochs"])
    assert begun < 40, "killed too late to have anything left to do"

    before = load_network(out / "teacher" / "teacher.pt")[0].state_dict()
    run(load_recipe("distil", SET), {"": data}, out, resume=True)
    after = load_network(out / "teacher" / "teacher.pt")[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stages"]["student"]["epochs"] == 40
