"""`distillseg train`: a recipe and data in, trained networks out. Needs the extra `[train]`."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from DistillSegLib.commands import add_command, needs_training
from DistillSegLib.errors import DatasetError
from DistillSegLib.places import recipes

if TYPE_CHECKING:
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.training.stages import Event

EXAMPLES = """
distillseg train distil --data Task03_Liver --out run
distillseg train distil --data Task03_Liver --out run --resume
distillseg train distil --data Dataset003_Liver --out run --set seed=7 stages.student.epochs=50
distillseg train ct-mr --data ct=Dataset007_CT mr=Dataset008_MR --out run
distillseg train my.toml --data data/dataset_fold.json --out run --set "plan.window=[64, 96, 96]"
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    bundled = recipes()
    parser = add_command(
        commands,
        "train",
        help="train networks after a recipe",
        description="Teachers and students, stage by stage. What is planned from the data is "
        "printed with its reasons. Bundled recipes: "
        f"{', '.join(bundled)}. Every key of a recipe is explained in {bundled['distil']}",
        examples=EXAMPLES,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="the name of a recipe, or a .toml file")
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        required=True,
        metavar="[DOMAIN=]DIR_OR_JSON",
        help="data set in Decathlon or nnU-Net v2 layout, or the cache of another run",
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting of the recipe; keys are dotted, stages are named",
    )
    parser.add_argument("--resume", action="store_true", help="go on where a run was stopped")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train every stage of the recipe."""
    from DistillSegLib.commands.console import Terminal

    data = read_domains(options.data)
    with needs_training():
        from DistillSegLib.training.recipe import load_recipe
        from DistillSegLib.training.stages import run as run_stages
    recipe = load_recipe(options.recipe, options.set)
    terminal = Terminal(options.json)
    with Watch(terminal) as watch:
        networks = run_stages(
            recipe,
            data,
            Path(options.out),
            resume=options.resume,
            on_event=watch,
            command=shlex.join(["distillseg", *map(without_folders, options.words)]),
        )
    if networks:  # of several processes, one speaks
        rows = [[role, path] for role, path in networks.items()]
        terminal.table(["stage/role", "network"], rows)
        terminal.write_json(networks)


class Watch:
    """Shows a training: a bar per stage on a terminal, and a line every twentieth of a stage."""

    def __init__(self, terminal: Terminal):
        self._terminal = terminal
        self._bars = ExitStack()
        self._name, self._show = "", None
        self._begun, self._epochs = 0.0, 0  # of the stage, in this process
        self._waited: list[float] = []  # share of each of its epochs

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *problem: object) -> None:
        self._bars.__exit__(*problem)

    def __call__(self, event: Event) -> None:
        if event.kind in ("checking", "measuring", "preparing"):
            self._bar(f"{event.kind.capitalize()} the cases", event.share)
        elif event.kind == "epoch":
            self._bar(f"Stage '{event.stage}'", event.share)
            self._epochs += 1
            self._waited.append(event.epoch.waiting)
            step = max(1, event.epoch.of // 20)
            if event.epoch.number % step == 0 or event.epoch.number == event.epoch.of:
                self._terminal.print(_epoch_line(event, self._lasted() / self._epochs))
        else:
            self._close()
            self._terminal.print(self._words(event))
        if event.kind == "rehearsal":
            self._begun, self._epochs, self._waited = time.monotonic(), 0, []
            self._bar(f"Stage '{event.stage}'", 0.0)

    def _words(self, event: Event) -> str:
        if event.kind == "trained":
            waited = sum(self._waited) / max(len(self._waited), 1)
            return (
                f"Stage '{event.stage}': trained in {duration(self._lasted())}; {waited:.1%} of "
                "the steps' time went by waiting for data."
            )
        if event.kind == "skipped":
            return f"Stage '{event.stage}': trained before."
        return event.text

    def _lasted(self) -> float:
        return time.monotonic() - self._begun

    def _bar(self, name: str, share: float) -> None:
        if name != self._name:
            self._close()
            bar = self._terminal.progress(name, announce=not name.startswith("Stage"))
            self._name, self._show = name, self._bars.enter_context(bar)
        self._show(share)

    def _close(self) -> None:
        self._bars.close()
        self._name = ""


def _epoch_line(event: Event, seconds: float) -> str:
    """What an epoch brought, and how long the rest takes at so many seconds each."""
    epoch = event.epoch
    losses = ", ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
    parts = [f"{event.stage} epoch {epoch.number}/{epoch.of}: loss {losses}"]
    parts += [
        f"held-out Dice {role} " + ", ".join(f"{name} {dice:.4f}" for name, dice in scores.items())
        for role, scores in epoch.scores.items()
    ]
    if epoch.number < epoch.of:
        parts.append(f"{duration(seconds * (epoch.of - epoch.number))} left")
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def without_folders(word: str) -> str:
    """A word of the command with paths reduced to names: it is published with the model.

        --out=/home/jane/run -> --out=run

    Folders tell about a user's machine, sometimes about a patient, and nothing about the training.
    """
    key, equals, value = word.rpartition("=")
    if key.startswith("stages.") and not value.endswith(".pt"):
        # a setting, such as stages.student.frozen.teacher=teacher/teacher
        return re.sub(r"""((?:nnunet|bundle|stored|weights) *= *["']?)[^"',}]*/""", r"\1", word)
    return f"{key}{equals}{Path(value).name or value}"


def read_domains(words: list[str]) -> dict[str, Path]:
    """`DOMAIN=PATH` or `PATH` -> path by domain; one data set alone needs no domain ("")."""
    data: dict[str, Path] = {}
    for word in words:
        named = re.fullmatch(r"([A-Za-z]\w*)=(.+)", word)
        domain, path = (named[1], named[2]) if named and not Path(word).exists() else ("", word)
        if domain in data or (data and not (domain and all(data))):
            raise DatasetError(
                f"--data {' '.join(words)}: several data sets need a domain each, and only one per "
                "domain; write for example --data ct=DIR mr=DIR."
            )
        data[domain] = Path(path)
    return data
