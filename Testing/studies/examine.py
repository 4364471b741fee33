"""Where a bundled model fails, for whom, and whether it knows: a section of its card.

    python Testing/studies/examine.py hippocampus-tiny --data Task04_Hippocampus
    python Testing/studies/examine.py left-ventricle-fast --data LeftVentricle \\
        --groups "end diastole=_ED$" "end systole=_ES$" "heart failure=-HF-" "hypertrophy=-HYP-" \\
        "healthy=SC-N-"

segments the held-out cases as a user would and writes `cards/<model>.md`: spread, volumes, worst
cases, subgroups, and the calibration of the confidence that the panel shows. An export with
`analysis = "<model>.md"` in its card takes that in.

Calibration is looked at over voxels that no label has chosen. Over those that model *or* reference
give to a structure all background of the model's is wrong by choice: labels drawn from the
hippocampus models' own calibrated probabilities have an expected error of 9 to 10 % there, and of
0.1 % over the voxels that the model gives to a structure.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.stats import spearmanr

from DistillSegLib import Segmenter
from DistillSegLib.commands.train import read_domains
from DistillSegLib.datasets import Case, patient_of, read_dataset
from DistillSegLib.files import write_text
from DistillSegLib.geometry import spacing_of
from DistillSegLib.labels import LabelTable
from DistillSegLib.manifest import Manifest
from DistillSegLib.metrics import score
from DistillSegLib.segmentations import read_segmentation

CARDS = Path(__file__).resolve().parent / "cards"
EDGES = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)  # of confidence; the first holds what is below
WORST = 3
THIRDS = 6  # cases at least, before their thirds are told apart
NEAR = 2  # voxels from a structure: as far as any doubt goes


@dataclass(frozen=True)
class Finding:
    """One structure of one case.

    Attributes:
        dice: NaN where neither has it; 0 where only the model does: a false find.
        error: of its volume, as a share of the reference's; NaN where the reference has none.
        confidence: mean probability of the voxels given to it; None where there are none.
    """

    case: str
    structure: str
    dice: float
    hd95_mm: float
    reference_ml: float
    error: float
    confidence: float | None


def held_out_cases(manifest: Manifest, data: str) -> list[Case]:
    """Those of a data set, "DIR" or "DOMAIN=DIR", that the model was not trained on."""
    held_out = set(manifest.provenance["held_out_cases"])
    ((domain, path),) = read_domains([data]).items()
    return [case for case in read_dataset(path, domain=domain).cases if case.id in held_out]


def examine(
    segmenter: Segmenter, cases: Sequence[Case], labels: LabelTable
) -> tuple[list[Finding], NDArray, NDArray]:
    """What each case is like, and of each bin of confidence (voxels, sum of it, right ones).

    The bins are of the voxels that the model gives to a structure, then of all that lie near a
    structure of the model or of the reference: farther away all is easy.
    """
    findings = []
    given, near = np.zeros((2, len(EDGES) - 1, 3))
    for case in cases:
        made = segmenter.segment(case.images, confidence_map=True)
        reference = read_segmentation(case.label, labels).image
        ours, theirs, sure = (
            sitk.GetArrayFromImage(image) for image in (made.image, reference, made.confidence_map)
        )
        form = {"spacing_mm": spacing_of(reference), "tolerance_mm": 1.0}
        for each in score(ours, theirs, labels, **form):
            reference_ml = each.volume_b_ml
            error = (each.volume_a_ml - reference_ml) / reference_ml if reference_ml else math.nan
            known = made.confidence.get(each.label.value)
            findings.append(
                Finding(
                    case.id,
                    each.label.name,
                    each.dice,
                    each.hd95_mm,
                    reference_ml,
                    error,
                    known,
                )
            )
        chosen = ours > 0
        given += binned(sure[chosen], ours[chosen] == theirs[chosen])
        chosen = binary_dilation(chosen | (theirs > 0), iterations=NEAR)
        near += binned(sure[chosen], ours[chosen] == theirs[chosen])
    return findings, given, near


def binned(confidence: NDArray, right: NDArray) -> NDArray:
    """(bins, 3): voxels, the sum of their confidence, and how many are right."""
    number = np.clip(np.digitize(confidence, EDGES) - 1, 0, len(EDGES) - 2)
    columns = (np.ones_like(confidence), confidence, right)
    return np.stack([np.bincount(number, column, len(EDGES) - 1) for column in columns], axis=1)


def expected_error(bins: NDArray) -> float:
    """The expected calibration error: the mean gap of confidence and accuracy over the voxels."""
    count = np.maximum(bins[:, 0], 1)
    gaps = np.abs(bins[:, 1] - bins[:, 2]) / count
    return float((gaps * bins[:, 0]).sum() / max(bins[:, 0].sum(), 1))


def report(
    findings: Sequence[Finding], given: NDArray, near: NDArray, groups: Mapping[str, str]
) -> str:
    """The section as Markdown; the arguments are what `examine` returns, and title -> pattern."""
    structures = list(dict.fromkeys(finding.structure for finding in findings))
    parts = []
    for name in structures:
        found = [f for f in findings if f.structure == name]
        parts += filter(None, [_structure(name, found), _ejection_fractions(found)])
    subgroups = _subgroups(findings, structures, groups)
    parts += ["Mean Dice of subgroups:", subgroups] if subgroups else []
    parts += [_calibration(findings, given, near)]
    return "\n\n".join(parts) + "\n"


def _structure(name: str, found: Sequence[Finding]) -> str:
    scored = [f for f in found if not math.isnan(f.dice)]
    if not scored:
        return f"**{name}**: no reference has it, and the model found it in no case."
    low, middle = np.percentile([f.dice for f in scored], (5, 50))
    worst = sorted(scored, key=lambda f: f.dice)[:WORST]
    return (
        f"**{name}**: Dice median {middle:.3f}, 5th percentile {low:.3f}. {_volumes(found)}"
        f"{_false_finds(found)}Worst cases:\n\n"
        + _table(("case", "Dice", "HD95 (mm)", "volume (ml)", "volume error"), map(_row, worst))
    )


def _volumes(found: Sequence[Finding]) -> str:
    """A sentence on the errors of volume where the reference has one, with a space behind it."""
    errors = [100 * f.error for f in found if f.reference_ml > 0]
    if not errors:
        return ""
    return (
        f"Volume {statistics.fmean(errors):+.1f} % on average ({min(errors):+.0f} % to "
        f"{max(errors):+.0f} % in single cases; mean absolute error "
        f"{statistics.fmean(map(abs, errors)):.1f} %). "
    )


def _false_finds(found: Sequence[Finding]) -> str:
    """A sentence on the cases whose reference has none, with a space behind it, or nothing."""
    absent = [f for f in found if not f.reference_ml > 0]
    if not absent:
        return ""
    false = sum(not math.isnan(f.dice) for f in absent)
    return f"False finds: {false} (the reference has none in {len(absent)} of {len(found)} cases). "


def _ejection_fractions(found: Sequence[Finding]) -> str:
    """A paragraph on (ED - ES) / ED of the volumes, for patients with both phases; or nothing."""
    of = {f.case: f for f in found if f.reference_ml > 0}
    patients = [case[:-3] for case in of if case.endswith("_ED") and f"{case[:-3]}_ES" in of]
    if not patients:
        return ""
    ours, theirs = [], []
    for patient in patients:
        ed, es = of[f"{patient}_ED"], of[f"{patient}_ES"]
        theirs.append(100 * (1 - es.reference_ml / ed.reference_ml))
        made = [f.reference_ml * (1 + f.error) for f in (ed, es)]
        ours.append(100 * (1 - made[1] / made[0]) if made[0] else math.nan)
    gaps = [a - b for a, b in zip(ours, theirs)]
    pairs = ", ".join(f"{a:.0f} for {b:.0f}" for a, b in zip(ours, theirs))
    return (
        f"Ejection fraction by patient, in %, model for reference: {pairs}; mean "
        f"absolute error {statistics.fmean(map(abs, gaps)):.1f} points, mean "
        f"{statistics.fmean(gaps):+.1f}."
    )


def _row(finding: Finding) -> tuple[str, ...]:
    nowhere = "missed" if finding.reference_ml > 0 else "false find"
    return (
        finding.case,
        f"{finding.dice:.3f}",
        f"{finding.hd95_mm:.1f}" if math.isfinite(finding.hd95_mm) else nowhere,
        f"{finding.reference_ml:.2f}",
        f"{100 * finding.error:+.0f} %" if finding.reference_ml > 0 else "–",
    )


def _subgroups(
    findings: Sequence[Finding], structures: Sequence[str], groups: Mapping[str, str]
) -> str:
    """Rows of the groups by case id, then of the thirds by volume, of each structure.

    Where the reference has none there is no volume to choose a third by. Empty without a row.
    """
    rows = []
    for title, pattern in groups.items():
        chosen = [f for f in findings if re.search(pattern, f.case)]
        rows.append((title, *(_mean([f for f in chosen if f.structure == s]) for s in structures)))
    thirds: dict[str, list[str]] = {"small": [], "middle": [], "large": []}
    for name in structures:
        there = [f for f in findings if f.structure == name and f.reference_ml > 0]
        found = sorted(there, key=lambda f: f.reference_ml)
        for part, cell in zip(np.array_split(np.arange(len(found)), 3), thirds.values()):
            cell.append(_mean([found[i] for i in part]))
    if len({f.case for f in findings}) >= THIRDS:
        rows += [(f"{name} third by volume", *cells) for name, cells in thirds.items()]
    return _table(("cases", *structures), rows) if rows else ""


def _mean(found: Sequence[Finding]) -> str:
    """Of the cases, and of how many patients these are where a patient has several."""
    scored = [f for f in found if not math.isnan(f.dice)]
    if not scored:
        return "–"
    dice = [f.dice for f in scored]
    spread = f" ± {statistics.stdev(dice):.3f}" if len(dice) > 1 else ""
    patients = len({patient_of(f.case) for f in scored})
    who = "" if patients == len(dice) else f", patients: {patients}"
    return f"{statistics.fmean(dice):.3f}{spread} (n = {len(dice)}{who})"


def _calibration(findings: Sequence[Finding], given: NDArray, near: NDArray) -> str:
    rows = []
    for number, (count, sure, right) in enumerate(given):
        if count:
            low, high = EDGES[number], EDGES[number + 1]
            shares = (100 * sure / count, 100 * right / count, 100 * count / given[:, 0].sum())
            rows.append((f"{low:g} to {high:g}", *(f"{share:.0f} %" for share in shares)))
    known = [(f.confidence, f.dice) for f in findings if f.confidence is not None]
    if not known:
        return "**Confidence**: no structure was found in any case."
    rank = spearmanr(*zip(*known)).statistic if len(known) > 2 else math.nan
    gaps = [sure - dice for sure, dice in known]
    return (
        "**Confidence** (what the panel shows), over the voxels that the model gives to a "
        "structure; a calibrated model is right as often as it is sure:\n\n"
        + _table(("confidence", "mean", "right", "share of voxels"), rows)
        + f"\n\nExpected calibration error {100 * expected_error(given):.1f} %; over all voxels "
        f"within {NEAR} of a structure of model or reference {100 * expected_error(near):.1f} %. "
        f"A structure's mean confidence misses its Dice by {statistics.fmean(map(abs, gaps)):.3f} "
        f"(bias {statistics.fmean(gaps):+.3f})."
        + ("" if math.isnan(rank) else f" Rank correlation over the cases: {rank:.2f}.")
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def write_report(package: str | Path, data: str, groups: Sequence[str], out: Path | None) -> str:
    """Segment, examine and write, to `cards/<model>.md` unless told where.

    Args:
        data: as `held_out_cases` takes it.
        groups: "TITLE=PATTERN" of case ids.
    """
    segmenter = Segmenter(package)
    manifest = segmenter.package.manifest
    cases = held_out_cases(manifest, data)
    findings, given, near = examine(segmenter, cases, manifest.labels)
    text = report(findings, given, near, dict(group.split("=", 1) for group in groups))
    write_text(out or CARDS / f"{manifest.id}.md", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("package", help="id, or .distillseg file")
    parser.add_argument(
        "--data", required=True, metavar="[DOMAIN=]DIR", help="the data set it was trained on"
    )
    parser.add_argument("--groups", nargs="*", default=[], metavar="TITLE=PATTERN")
    parser.add_argument("--out", type=Path, help="Markdown file (default: cards/<model>.md)")
    options = parser.parse_args()
    print(write_report(options.package, options.data, options.groups, options.out))


if __name__ == "__main__":
    main()
