"""What is asked of a model, and the part of it that a worker does.

A `Call` names nodes and can be repeated; a `Request` has their voxels copied and needs no scene.
"""

from dataclasses import dataclass, field, fields, replace

import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from DistillSegLib.estimates import Estimate, estimate, keep_speed, known_speed, speed_of_run
from DistillSegLib.inference import Segmenter
from DistillSegLib.machine import physical_cores
from DistillSegLib.nomenclature import renamed
from DistillSegLib.package import ModelPackage, load_package
from DistillSegLib.regions import Region
from DistillSegLib.scope import MUCH_LARGER
from DistillSegPanel.CleanUp import cleaned
from DistillSegPanel.Nodes import NodeError, fieldOfViewMm

MODEL_BOX = "modelBox"  # the remedy of a volume much larger than those of training


@dataclass(frozen=True)
class Call:
    """What the user asked for, enough to repeat it.

    Attributes:
        volumes: the nodes, one for each channel of the model.
        model: "id", "id-version" or "id@version".
        roi: the node of the region, or None.
        output: the node to write to, or None.
        forceScope: go on although the image is much larger than those of training.
        threads: 0 leaves one core to the rest of the computer.
        naming: of the segments, see `nomenclature.renamed`.
        cleanUp: what is taken away beside each structure, see `CleanUp.cleaned`.
        confidenceMap: whether a volume says how sure the network was of each voxel.
    """

    volumes: tuple
    model: str
    roi: object = None
    output: object = None
    forceScope: bool = False
    threads: int = 0
    engine: str = "auto"
    naming: str = "model"
    cleanUp: str = "none"
    confidenceMap: bool = False


# What a call says beside its nodes and model: the name of each option and its default.
OPTIONS = tuple(
    each for each in fields(Call) if each.name not in ("volumes", "model", "roi", "output")
)


@dataclass(frozen=True)
class Request:
    """A call whose voxels are copied: the library's part, for any thread."""

    call: Call
    package: ModelPackage
    images: tuple[sitk.Image, ...]
    region: Region | None
    expected: Estimate
    size: dict = field(repr=False)  # what `estimate` was told
    segmenters: "Segmenters" = field(repr=False)

    @property
    def model(self):
        """The package as "id@version"."""
        return f"{self.package.manifest.id}@{self.package.manifest.version}"

    def run(self, report, cancelled):
        """Segment; `report(share, sentence)` and `cancelled()` as `Jobs` gives them."""
        report(0.0, lambda: _("Loading the model …"))
        segmenter = self.segmenters.of(self.package, self.call)
        report(0.01, lambda: _("Preparing the image …"))
        segmentation = segmenter.segment(
            list(self.images),
            region=self.region,
            force_scope=self.call.forceScope,
            confidence_map=self.call.confidenceMap,
            on_progress=lambda share: report(share, lambda: _sentenceAt(share)),
            cancelled=cancelled,
        )
        speed = speed_of_run(
            self.package.manifest, segmenter.variant, **self.size, seconds=segmentation.seconds
        )
        keep_speed(speed, self.package.manifest.name, segmenter.engine)
        named = replace(segmentation, labels=renamed(segmentation.labels, self.call.naming))
        return cleaned(named, self.call.cleanUp)

    def isWanted(self):
        """Whether its volumes and output are still in the scene; main thread."""
        nodes = (*self.call.volumes, self.call.output)
        return all(n is None or n.GetScene() is slicer.mrmlScene for n in nodes)


class Segmenters:
    """The last model stays loaded, so that the next image pays no loading."""

    def __init__(self):
        self._key = None
        self._segmenter = None

    def of(self, package, call):
        """A `Segmenter` for a call."""
        key = (package.path, package.manifest.name, call.threads, call.engine)
        if self._key != key:
            threads = threadsFor(call.threads)
            self._segmenter = Segmenter(package, threads=threads, engine=call.engine)
            self._key = key
        return self._segmenter

    def clear(self):
        """Let go of the model and its memory."""
        self._key = self._segmenter = None


def threadsFor(wanted):
    """Threads of a run: what is wanted, otherwise all cores but one; 0 leaves it to the engine."""
    cores = physical_cores()
    return wanted or (max(1, cores - 1) if cores else 0)


def packageOf(model):
    """The package of "id", "id-version" or "id@version", bundled or installed."""
    return load_package(model.replace("@", "-"))


def asTuple(volumeNode):
    """One node or a list of them as a tuple."""
    return tuple(volumeNode) if isinstance(volumeNode, (list, tuple)) else (volumeNode,)


def checkChannels(package, volumes):
    """Raise NodeError unless there is a volume for each channel of the model."""
    channels = package.manifest.channels
    if len(volumes) != len(channels) or any(node is None for node in volumes[1:]):
        raise NodeError(
            _(
                "'{model}' takes {count} volumes of a patient ({channels}); choose one for each."
            ).format(model=package.manifest.id, count=len(channels), channels=", ".join(channels))
        )


def sizeOf(volumeNode, region):
    """What `estimate` needs to know of a volume and a region."""
    whole = fieldOfViewMm(volumeNode)
    size = volumeNode.GetImageData().GetDimensions()
    seen = region.size_mm[::-1] if region else whole
    return {
        "size_mm": tuple(min(a, b) for a, b in zip(seen, whole)),
        "voxels": size[0] * size[1] * size[2],
    }


def estimateFor(package, size, engine):
    """What a run will take, by the last run of the model on this computer."""
    manifest, variant = package.manifest, package.variant()
    engines = ("openvino", "onnxruntime") if engine == "auto" else (engine,)
    speeds = (known_speed(manifest.name, each) for each in engines)
    speed = next((each for each in speeds if each is not None), None)
    return estimate(manifest, variant, **size, speed=speed)


def _sentenceAt(share):
    if share < 0.05:
        return _("Preparing the image …")
    if share < 0.9:
        return _("The network is running …")
    return _("Placing the structures …")


def checkScope(package, size):
    """Raise NodeError, before voxels are copied, for much more than the model was trained on."""
    manifest = package.manifest
    largest = [high for _low, high in manifest.scope.size_mm]
    if all(mm <= MUCH_LARGER * high for mm, high in zip(size["size_mm"], largest)):
        return
    raise NodeError(
        _(
            "This spans {found} mm, but '{model}' knows {scope} of at most {largest} mm; give the "
            "region that holds the {part}, for example the model's box at the crosshair."
        ).format(
            found=_by(size["size_mm"]),
            model=manifest.id,
            scope=manifest.scope.description,
            largest=_by(largest),
            part=manifest.scope.body_part,
        ),
        MODEL_BOX,
        canGoOn=True,
    )


def pythonOf(call):
    """The text that makes a call in the Python console."""
    volumes = [_nodeText(node) for node in call.volumes]
    arguments = [
        volumes[0] if len(volumes) == 1 else f"[{', '.join(volumes)}]",
        repr(call.model).replace("'", '"'),
    ]
    if call.roi is not None:
        arguments.append(f"roiNode={_nodeText(call.roi)}")
    if call.output is not None:
        arguments.append(f"outputNode={_nodeText(call.output)}")
    for option in OPTIONS:
        value = getattr(call, option.name)
        if value != option.default:
            arguments.append(f"{option.name}={value!r}".replace("'", '"'))
    return (
        "from DistillSeg import DistillSegLogic\n"
        f"segmentationNode = DistillSegLogic().segment({', '.join(arguments)})\n"
    )


def _nodeText(node):
    """How the console finds a node again: by name where that is plain and unique, else by id."""
    name = node.GetName() or ""
    same = slicer.mrmlScene.GetNodesByName(name).GetNumberOfItems() if name else 0
    isPattern = any(letter in name for letter in "*?[]\\\"'\n")
    return f'slicer.util.getNode("{node.GetID() if same != 1 or isPattern else name}")'


def sizeText(count):
    """Bytes for people."""
    if count < 1e9:
        return _("{size:.0f} MB").format(size=max(1, count / 1e6))
    return _("{size:.1f} GB").format(size=count / 1e9)


def _by(zyx):
    return " x ".join(f"{mm:.0f}" for mm in zyx[::-1])
