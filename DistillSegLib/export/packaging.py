"""A stage of a training run as a package, checked as its user will check it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from DistillSegLib.errors import DistillSegError
from DistillSegLib.export import int8 as eight_bits
from DistillSegLib.export.calibration import (
    Calibration,
    augmentation_of,
    calibrate,
    training_cache,
)
from DistillSegLib.export.card import CardConfig, card_text, read_analysis, read_card, read_scores
from DistillSegLib.export.memory import measure_memory
from DistillSegLib.export.onnx import export_onnx, exported, slow_operators
from DistillSegLib.export.reach import measure_reach
from DistillSegLib.files import replacing
from DistillSegLib.inference import Segmenter, self_check
from DistillSegLib.labels import LabelTable
from DistillSegLib.manifest import FORMAT, Manifest, TestResult, Variant, check_shape
from DistillSegLib.networks import count_parameters, smallest_size
from DistillSegLib.package import read_package, write_package
from DistillSegLib.records import from_dict
from DistillSegLib.runtime import Session
from DistillSegLib.training.cache import INDEX, Cache, open_cache
from DistillSegLib.training.checkpoints import load_specialised
from DistillSegLib.training.folder import checkpoint_of
from DistillSegLib.training.plan import Plan
from DistillSegLib.training.validation import single_pass
from DistillSegLib.windows import Shape, Size, per_axis

log = logging.getLogger(__name__)

MODEL = "model.onnx"
SPREAD = 4  # times the difference of two engines in 8 bits, between two computers
TOLERANCE = 1e-3  # of a check logit on another computer, relative to the largest one
REAL_WINDOWS = 3
# Keys of a teacher that name a file or folder.
PLACES = ("package", "nnunet", "bundle", "stored", "weights")


@dataclass(frozen=True)
class Contents:
    """What goes into a package.

    Attributes:
        models: ONNX by file name.
        window: (1, C, d, h, w) of the check; logits: of each variant for it, by name.
        analysis: Markdown for the card.
    """

    manifest: Manifest
    models: Mapping[str, bytes]
    window: NDArray[np.float32]
    logits: Mapping[str, NDArray[np.float32]]
    analysis: str

    def write(self, path: Path) -> None:
        """The package with its card."""
        card = card_text(self.manifest, self.analysis)
        rest = {"models": self.models, "window": self.window, "logits": self.logits}
        write_package(path, self.manifest, card=card, **rest)


def build_package(
    run: Path | str,
    *,
    stage: str,
    card: Path | str,
    out: Path | str,
    role: str | None = None,
    domain: str = "",
    int8: bool = False,
    data: Path | str | None = None,
    calibration: bool = True,
    on_remark: Callable[[str], None] = log.info,
) -> Path:
    """Export a trained network of a run and pack it with its card and scores.

    The package is read, its digests and its check window are verified, as `install_package` does,
    before it takes its place at `out`.

    Args:
        run: the folder that training wrote.
        stage: whose network; role: which, if the stage trained several.
        domain: of a network for several modalities, for which one the package is.
        card: a TOML file, see `export.card`.
        out: the `.distillseg` file to write.
        int8: also a variant in 8 bits for OpenVINO, if held-out cases keep their labels with it.
        data: the cache or the data set that the network was trained on; by default the run's own
            cache. Its training cases say at which temperature probabilities are shown.
        calibration: False leaves the temperature at 1.
        on_remark: told in a sentence what became of that variant, and of the temperature.
    """
    run, card = Path(run), Path(card)
    config = read_card(card)
    net, checkpoint = load_specialised(checkpoint_of(run, stage, role), domain)
    plan = from_dict(Plan, checkpoint["plan"])
    labels = from_dict(LabelTable, checkpoint["labels"])
    test = None  # read before the export, which takes a minute
    if config.scores:
        test = read_scores(card.parent / config.scores, labels, checkpoint["provenance"])
    analysis = read_analysis(card.parent / config.analysis) if config.analysis else ""
    cache = open_cache(run / "cache" / domain) if int8 else None
    if cache:
        eight_bits.check_int8(cache)
    calibrated = None
    if calibration:
        calibrated = _calibrated(net, checkpoint, data, run / "cache" / domain, on_remark)
    coarse = getattr(net, "stride", 1) > 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        parity = export_onnx(
            net,
            plan.window,
            path,
            channels=len(plan.channels),
            coarse=coarse,
            multiple=net.multiple,
            real=_real_windows(run / "cache" / domain, net.multiple, smallest_size(net)),
        )
        log.info("Parity with torch: %.2g over %d windows.", *vars(parity).values())
        if slow := slow_operators(path):
            log.warning("The model holds operators that run slowly: %s.", ", ".join(slow))
        model = path.read_bytes()
        bytes_per_voxel = measure_memory(path, len(plan.channels), net.multiple)
        halo = measure_halo(net, path, len(plan.channels), net.stride if coarse else 1)
    shape = check_shape(plan.window, multiple=net.multiple, minimum=smallest_size(net))
    window = check_window(len(plan.channels), shape)
    with torch.no_grad():
        logits = exported(net, coarse=coarse)(torch.from_numpy(window)).numpy()
    variant = Variant(
        "fp32",
        MODEL,
        stride=net.stride if coarse else 1,
        parameters=count_parameters(net),
        size_bytes=len(model),
        bytes_per_voxel=bytes_per_voxel,
    )
    tolerance = TOLERANCE * max(1.0, float(np.abs(logits).max()))
    manifest = _manifest(config, checkpoint, plan, labels, net, variant, tolerance, test, halo)
    if calibrated:
        provenance = {**manifest.provenance, "calibration": asdict(calibrated)}
        manifest = replace(manifest, temperature=calibrated.temperature, provenance=provenance)
    contents = Contents(manifest, {MODEL: model}, window, {variant.name: logits}, analysis)
    if cache:
        contents = _with_int8(contents, cache, on_remark)
    with replacing(out) as temporary:
        contents.write(temporary)
        package = read_package(temporary)
        package.check_digests()
        self_check(package, engine="onnxruntime")
    return Path(out)


def _calibrated(
    net: nn.Module,
    checkpoint: Mapping[str, Any],
    data: Path | str | None,
    own: Path,
    on_remark: Callable[[str], None],
) -> Calibration | None:
    """At which temperature probabilities are shown; None, and why, if it cannot be fitted.

    Args:
        own: the run's cache, which is taken where no data are given.
    """
    plan, labels = from_dict(Plan, checkpoint["plan"]), from_dict(LabelTable, checkpoint["labels"])
    try:
        if data is None and not (own / INDEX).is_file():
            raise DistillSegError("the run has no cache; name its cache or data set with --data.")
        with tempfile.TemporaryDirectory() as work:
            cache = training_cache(
                Path(data or own), plan, labels, checkpoint["provenance"], Path(work)
            )
            found = calibrate(net, cache, augmentation_of(checkpoint["recipe"]))
    except (DistillSegError, OSError) as problem:
        on_remark(
            "Probabilities are not calibrated and are shown at a softmax temperature of 1: "
            f"{str(problem).rstrip('.')}."
        )
        return None
    on_remark(found.sentence())
    return found


def _with_int8(contents: Contents, cache: Cache, on_remark: Callable[[str], None]) -> Contents:
    """With a variant in 8 bits and what was measured of it, or as before, if it is no good."""
    try:
        both = _quantised(contents, cache)
        with tempfile.TemporaryDirectory() as folder:
            both.write(Path(folder) / "both")
            package = read_package(Path(folder) / "both")
            fp32, int8 = (
                Segmenter(package, variant=variant.name, engine=eight_bits.ENGINE)
                for variant in package.manifest.variants
            )
            agreements = eight_bits.measure_agreement(fp32, int8, cache)
        reason = eight_bits.objection(agreements)
    except DistillSegError as problem:
        reason = str(problem).rstrip(".")
    if reason:
        on_remark(f"The int8 variant is left out: {reason}.")
        return contents
    least = min(agreements, key=lambda each: each.with_fp32)
    on_remark(
        f"The int8 variant is kept: on {len(cache.held_out_cases)} held-out cases its labels agree "
        f"with those of fp32 by a Dice of {least.with_fp32:.4f} or more ('{least.structure}')."
    )
    figures = {
        "held_out_cases": len(cache.held_out_cases),
        "structures": [asdict(each) for each in agreements],
    }
    provenance = {**both.manifest.provenance, "int8": figures}
    return replace(both, manifest=replace(both.manifest, provenance=provenance))


def _quantised(contents: Contents, cache: Cache) -> Contents:
    """With a second variant, whatever it is worth.

    Engines round differently within 8 bits: how far two of them are apart on the check window says
    how far one of them may be, on another processor, from what it gave here.
    """
    manifest, (first,) = contents.manifest, contents.manifest.variants
    windows = eight_bits.calibration_windows(cache, manifest.multiple)
    model = eight_bits.quantise(contents.models[first.file], windows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / eight_bits.FILE
        path.write_bytes(model)
        taken = measure_memory(
            path, len(manifest.channels), manifest.multiple, engine=eight_bits.ENGINE
        )
        logits, other = (
            Session(path, engine=engine)(contents.window)
            for engine in (eight_bits.ENGINE, "onnxruntime")
        )
    second = replace(
        first,
        name=eight_bits.NAME,
        file=eight_bits.FILE,
        size_bytes=len(model),
        bytes_per_voxel=taken,
        engines=(eight_bits.ENGINE,),
        tolerance=max(SPREAD * float(np.abs(logits - other).max()), manifest.tolerance),
    )
    return replace(
        contents,
        manifest=replace(manifest, variants=(first, second)),
        models={**contents.models, second.file: model},
        logits={**contents.logits, second.name: logits},
    )


def check_window(channels: int, window: Sequence[int]) -> NDArray[np.float32]:
    """(1, C, d, h, w): smooth noise, so that no patient's image travels with a package.

    Coarse noise under fine noise has structure at several scales, so that all of a network answers.
    """
    random = torch.Generator().manual_seed(0)
    shape = (1, channels, *window)
    total = torch.randn(shape, generator=random) * 0.3
    for share in (4, 16):
        small = [max(size // share, 1) for size in window]
        noise = torch.randn((1, channels, *small), generator=random)
        total += nn.functional.interpolate(noise, size=tuple(window), mode="trilinear")
    return total.numpy()


def measure_halo(net: nn.Module, path: Path, channels: int, stride: int) -> Shape | None:
    """How far the exported network sees, where a volume may pass through it in parts."""
    if not single_pass(net):
        return None
    session = Session(path, engine="onnxruntime")
    sizes = {"multiple": net.multiple, "minimum": smallest_size(net)}
    return measure_reach(session, channels=channels, stride=stride, **sizes)


def _real_windows(folder: Path, multiple: Size, minimum: Size) -> list[NDArray[np.float32]]:
    """Some held-out cases of a run's cache, as far as it is still there: (1, C, d, h, w) each."""
    try:
        cache = open_cache(folder)
        cases = (cache.held_out_cases or cache.training_cases)[:REAL_WINDOWS]
        images = [np.array(cache.image(case)) for case in cases]
    except (DistillSegError, OSError) as problem:
        log.warning("Parity is checked on random windows only: %s", problem)
        return []
    largest = cache.plan.window
    windows = []
    for image in images:
        image = image[:, : largest[0], : largest[1], : largest[2]]
        limits = zip(image.shape[1:], per_axis(multiple), per_axis(minimum), strict=True)
        sizes = [max(-(-size // each) * each, least) for size, each, least in limits]
        missing = [(0, wanted - size) for wanted, size in zip(sizes, image.shape[1:])]
        windows.append(np.pad(image, [(0, 0), *missing])[None])
    return windows


def _manifest(
    config: CardConfig,
    checkpoint: dict[str, Any],
    plan: Plan,
    labels: LabelTable,
    net: nn.Module,
    variant: Variant,
    tolerance: float,
    test: TestResult | None,
    halo: Shape | None,
) -> Manifest:
    return Manifest(
        format=FORMAT,
        id=config.id,
        version=config.version,
        title=config.title,
        description=config.description,
        modality=config.modality or plan.modality,
        channels=plan.channels,
        labels=labels,
        preprocessing=plan.preprocessing,
        window=plan.window,
        overlap=config.overlap,
        multiple=net.multiple,
        minimum=smallest_size(net),
        single_pass=single_pass(net),
        variants=(variant,),
        scope=plan.scope,
        tolerance=tolerance,
        halo=halo,
        licence=config.licence,
        attribution=config.attribution,
        intended_use=config.intended_use,
        not_for=config.not_for,
        known_failures=config.known_failures,
        citation=config.citation,
        postprocessing=config.postprocessing,
        test=test,
        recipe=published_recipe(checkpoint["recipe"]),
        provenance=checkpoint["provenance"],
    )


def published_recipe(plain: Any) -> Any:
    """A recipe with files from elsewhere by name only: folders tell about a user's machine."""
    if isinstance(plain, dict):
        return {
            key: Path(value).name
            if key in PLACES and isinstance(value, str)
            else published_recipe(value)
            for key, value in plain.items()
        }
    if isinstance(plain, (list, tuple)):
        return [published_recipe(value) for value in plain]
    return Path(plain).name if isinstance(plain, str) and plain.endswith(".pt") else plain
