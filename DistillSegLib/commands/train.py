"""`distillseg train`: a recipe and data in, trained networks out. Needs the extra `[train]`."""

from __future__ import annotations

import argparse
import re
import shlex
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
    rows = [[role, path] for role, path in networks.items()]
    terminal.table(["stage/role", "network"], rows)
    terminal.write_json(networks)


class Watch:
    """Shows a training: a bar per stage on a terminal, else a line every twentieth of a stage."""

    def __init__(self, terminal: Terminal):
        self._terminal = terminal
        self._bars = ExitStack()
        self._name, self._show = "", None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *problem: object) -> None:
        self._bars.__exit__(*problem)

    def __call__(self, event: Event) -> None:
        if event.kind == "epoch":
            self._bar(f"Stage '{event.stage}'", event.share)
            step = max(1, event.epoch.of // 20)
            if event.epoch.number % step == 0 or event.epoch.number == event.epoch.of:
                self._terminal.print(_epoch_line(event))
        elif event.kind in ("checking", "measuring", "preparing"):
            self._bar(f"{event.kind.capitalize()} the cases", event.share)
        else:
            self._bars.close()
            self._name = ""
            self._terminal.print(event.text or f"Stage '{event.stage}': {event.kind}.")

    def _bar(self, name: str, share: float) -> None:
        if name != self._name:
            self._bars.close()
            self._name, self._show = name, self._bars.enter_context(self._terminal.progress(name))
        self._show(share)


def _epoch_line(event: Event) -> str:
    epoch = event.epoch
    losses = ", ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
    dice = "; ".join(
        f"{role} " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        for role, scores in epoch.scores.items()
    )
    line = f"{event.stage} epoch {epoch.number}/{epoch.of}: loss {losses} ({epoch.seconds:.1f} s)"
    return f"{line}; held-out Dice {dice}" if dice else line


def without_folders(word: str) -> str:
    """A word of the command with paths reduced to names: it is published with the model.

        --out=/home/jane/run -> --out=run

    Folders tell about a user's machine, sometimes about a patient, and nothing about the training.
    """
    key, equals, value = word.rpartition("=")
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
