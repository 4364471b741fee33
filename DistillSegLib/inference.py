"""Images in, segmentation out.

>>> from DistillSegLib import Segmenter
>>> segmentation = Segmenter("hippocampus-fast").segment("crop.nii.gz")
>>> segmentation.image, segmentation.seconds, segmentation.warnings
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib import confidence, postprocessing
from DistillSegLib.body import find_body
from DistillSegLib.errors import Cancelled, DistillSegError, ImageError, PackageError
from DistillSegLib.geometry import Part, as_volume, check_image
from DistillSegLib.images import image_warnings, read_image, refuse_labels
from DistillSegLib.machine import free_memory_bytes
from DistillSegLib.package import ModelPackage, Variant, load_package
from DistillSegLib.passes import SHARE_OF_MEMORY, plan_passes
from DistillSegLib.regions import Region
from DistillSegLib.runtime import Engine, Session
from DistillSegLib.scope import check_scope, measure, scope_warnings
from DistillSegLib.segmentations import Segmentation
from DistillSegLib.upsampling import labels_on, largest, map_on
from DistillSegLib.windows import ignore, never, slabs, sliding_window, whole_volume

log = logging.getLogger(__name__)

ImageOrPath = sitk.Image | Path | str

POLL_SECONDS = 0.05  # between two questions whether to cancel, while the engine runs


class Segmenter:
    """A package, loaded and ready; keep it, and the next image pays no loading.

    Threads may share one: their images pass through the network one after the other.

    Args:
        package: a `ModelPackage`, the id of a bundled or installed one, or a `.distillseg` file.
        variant: by name; "auto" is the package's first. One for some engines only gives way to the
            first where none of them works, if the engine is "auto".
        threads: 0 is all physical cores.
        engine: "auto", "onnxruntime" or "openvino" (see `runtime.Session`).
        memory_bytes: what the network may take; by default half of what is free when it runs. With
            less than a whole volume needs, it goes through in slabs or windows (see `passes`).

    Attributes:
        package, variant, memory_bytes: what is in use.
    """

    def __init__(
        self,
        package: ModelPackage | Path | str,
        *,
        variant: str = "auto",
        threads: int = 0,
        engine: Engine = "auto",
        memory_bytes: int | None = None,
    ):
        self.memory_bytes = memory_bytes
        self.package = package if isinstance(package, ModelPackage) else load_package(package)
        self.variant, self._session = _open(self.package, variant, threads, engine)
        self._one_at_a_time = threading.Lock()

    @property
    def engine(self) -> str:
        """The engine in use, "onnxruntime" or "openvino"."""
        return self._session.engine

    def segment(
        self,
        images: ImageOrPath | Sequence[ImageOrPath],
        *,
        region: Region | None = None,
        force_scope: bool = False,
        confidence_map: bool = False,
        on_progress: Callable[[float], None] = ignore,
        cancelled: Callable[[], bool] = never,
    ) -> Segmentation:
        """Segment one patient.

        Args:
            images: one for each channel of the model, in its order; files and DICOM folders are
                read. The result lies on the grid of the first.
            region: the part to look at; nothing is found outside of it.
            force_scope: go on even if the image is much larger than those of training.
            confidence_map: also say how sure the network is of each voxel.
            on_progress: told the share done, 0 to 1.
            cancelled: asked often, also from another thread; if true, Cancelled is raised.

        Raises:
            ScopeError: the image is much larger than those that the model was trained on.
            DistillSegError: anything else that stands in the way, in one sentence.
        """
        manifest, seconds = self.package.manifest, {}
        with _timed(seconds, "read"):
            whole = self._read(images)
        with _timed(seconds, "preprocess"):
            part = region.index_box(whole[0]) if region else None
            warnings = self._check(whole, part, force_scope)
            body = find_body(whole[0], manifest) if part is None else None
            box = body.box if body else None
            prepared = manifest.preprocessing.apply(whole, part=part, box=box)
            part = body.part if body else part
        on_progress(0.05)
        with _timed(seconds, "network"), self._the_network(cancelled):
            logits = self.logits(
                prepared.array, lambda share: on_progress(0.05 + 0.85 * share), cancelled
            )
        with _timed(seconds, "labels"):
            made = self._segmentation(whole[0], logits, prepared.grid, part, confidence_map)
        if not sitk.GetArrayViewFromImage(made.image).any():
            warnings.append(self._nothing_found())
        on_progress(1.0)
        return replace(made, seconds=seconds, warnings=tuple(warnings))

    def _segmentation(
        self,
        reference: sitk.Image,
        logits: NDArray[np.float32],
        grid: sitk.Image,
        part: Part | None,
        confidence_map: bool,
    ) -> Segmentation:
        """From logits to labels on the reference's grid, and how sure the network was of them."""
        manifest, stride = self.package.manifest, self.variant.stride
        winners, values = largest(logits), manifest.labels.values
        labelmap = labels_on(
            reference, logits, grid, stride=stride, values=values, part=part, winners=winners
        )
        form = {"temperature": manifest.temperature, "stride": stride}
        sure = confidence.mean_by_class(logits, winners, **form)
        shares = self._confidence_map(reference, logits, grid, part) if confidence_map else None
        return Segmentation(
            postprocessing.apply(manifest.postprocessing, labelmap),
            manifest.labels,
            source=f"{manifest.id} {manifest.version}",
            confidence={int(values[index]): share for index, share in sure.items()},
            confidence_map=shares,
        )

    def _confidence_map(
        self,
        reference: sitk.Image,
        logits: NDArray[np.float32],
        grid: sitk.Image,
        part: Part | None,
    ) -> sitk.Image:
        """The probability of the most probable class at each voxel of the reference.

        Coarse logits are brought to the network's input grid first: interpolated probabilities
        would be high at borders, where the logits of two classes cross.
        """
        stride = self.variant.stride
        classes = iter(logits)
        if stride > 1:
            classes = (
                sitk.GetArrayFromImage(map_on(grid, scores, grid, stride=stride))
                for scores in logits
            )
        shares = confidence.probability(classes, self.package.manifest.temperature)
        return map_on(reference, shares, grid, part=part)

    def _read(self, images: ImageOrPath | Sequence[ImageOrPath]) -> list[sitk.Image]:
        given = [images] if isinstance(images, (sitk.Image, str, Path)) else list(images)
        channels = self.package.manifest.channels
        if len(given) != len(channels):
            raise ImageError(
                f"'{self.package.manifest.id}' takes {len(channels)} image(s) of a patient "
                f"({', '.join(channels)}), found {len(given)}; give one for each, in this order."
            )
        volumes = []
        for image in given:
            name = "the image" if isinstance(image, sitk.Image) else str(image)
            volume = as_volume(image) if isinstance(image, sitk.Image) else read_image(image)
            check_image(volume)
            _check_values(volume)
            refuse_labels(volume, name)
            volumes.append(volume)
        return volumes

    def _check(
        self, images: Sequence[sitk.Image], part: Part | None, force_scope: bool
    ) -> list[str]:
        """Refuse what is out of scope; return warnings about what is doubtful."""
        manifest = self.package.manifest
        orientation = manifest.preprocessing.orientation
        whole = measured = measure(images, orientation=orientation)
        if part:
            measured = measure(images, orientation=orientation, part=part)
        if not force_scope:
            check_scope(manifest.scope, measured, title=manifest.id)
        own_units = manifest.preprocessing.intensity[0].scheme == "fixed"
        usual = manifest.scope.anisotropy
        found = [w for image in images for w in image_warnings(image, anisotropy=usual)]
        found += scope_warnings(
            manifest.scope,
            measured,
            whole=whole,
            modality=manifest.modality,
            own_units=own_units,
        )
        return list(dict.fromkeys(found))

    def logits(
        self,
        array: NDArray[np.float32],
        on_progress: Callable[[float], None] = ignore,
        cancelled: Callable[[], bool] = never,
    ) -> NDArray[np.float32]:
        """(C, D, H, W) -> (K, D/s, H/s, W/s): at once, or in parts that fit into memory.

        The array is as `manifest.preprocessing` makes it.
        """
        manifest, stride = self.package.manifest, self.variant.stride
        memory = self.memory_bytes or SHARE_OF_MEMORY * free_memory_bytes()
        passes = plan_passes(manifest, self.variant, array.shape[1:], memory)
        if passes.kind == "whole":
            try:
                return whole_volume(array, self._session, multiple=manifest.multiple, stride=stride)
            except MemoryError as problem:
                log.warning("A single pass did not fit, going on in parts: %s", problem)
                least = passes.memory_bytes / 4
                passes = plan_passes(manifest, self.variant, array.shape[1:], least)
        heard = {"on_progress": on_progress, "cancelled": cancelled}
        if passes.kind == "slabs":
            cut = {"axis": passes.axis, "thickness": passes.thickness, "halo": passes.halo}
            return slabs(
                array, self._session, **cut, multiple=manifest.multiple, stride=stride, **heard
            )
        return sliding_window(
            array, self._session, manifest.window, overlap=manifest.overlap, stride=stride, **heard
        )

    @contextmanager
    def _the_network(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Have the session to oneself, and end a running pass when `cancelled` says so."""
        while not self._one_at_a_time.acquire(timeout=POLL_SECONDS):
            _stop_if(cancelled)
        done = threading.Event()

        def watch() -> None:
            while not done.wait(POLL_SECONDS):
                if cancelled():
                    self._session.cancel()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            _stop_if(cancelled)
            yield
            _stop_if(cancelled)
        except MemoryError as problem:
            raise DistillSegError(
                f"There is not enough memory for the network ({free_memory_bytes() >> 20} MiB are "
                "free); close other programs, or give a smaller region."
            ) from problem
        finally:
            done.set()
            watcher.join()
            self._one_at_a_time.release()

    def _nothing_found(self) -> str:
        manifest = self.package.manifest
        names = ", ".join(label.name for label in manifest.labels)
        return (
            f"Nothing was found of: {names}. '{manifest.id}' expects {manifest.modality} images, "
            f"{manifest.scope.noun}; check the image, or choose another region."
        )


def self_check(package: ModelPackage, *, engine: Engine = "auto") -> float:
    """Run the package's check window here: the largest difference of any logit, of any variant.

    Variants for some engines only are left to `Segmenter`, which checks them whenever it opens one:
    engines come and go after a package was installed, and without them the first variant is sound.

    Raises:
        PackageError: it exceeds the package's tolerance; this computer would segment differently.
    """
    return max(
        check_variant(package, variant, Session(package.model_bytes(variant), engine=engine))
        for variant in package.manifest.variants
        if not variant.engines
    )


def check_variant(package: ModelPackage, variant: Variant, session: Session) -> float:
    """The largest difference of a session's logits from the package's own for its check window.

    Raises:
        PackageError: it exceeds what the package allows of this variant.
    """
    manifest = package.manifest
    allowed = manifest.tolerance if variant.tolerance is None else variant.tolerance
    window, expected = package.check_window(variant)
    logits = session(window)
    same_shape = logits.shape == expected.shape
    difference = float(np.abs(logits - expected).max()) if same_shape else float("nan")
    if not difference <= allowed:  # also true for NaN
        raise PackageError(
            f"'{manifest.name}' does not give its own numbers on this computer with "
            f"{session.engine}: logits {logits.shape} differ by {difference:.2g} where "
            f"{allowed:.2g} is allowed; get the package again or update the engine."
        )
    return difference


def _open(
    package: ModelPackage, name: str, threads: int, engine: Engine
) -> tuple[Variant, Session]:
    """A variant and its session; those for some engines only are checked, and replaced if need be.

    Raises:
        DistillSegError: the engine was named, and is not for this variant or gives other numbers.
    """
    variant = package.variant(name)
    if variant.engines and engine == "auto":
        try:
            return _open(package, name, threads, variant.engines[0])
        except DistillSegError as problem:
            variant = package.variant()
            log.warning("Variant '%s' gives way to '%s': %s", name, variant.name, problem)
    if variant.engines and engine not in variant.engines:
        raise DistillSegError(
            f"Variant '{name}' of '{package.manifest.id}' was made and tried for "
            f"{', '.join(variant.engines)}, not for {engine}; leave the engine to 'auto', or take "
            f"variant '{package.variant().name}'."
        )
    session = Session(package.model_bytes(variant), threads=threads, engine=engine)
    if variant.engines:
        check_variant(package, variant, session)
    return variant, session


def _check_values(image: sitk.Image) -> None:
    """Refuse NaN and infinity: normalisation would spread them over the whole image."""
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise ImageError(
            f"The image has {np.count_nonzero(~np.isfinite(voxels))} voxels that are not finite "
            "numbers (NaN or infinite); replace them or export the image again."
        )


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("The segmentation was cancelled; nothing was written.")


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
