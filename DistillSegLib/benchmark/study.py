"""A benchmark from end to end: which pipelines, on what, in which order; the result as plain data.

Pipelines take turns within every repeat, so that a machine whose speed drifts treats all alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from DistillSegLib import __version__
from DistillSegLib.benchmark import peers
from DistillSegLib.benchmark.hardware import hardware
from DistillSegLib.benchmark.measure import JobFailed, run_job
from DistillSegLib.benchmark.scaling import measure_scale
from DistillSegLib.benchmark.students import STUDENTS, TITLES
from DistillSegLib.benchmark.subject import FULL, QUICK, Setup
from DistillSegLib.benchmark.summary import in_memory_medians, medians
from DistillSegLib.catalogue import sample_of
from DistillSegLib.errors import DistillSegError, PackageError
from DistillSegLib.package import load_package
from DistillSegLib.places import resources

PEERS = tuple(peers.NEEDS)
WARM_RUNS = 3  # in memory, in each repeat
TO_MAKE = ("torch", "onnx", "onnxscript")  # what makes the untrained networks


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        images: files; packages: ids or files that are run on each of them. Without both, the
            bundled packages are run each on the sample of its organ, the untrained networks on the
            phantom.
        engines: of our pipeline.
        against: some of `PEERS`, run on the phantom.
        threads: for every pipeline.
        repeats: of each measurement; medians are told.
        quick: a small phantom, for tests.
        scale: also measure how time and memory grow.
    """

    images: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    engines: tuple[str, ...] = ("onnxruntime",)
    against: tuple[str, ...] = ()
    threads: int = 1
    repeats: int = 5
    quick: bool = False
    scale: bool = False


@dataclass
class Row:
    """One pipeline with one network: what it is, its job, and what was measured."""

    title: str
    model: str
    work: str
    settings: Mapping[str, Any]
    engine: str = ""
    untrained: bool = False
    runs: list[dict[str, Any]] = field(default_factory=list)
    in_memory: list[dict[str, Any]] = field(default_factory=list)
    agreement: float | None = None
    failed: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: with medians, without the job's temporary files."""
        plain = {
            "pipeline": self.title,
            "work": self.work,
            "model": self.model,
            "engine": self.engine,
            "untrained": self.untrained,
            "teacher": self.model == TITLES["nnunet-default"],
            "failed": self.failed,
            "agreement": self.agreement,
            "runs": self.runs,
            "median": medians(self.runs),
        }
        if self.in_memory:
            plain |= {
                "in_memory_runs": self.in_memory,
                "in_memory_median": in_memory_medians(self.in_memory),
            }
        return plain


Listener = Callable[[str], None]


def run_study(
    request: Request, *, on_progress: Callable[[float], None], remark: Listener
) -> dict[str, Any]:
    """Measure all that was asked for.

    Args:
        on_progress: told the share done, 0 to 1.
        remark: told, in a sentence, what is left out and why.

    Raises:
        DistillSegError: nothing could be measured.
    """
    result = {
        "format": 1,
        "distillseg": __version__,
        "hardware": hardware(),
        "threads": request.threads,
        "repeats": request.repeats,
        "quick": request.quick,
        "subjects": [],
        "scale": [],
    }
    setup = QUICK if request.quick else FULL
    given = bool(request.images or request.packages)
    with tempfile.TemporaryDirectory(prefix="distillseg-benchmark-") as name:
        folder = Path(name)
        made = {}
        if not given or request.against or (request.scale and not request.packages):
            made = _networks(request, setup, folder, remark)
        subjects = _files(request, folder)
        if made and (not given or request.against):
            subjects.append(_phantom(request, setup, made, folder, remark))
        turns = sum(_turns(rows) for _, rows in subjects) * request.repeats
        share = _Counter(turns, on_progress)
        for subject, rows in subjects:
            _take_turns(rows, request, share, folder)
            for row in rows:
                if row.failed:
                    remark(f"{row.title}, {row.model}: {row.failed}")
            result["subjects"].append(subject | {"rows": [row.as_dict() for row in rows]})
        if request.scale:
            package = request.packages[0] if request.packages else _fast(made)
            result["scale"] = measure_scale(
                package,
                engines=request.engines,
                threads=request.threads,
                repeats=min(request.repeats, 3),
                quick=request.quick,
                spacing_mm=setup.spacing_mm,
                folder=folder,
                remark=remark,
            )
    if not any(row["runs"] for each in result["subjects"] for row in each["rows"]) and not any(
        step["median"] for step in result["scale"]
    ):
        failures = [row["failed"] for each in result["subjects"] for row in each["rows"]]
        raise DistillSegError(next(filter(None, failures), "Nothing could be measured."))
    return result


def _files(request: Request, folder: Path) -> list[tuple[dict[str, Any], list[Row]]]:
    """Packages on images: those given, or what is bundled, each model on its organ's sample."""
    if request.against and not (request.images or request.packages):
        return []
    bundled = sorted((resources() / "Models").glob("*.distillseg"))
    packages = request.packages or [str(path) for path in bundled]
    images = {Path(image): packages for image in request.images}
    if not images:
        for package in packages:
            images.setdefault(_sample(package), []).append(package)
    subjects = []
    for image, shown in images.items():
        rows = [
            _lean(_short(package), package, engine, image, folder)
            for package in shown
            for engine in request.engines
        ]
        subjects.append(({"name": image.name, "kind": "image"}, rows))
    return subjects


def _sample(package: str) -> Path:
    """The bundled image for a package; one that cannot be read fails later, in its row."""
    try:
        found = sample_of(load_package(package))
    except PackageError:
        found = None
    return found or resources() / "Samples" / "hippocampus-mean.nii.gz"


def _phantom(
    request: Request, setup: Setup, made: Mapping[str, Any], folder: Path, remark: Listener
) -> tuple[dict[str, Any], list[Row]]:
    """The untrained networks, ours and the peers' pipelines, on the volume made by code."""
    image = folder / "phantom.nii.gz"
    job = {"shape": setup.shape, "spacing_mm": setup.spacing_mm, "out": str(image)}
    run_job("phantom", job, threads=request.threads)
    rows = [
        _lean(TITLES[name], made[name]["package"], engine, image, folder, untrained=True)
        for name in STUDENTS
        for engine in request.engines
    ]
    for peer in PEERS:
        if peer in request.against and not (reason := peers.absent(peer)):
            rows += _peer(peer, setup, made, image, folder)
        elif peer in request.against:
            remark(reason)
    subject = {
        "name": f"CT-like phantom {'x'.join(map(str, setup.shape[::-1]))}, untrained networks",
        "kind": "phantom",
        **asdict(setup),
        "network_spacing_mm": setup.network_spacing_mm,
        "networks": {
            TITLES[name]: {key: made[name][key] for key in ("parameters", "mixed", "like_phantom")}
            for name in made
        },
    }
    return subject, rows


def _lean(
    model: str, package: str, engine: str, image: Path, folder: Path, *, untrained: bool = False
) -> Row:
    settings = {"package": package, "engine": engine, "image": str(image)}
    return Row("DistillSeg", model, "lean", settings, engine, untrained)


def _peer(peer: str, setup: Setup, made: Mapping[str, Any], image: Path, folder: Path) -> list[Row]:
    def row(title: str, name: str, **more: str) -> Row:
        network = {
            "name": name,
            "weights": made[name]["weights"],
            "patch": setup.patch,
            "grid": setup.grid,
            "spacing_mm": setup.network_spacing_mm,
        }
        settings = {"network": network, "image": str(image), **more}
        return Row(title, TITLES[name], peer, settings, "torch", untrained=True)

    student = "untrained-full"
    if peer == "torch":
        return [row("PyTorch, one pass", student)]
    if peer == "monai":
        return [row("MONAI sliding window", student)]
    return [
        row("nnU-Net predictor", student),
        row("nnU-Net predictor, torch resampling", student, resampling="torch"),
        row("nnU-Net predictor", "nnunet-default"),
    ]


def _networks(
    request: Request, setup: Setup, folder: Path, remark: Listener
) -> dict[str, dict[str, Any]]:
    """The untrained networks, or none where what makes them is not installed."""
    missing = [name for name in TO_MAKE if find_spec(name) is None]
    if missing:
        remark(
            f"The untrained networks are left out, for {' and '.join(missing)}, which makes them, "
            "is not installed; run: pip install 'distillseg[train]'"
        )
        return {}
    names = list(STUDENTS)
    if "nnunet" in request.against and not peers.absent("nnunet"):
        names.append("nnunet-default")
    job = {"setup": asdict(setup), "names": names, "folder": str(folder)}
    return run_job("students", job, threads=request.threads)["found"]


def _take_turns(rows: Sequence[Row], request: Request, share: _Counter, folder: Path) -> None:
    """Measure all rows in turn, as often as asked; a row that fails is not repeated."""
    for repeat in range(request.repeats):
        for number, row in enumerate(rows):
            out = folder / f"labels-{number}.nii.gz"
            try:
                _measure(row, out, request.threads)
                if not (row.failed or repeat):
                    row.agreement = _agreement(
                        row, out, folder / f"labels-{_same(row, rows)}.nii.gz"
                    )
            except JobFailed as problem:
                row.failed = row.failed or str(problem)
            share.step(_turns([row]))


def _agreement(row: Row, out: Path, ours: Path) -> float | None:
    """The share of voxels to which a peer gives our label; None where there is none of ours."""
    if row.work not in PEERS or not ours.exists():
        return None
    both = {"first": str(ours), "second": str(out)}
    return run_job("agreement", both, threads=1)["found"]["share"]


def _measure(row: Row, out: Path, threads: int) -> None:
    if row.failed:
        return
    row.runs.append(run_job(row.work, {**row.settings, "out": str(out)}, threads=threads))
    if row.work == "lean":
        warm = run_job("warm", {**row.settings, "repeats": WARM_RUNS}, threads=threads)
        row.in_memory += warm["found"]["runs"]


def _same(row: Row, rows: Sequence[Row]) -> int | None:
    """The number of our first row with the same network."""
    ours = (n for n, each in enumerate(rows) if each.work == "lean" and each.model == row.model)
    return next(ours, None)


def _turns(rows: Sequence[Row]) -> int:
    return sum(2 if row.work == "lean" else 1 for row in rows)


def _short(package: str) -> str:
    path = Path(package)
    return path.stem if path.suffix == ".distillseg" else package


def _fast(made: Mapping[str, Any]) -> str:
    return made["untrained-fast"]["package"] if made else "hippocampus-fast"


class _Counter:
    """Jobs done of all jobs, told as a share."""

    def __init__(self, total: int, on_progress: Callable[[float], None]):
        self.total, self.done, self.on_progress = max(total, 1), 0, on_progress

    def step(self, count: int) -> None:
        self.done += count
        self.on_progress(self.done / self.total)
