"""`distillseg segment`: images in, segmentations out."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DistillSegLib.commands import add_command, add_engine
from DistillSegLib.errors import DistillSegError, GeometryError, ImageError
from DistillSegLib.files import identity

if TYPE_CHECKING:
    import SimpleITK as sitk

    from DistillSegLib.batch import BatchResult, Row
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.inference import Segmenter
    from DistillSegLib.inputs import Input, Skipped
    from DistillSegLib.regions import Region

EXAMPLES = """
distillseg segment scan.nii.gz --package hippocampus-fast --out scan.seg.nrrd
distillseg segment DICOM/ --package hippocampus-fast --out a.seg.nrrd --roi 25 -12.5 -20 40 55 40
distillseg segment head.nrrd --package hippocampus-fast --out labels.nii.gz --roi Left.mrk.json
distillseg segment cases/ --package model.distillseg --out results/
distillseg segment cases/ --package a.distillseg --out results/ --scheduler tcp://node0:8786
"""
SHOWN = 40  # rows of a batch; the table on disk has them all
ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "segment",
        help="segment a file, a DICOM folder or a folder of cases",
        description="The result lies on the exact grid of the input. A folder is a batch with a "
        "table, results.csv; repeated, it goes on where it was.",
        examples=EXAMPLES,
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="file, DICOM folder, or folder")
    parser.add_argument("--package", required=True, metavar="ID_OR_FILE", help="the model to use")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE_OR_DIR",
        help="a file (.seg.nrrd with names and colours, or a label map .nii.gz, .nrrd, .mha), or a "
        "folder",
    )
    parser.add_argument(
        "--roi",
        nargs="+",
        default=[],
        metavar=("X Y Z SX SY SZ | FILE", "INPUT"),
        help="only this box: centre and size in mm (RAS, as in Slicer), or a Slicer ROI .mrk.json",
    )
    parser.add_argument("--series", metavar="UID", help="which series of a DICOM folder")
    parser.add_argument("--variant", default="auto", help="which form of the model (default: auto)")
    parser.add_argument(
        "--format",
        choices=[ending[1:] for ending in ENDINGS],
        default="seg.nrrd",
        help="of results in a folder (default: seg.nrrd)",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="in a batch, skip cases that are finished (default: yes)",
    )
    parser.add_argument(
        "--force-scope",
        action="store_true",
        help="also segment an image unlike those that the model was trained on",
    )
    parser.add_argument(
        "--memory",
        type=_gigabytes,
        metavar="GB",
        help="what the network may take; larger volumes pass in parts (default: half of what is "
        "free)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="do a batch on the workers of this Dask scheduler, such as tcp://node0:8786",
    )
    add_engine(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Segment one examination, or many."""
    from DistillSegLib.batch import read_input
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.inference import Segmenter
    from DistillSegLib.inputs import find_inputs
    from DistillSegLib.package import load_package

    region, surplus = read_roi(options.roi)
    paths = [Path(path) for path in [*surplus, *options.inputs]]
    if not paths:
        raise ImageError("There is no INPUT; give an image file, a DICOM folder or a folder.")
    for path in paths:
        if not path.exists():
            raise ImageError(f"There is no file or folder '{path}'; check the path.")
    terminal = Terminal(options.json)
    package, out = load_package(options.package), Path(options.out)
    channels = len(package.manifest.channels)
    settings = {name: getattr(options, name) for name in ("variant", "threads", "engine")}
    settings["memory_bytes"] = options.memory and int(options.memory * 1e9)
    one = _single(paths, channels, options.series, out)
    if one is not None:
        if options.scheduler:
            raise ImageError("--scheduler is for a folder of cases; leave it out for one image.")
        file = _result_file(out, one, options)
        with ThreadPoolExecutor(1) as pool:  # the engine is loaded while the image is read
            making = pool.submit(Segmenter, package, **settings)
            images = read_input(one)
        _segment_one(making.result(), one, images, file, region, options, terminal)
        return
    segmenter = Segmenter(package, **settings)
    if not _is_folder(out):
        raise ImageError(f"'{out}' is one file, but several inputs were given; give a folder.")
    if identity(out) in [identity(path) for path in paths if path.is_dir()]:
        raise ImageError(f"'{out}' holds the inputs; choose another folder for the results.")
    inputs, skipped = find_inputs(paths, channels=channels, series=options.series, ignored=out)
    if not inputs:
        reasons = "".join(f" '{each.id}': {each.reason}" for each in skipped[:1])
        raise ImageError(
            f"There is no image to segment in '{paths[0]}' ({len(skipped)} other files).{reasons}"
        )
    _segment_many(segmenter, inputs, skipped, out, region, options, terminal)


def _gigabytes(word: str) -> float:
    try:
        amount = float(word)
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount > 0):
        raise argparse.ArgumentTypeError(f"'{word}' is not a number of gigabytes above 0")
    return amount


def read_roi(words: list[str]) -> tuple[Region | None, list[str]]:
    """The region that `--roi` names, and what followed it: argparse cannot see where it ends."""
    from DistillSegLib.regions import Region, read_region

    if not words:
        return None, []
    if words[0].lower().endswith(".json"):
        return read_region(words[0]), words[1:]
    try:
        numbers = [float(word) for word in words[:6]]
    except ValueError:
        numbers = []
    if len(numbers) < 6:
        raise GeometryError(
            f"--roi takes six numbers (centre X Y Z and size SX SY SZ in mm, RAS) or a Slicer ROI "
            f"file (.mrk.json), found '{' '.join(words)}'."
        )
    return Region.from_numbers(*numbers), words[6:]


def _single(paths: list[Path], channels: int, series: str | None, out: Path) -> Input | None:
    """The one examination that the paths are, or None if they are a batch."""
    from DistillSegLib.datasets import stem
    from DistillSegLib.inputs import Input, is_series_folder

    first = paths[0]
    if first.is_dir() and len(paths) == 1:
        if is_series_folder(first) or not _is_folder(out):
            return Input(first.resolve().name, (first,), series)
        return None
    if len(paths) == channels and not any(path.is_dir() for path in paths):
        return Input(stem(first), tuple(paths), series)
    return None


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.name.lower().endswith(ENDINGS)


def _result_file(out: Path, one: Input, options: argparse.Namespace) -> Path:
    file = out / f"{one.id}.{options.format}" if _is_folder(out) else out
    if (present := identity(file)) and present in [identity(path) for path in one.images]:
        raise ImageError(f"The result '{file}' would overwrite the input; choose another name.")
    return file


def _segment_one(
    segmenter: Segmenter,
    one: Input,
    images: list[sitk.Image],
    file: Path,
    region: Region | None,
    options: argparse.Namespace,
    terminal: Terminal,
) -> None:
    from DistillSegLib.batch import segment_input
    from DistillSegLib.commands.console import interruptible

    manifest = segmenter.package.manifest
    with terminal.progress(f"{one.images[0].name} with {manifest.id}") as on_progress:
        row = interruptible(
            lambda cancelled: segment_input(
                segmenter,
                one,
                file,
                images=images,
                region=region,
                force_scope=options.force_scope,
                on_progress=on_progress,
                cancelled=cancelled,
            )
        )
    for warning in row.warnings:
        terminal.remark(f"Warning: {warning}")
    terminal.table(["structure", "volume (ml)"], list(row.volumes_ml.items()))
    terminal.print(f"{row.output}  ({row.seconds:.2f} s, {manifest.id} {manifest.version})")
    terminal.write_json(_report(segmenter, [row]))


def _segment_many(
    segmenter: Segmenter,
    inputs: list[Input],
    skipped: list[Skipped],
    out: Path,
    region: Region | None,
    options: argparse.Namespace,
    terminal: Terminal,
) -> None:
    from DistillSegLib.batch import run_batch
    from DistillSegLib.cluster import Cluster
    from DistillSegLib.commands.console import interruptible

    cluster = options.scheduler and Cluster(options.scheduler, options.threads, options.engine)

    title = f"{len(inputs)} cases with {segmenter.package.manifest.id}"
    with terminal.progress(title, announce=False) as on_progress:
        result = interruptible(
            lambda cancelled: run_batch(
                segmenter,
                inputs,
                out,
                ending=f".{options.format}",
                region=region,
                force_scope=options.force_scope,
                skipped=skipped,
                resume=options.resume,
                cluster=cluster or None,
                on_progress=on_progress,
                cancelled=cancelled,
            )
        )
    _show_batch(result, terminal)
    terminal.write_json(_report(segmenter, result.rows) | _throughput(result))
    if failed := result.with_status("failed"):
        raise DistillSegError(
            f"{len(failed)} of {len(inputs)} cases failed, the first is '{failed[0].case}' "
            f"({failed[0].reason.rstrip('.')}); '{result.table}' lists all."
        )


def _show_batch(result: BatchResult, terminal: Terminal) -> None:
    done = result.with_status("done")
    structures = list(dict.fromkeys(name for row in done for name in row.volumes_ml))
    rows = [
        [
            row.case,
            "done before" if row.case in result.resumed else row.status,
            row.seconds if row.status == "done" else None,
            *(row.volumes_ml.get(name) for name in structures),
        ]
        for row in result.rows
    ]
    terminal.table(
        ["case", "status", "seconds", *(f"{name} (ml)" for name in structures)], rows[:SHOWN]
    )
    for row in result.rows[:SHOWN]:
        if remark := " ".join((*row.warnings, row.reason)).strip():
            terminal.print(f"{row.case}: {remark}")
    if len(rows) > SHOWN:
        terminal.print(f"and {len(rows) - SHOWN} more")
    counts = {
        "done": len(done) - len(result.resumed),
        "done before": len(result.resumed),
        "failed": len(result.with_status("failed")),
        "skipped": len(result.with_status("skipped")),
    }
    terminal.print(", ".join(f"{count} {what}" for what, count in counts.items() if count))
    terminal.print(
        f"{result.seconds:.1f} s, {result.cpu_seconds:.1f} CPU seconds: {result.busy:.0%} of "
        f"{result.cores} {'core' if result.cores == 1 else 'cores'} busy"
    )
    terminal.print(f"{result.table}")


def _throughput(result: BatchResult) -> dict[str, float]:
    return {
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "cores": result.cores,
        "busy": round(result.busy, 4),
    }


def _report(segmenter: Segmenter, rows: Sequence[Row]) -> dict[str, Any]:
    from dataclasses import asdict

    from DistillSegLib.machine import peak_memory_bytes

    manifest = segmenter.package.manifest
    return {
        "package": manifest.id,
        "version": manifest.version,
        "variant": segmenter.variant.name,
        "engine": segmenter.engine,
        "peak_memory_mb": round(peak_memory_bytes() / 1e6, 1),
        "cases": [asdict(row) for row in rows],
    }
