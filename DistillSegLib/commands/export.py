"""`distillseg export`: from a training run to a model package. Needs the extra `[train]`."""

from __future__ import annotations

import argparse

from DistillSegLib.commands import add_command, needs_training

EXAMPLES = """
distillseg export run --stage student --card card.toml --out liver-fast-1.0.0.distillseg
distillseg export run --stage teacher --card teacher.toml --out liver-reference-1.0.0.distillseg
distillseg export run --stage student --card card.toml --int8 --out liver-fast-1.0.0.distillseg
distillseg export run --stage both --domain ct --card ct.toml --out liver-ct-1.0.0.distillseg
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "export",
        help="make a model package of a training run",
        description="The package is checked as the program that uses it will check it. The card "
        "is TOML with the keys id, version, title, description, intended_use, licence and "
        "attribution, and, if you like, not_for, known_failures, citation, modality, overlap, "
        "postprocessing, analysis: a Markdown file for the model card, and scores: a file of "
        "`distillseg evaluate --json`, for its table.",
        examples=EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", help="the folder that `distillseg train` wrote")
    parser.add_argument("--stage", required=True, metavar="NAME", help="whose network to export")
    parser.add_argument("--role", metavar="NAME", help="which, if the stage trained several")
    parser.add_argument(
        "--domain", default="", metavar="NAME", help="which, of a network for several modalities"
    )
    parser.add_argument(
        "--card", required=True, metavar="FILE", help="what the model is for (TOML)"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="add a variant in 8 bits for OpenVINO, if it keeps the labels of the held-out cases",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="data set or cache that the network was trained on, if the run has no cache of its "
        "own: how sure the model says it is, is fitted to its training cases",
    )
    parser.add_argument(
        "--no-calibration",
        action="store_true",
        help="leave probabilities as the network gives them",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the .distillseg to write")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Build the package and say what is in it."""
    from DistillSegLib.commands.console import Terminal

    with needs_training():
        from DistillSegLib.export.packaging import build_package
    terminal, remarks = Terminal(options.json), []
    with terminal.progress(f"Exporting stage '{options.stage}'"):
        path = build_package(
            options.folder,
            stage=options.stage,
            role=options.role,
            domain=options.domain,
            card=options.card,
            out=options.out,
            int8=options.int8,
            data=options.data,
            calibration=not options.no_calibration,
            on_remark=remarks.append,
        )
    size_mb = round(path.stat().st_size / 1e6, 2)
    terminal.print(f"{path}  ({size_mb} MB)")
    for remark in remarks:
        terminal.print(remark)
    terminal.write_json({"file": path, "mb": size_mb, "remarks": remarks})
