"""`distillseg packages`: the models that are there; add one, remove one."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from DistillSegLib.commands import add_command
from DistillSegLib.errors import PackageError

if TYPE_CHECKING:
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.package import ModelPackage

EXAMPLES = """
distillseg packages
distillseg packages show hippocampus-fast
distillseg packages install liver-fast-1.0.0.distillseg
distillseg packages remove liver-fast
"""
ACTIONS = ("list", "show", "install", "remove")


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "packages",
        help="list, show, install or remove models",
        description="Installing checks every digest and that the model gives the right numbers "
        "on this computer.",
        examples=EXAMPLES,
    )
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="default: list")
    parser.add_argument("package", nargs="?", metavar="ID_OR_FILE")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do what `action` says."""
    from DistillSegLib.commands.console import Terminal

    if options.action != "list" and not options.package:
        raise PackageError(
            f"'packages {options.action}' needs a package: an id of `distillseg packages list`, or "
            "a .distillseg file."
        )
    action = {"list": _list, "show": _show, "install": _install, "remove": _remove}
    action[options.action](options.package, Terminal(options.json))


def _list(_: str | None, terminal: Terminal) -> None:
    from DistillSegLib.catalogue import list_packages

    packages = list_packages()
    rows = [
        [
            package.id,
            package.version,
            "bundled" if package.bundled else "installed",
            package.problem or package.title,
        ]
        for package in packages
    ]
    if rows:
        terminal.table(["id", "version", "source", "title"], rows)
    else:
        terminal.print("There is no package yet; add one: distillseg packages install FILE")
    terminal.write_json([asdict(package) for package in packages])


def _show(name: str, terminal: Terminal) -> None:
    from DistillSegLib.package import load_package

    package = load_package(name)
    terminal.print(package.card.rstrip())
    terminal.print()
    terminal.print(f"File: {package.path}")
    terminal.write_json(_facts(package) | {"card": package.card})


def _install(name: str, terminal: Terminal) -> None:
    from DistillSegLib.catalogue import install_package, published_packages
    from DistillSegLib.commands.console import interruptible

    published = {each.id: each for each in published_packages()}
    source = published.get(name, name)
    with terminal.progress(f"Installing {name}") as on_progress:
        package = interruptible(
            lambda cancelled: install_package(source, on_progress=on_progress, cancelled=cancelled)
        )
    terminal.print(f"Installed {package.manifest.id} {package.manifest.version}: {package.path}")
    terminal.write_json(_facts(package))


def _remove(name: str, terminal: Terminal) -> None:
    from DistillSegLib.catalogue import remove_package

    removed = remove_package(name)
    for path in removed:
        terminal.print(f"Removed {path}")
    terminal.write_json({"removed": removed})


def _facts(package: ModelPackage) -> dict[str, Any]:
    manifest = package.manifest
    return {
        "id": manifest.id,
        "version": manifest.version,
        "title": manifest.title,
        "modality": manifest.modality,
        "structures": [label.name for label in manifest.labels],
        "variants": [variant.name for variant in manifest.variants],
        "parameters": package.variant().parameters,
        "mb": round(package.path.stat().st_size / 1e6, 2),
        "licence": manifest.licence,
        "attribution": manifest.attribution,
        "file": package.path,
    }
