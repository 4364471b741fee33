"""Which of several packages to take: for an image, and as the reference beside a small one.

The smallest model is the fastest, but not always good enough; the largest is not worth its time
where a small one does as well. Dice is compared only between models that were tested on the same
cases for the same structures.

>>> recommended(packages, measure([image], orientation="LPS")).manifest.id
'hippocampus-fast'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from DistillSegLib.errors import ScopeError
from DistillSegLib.manifest import Manifest
from DistillSegLib.package import ModelPackage
from DistillSegLib.scope import Measured, check_scope, other_modality, scope_warnings

NEARLY = 0.01  # of Dice below the best of the same test: as good, if it is smaller
ROUNDING = 1e-9
MUCH_FINER = 3.0  # times finer voxels than any of training: another kind of image


def recommended(
    packages: Iterable[ModelPackage], measured: Measured | None = None
) -> ModelPackage | None:
    """The smallest of the good models that fit an image; None without one to take.

    Those with the least `doubt` of the image are looked at. Among them the models of a test whose
    mean Dice is within `NEARLY` of that test's best are good; of several tests the first by id is
    taken. Models without scores come last. An experimental model, of a version before 1.0.0, is
    taken only for an image that it has no doubt of, where all others have: otherwise a person
    chooses it. The order of `packages` has no say.

    Args:
        measured: the image, if there is one; without it no model has doubt.
    """
    ranks = []
    for package in packages:
        doubts = 0 if measured is None else doubt(package.manifest, measured)
        experimental = package.manifest.version_key < (1,)
        if not (doubts and experimental):
            ranks.append(((doubts, experimental), package))
    first_rank = min((rank for rank, _ in ranks), default=None)
    left = [package for rank, package in ranks if rank == first_rank]
    good = [package for package in left if _nearly_best(package, left)]
    if good:
        first = min(good, key=_by_id)
        good = [first, *same_test(first, good)]
    return min(good or left, key=lambda p: (p.variant().size_bytes, *_by_id(p)), default=None)


def doubt(manifest: Manifest, measured: Measured) -> int:
    """How unlike its training images a model finds an image.

    Returns:
        0 like them; 1 with a warning; 2 where it would refuse, the image is of another modality or
        has too few channels, or its voxels are much finer than any of training.
    """
    scope = manifest.scope
    finer = [low / mm for mm, (low, _) in zip(measured.spacing_mm, scope.spacing_mm)]
    if max(finer) > MUCH_FINER or len(measured.intensity) < len(manifest.channels):
        return 2
    try:
        check_scope(scope, measured, title=manifest.title)
    except ScopeError:
        return 2
    if other_modality(scope, measured, manifest.modality):
        return 2
    warnings = scope_warnings(
        scope,
        measured,
        whole=measured,
        modality=manifest.modality,
        own_units=manifest.preprocessing.intensity[0].scheme == "fixed",
    )
    return int(bool(warnings))


def reference_of(package: ModelPackage, packages: Iterable[ModelPackage]) -> ModelPackage | None:
    """The large model that stands behind a small one; None if none is larger.

    A package does not name its teacher. It is taken to be the best of the larger ones by the same
    test, otherwise the largest, of those that name the same structures on the same channels.
    """
    kind = _kind(package.manifest)
    larger = [
        other
        for other in packages
        if other.manifest.id != package.manifest.id
        and _kind(other.manifest) == kind
        and _parameters(other) > _parameters(package)
    ]
    tested = [o for o in same_test(package, larger) if mean_dice(o.manifest) is not None]

    def merit(other: ModelPackage) -> tuple:
        dice = mean_dice(other.manifest) if tested else 0.0
        return dice, _parameters(other), other.manifest.version_key

    return max(tested or larger, key=merit, default=None)


def same_test(package: ModelPackage, packages: Iterable[ModelPackage]) -> list[ModelPackage]:
    """Other packages that were tested on the same cases for the same structures."""
    test = _test(package.manifest)
    return [
        other
        for other in packages
        if other.manifest.name != package.manifest.name
        and test is not None
        and _test(other.manifest) == test
    ]


def mean_dice(manifest: Manifest) -> float | None:
    """The mean over structures of the mean Dice on held-out cases; None where it was not tested."""
    found = scores_of(manifest, "dice")
    return sum(found.values()) / len(found) if found else None


def scores_of(manifest: Manifest, metric: str) -> dict[str, float]:
    """Structure -> mean of a metric, such as "hd95_mm", on held-out cases."""
    scores = manifest.test.scores if manifest.test is not None else ()
    return {s.structure: s.mean for s in scores if s.metric == metric and s.mean is not None}


def _nearly_best(package: ModelPackage, packages: Sequence[ModelPackage]) -> bool:
    dice = mean_dice(package.manifest)
    if dice is None:
        return False
    others = [mean_dice(other.manifest) for other in same_test(package, packages)]
    best = max([dice, *(other for other in others if other is not None)])
    return best - dice <= NEARLY + ROUNDING


def _test(manifest: Manifest) -> tuple | None:
    if manifest.test is None:
        return None
    names = tuple(label.name for label in manifest.labels)
    return manifest.test.description, manifest.test.cases, names


def _kind(manifest: Manifest) -> tuple:
    names = sorted(label.name.casefold() for label in manifest.labels)
    return tuple(manifest.channels), names


def _by_id(package: ModelPackage) -> tuple:
    """Of several versions the newest first."""
    return package.manifest.id, [-part for part in package.manifest.version_key]


def _parameters(package: ModelPackage) -> int:
    return package.variant().parameters
