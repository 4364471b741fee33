"""What distillation adds to a training step: each recipe's student with and without its guides.

    python Testing/studies/training_overhead.py --repeats 9

writes Resources/Studies/training-overhead.json and prints the table of README.md. The networks are
the recipes' own, untrained, since a step takes as long before as after; the batch is random, so no
data set is needed. Steps with and without take turns in one process on as many threads, and
processor seconds are compared, which suffer least from other work on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from DistillSegLib.benchmark.hardware import hardware
from DistillSegLib.distill.distillation import TOTAL, Distillation
from DistillSegLib.distill.views import Batch
from DistillSegLib.networks import build_network, count_parameters
from DistillSegLib.training.assembly import assemble
from DistillSegLib.training.fit import make_optimizer, use_channels_last
from DistillSegLib.training.recipe import Recipe, Stage, load_recipe

OUT = Path(__file__).resolve().parents[2] / "Resources" / "Studies" / "training-overhead.json"
CHANNELS, CLASSES = 1, 3


@dataclass(frozen=True)
class Method:
    """A stage, and what it is held against: the same student with some links and roles only.

    Attributes:
        links: of the plain stage.
        plain: overrides of the recipe for the plain stage, where it has another network.
        adds: what distillation adds, for the table.
    """

    recipe: str
    stage: str
    adds: str
    links: tuple[str, ...] = ("label",)
    plain: tuple[str, ...] = ()


METHODS = (
    Method("distil", "student", "U-Net as teacher, prediction maps"),
    Method(
        "distill-dsm",
        "student",
        "learnable depth shift; no teacher",
        links=("regions",),
        plain=("stages.student.trained.student.settings.shift=none",),
    ),
    Method("emkd", "student", "RA-UNet as teacher, prediction and importance maps, affinity"),
    Method("gtan", "assistant-4", "U-Net as teacher, an assistant that is trained besides"),
    Method("lcov-net", "student", "dense LCOV-Net as teacher, four scales, class affinity"),
    Method("ct-mr", "student", "agreement between the domains; no teacher"),
)


def measure(method: Method, window: Sequence[int], batch: int, repeats: int) -> dict:
    """The medians of `repeats` steps of each kind, after one that is not counted."""
    whole = load_recipe(method.recipe)
    stage = _stage(whole, method.stage)
    plain = _stage(load_recipe(method.recipe, method.plain), method.stage)
    plain = replace(
        plain,
        trained={"student": plain.trained["student"]},
        frozen={},
        links={name: plain.links[name] for name in method.links},
    )
    steps = {
        "plain": _step(whole, plain, window, batch),
        "method": _step(whole, stage, window, batch),
    }
    steps["guides"] = _guides(whole, stage, window, batch)
    cpu: dict[str, list[float]] = {kind: [] for kind in steps}
    for turn in range(repeats + 1):
        for kind, step in steps.items():
            begun = time.process_time()
            step()
            if turn:
                cpu[kind].append(time.process_time() - begun)
    ratios = [b / a for a, b in zip(cpu["plain"], cpu["method"])]
    student = build_network(stage.trained["student"], CHANNELS, CLASSES)
    return {
        "recipe": method.recipe,
        "stage": method.stage,
        "adds": method.adds,
        "parameters": count_parameters(student),
        "plain_cpu_seconds": round(statistics.median(cpu["plain"]), 4),
        "cpu_seconds": round(statistics.median(cpu["method"]), 4),
        "guides_cpu_seconds": round(statistics.median(cpu["guides"]), 4),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def _stage(recipe: Recipe, name: str) -> Stage:
    return next(stage for stage in recipe.stages if stage.name == name)


def _step(recipe: Recipe, stage: Stage, window: Sequence[int], size: int) -> Callable[[], None]:
    """One optimiser step of a stage, as the training loop makes it, on a batch of its own."""
    distillation = _distillation(recipe, stage)
    optim = stage.optim or recipe.optim
    optimizer = make_optimizer(distillation, optim)
    domains = len(stage.trained["student"].domains)
    batch = _batch(window, size, domains)

    def step() -> None:
        losses = distillation(batch)
        optimizer.zero_grad(set_to_none=True)
        losses[TOTAL].backward()
        nn.utils.clip_grad_norm_(distillation.trained.parameters(), optim.max_norm)
        optimizer.step()

    return step


def _guides(recipe: Recipe, stage: Stage, window: Sequence[int], size: int) -> Callable[[], None]:
    """The forward pass of the frozen roles alone."""
    guides = _distillation(recipe, stage).frozen.values()
    batch = _batch(window, size, 0)

    def step() -> None:
        with torch.no_grad():
            for guide in guides:
                guide(batch)

    return step


def _distillation(recipe: Recipe, stage: Stage) -> Distillation:
    torch.manual_seed(0)

    def source(name: str) -> nn.Module:
        of, role = name.split("/")
        return build_network(_stage(recipe, of).trained[role], CHANNELS, CLASSES)

    distillation = assemble(stage, CHANNELS, CLASSES, source).train()
    for net in (*distillation.trained.values(), *distillation.frozen.values()):
        use_channels_last(net)
    return distillation


def _batch(window: Sequence[int], size: int, domains: int) -> Batch:
    return Batch(
        torch.randn(size, CHANNELS, *window),
        torch.randint(CLASSES, (size, *window)),
        domain=torch.arange(size) * domains // size if domains else None,
    )


def table(result: dict) -> str:
    """The rows as Markdown."""
    lines = [
        "| recipe | adds | plain, CPU s | with it, CPU s | of it guides | ratio (range) |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        low, high = row["ratio_range"]
        plain, whole = row["plain_cpu_seconds"], row["cpu_seconds"]
        lines.append(
            f"| `{row['recipe']}`, {row['stage']} | {row['adds']} | {plain:.2f} | {whole:.2f} | "
            f"{row['guides_cpu_seconds']:.2f} | "
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all methods and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9, help="steps of each kind (default: 9)")
    parser.add_argument(
        "--window", type=int, nargs=3, default=(32, 64, 32), metavar=("D", "H", "W")
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for method in METHODS:
        rows.append(measure(method, options.window, options.batch, options.repeats))
        print(rows[-1], flush=True)
    settings = {name: getattr(options, name) for name in ("window", "batch", "threads", "repeats")}
    result = {"hardware": hardware(), "torch": torch.__version__, "load": os.getloadavg()[0]}
    result |= settings | {"rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
