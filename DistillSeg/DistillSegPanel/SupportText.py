"""What someone who helps needs to know, and nothing of the patient: no name, file or value."""

import platform
import sys

import slicer

import DistillSegLib
from DistillSegLib.machine import free_memory_bytes, physical_cores
from DistillSegLib.package import package_files
from DistillSegPanel.Install import sizeOnDisk, state
from DistillSegPanel.Nodes import NodeError, checkVolume, gridFromVolume, modalityOf
from DistillSegPanel.Preflight import inputsOf


def supportText(panel):
    """Lines of "name: value", in English for those who answer."""
    engine = state()
    lines = [
        f"DistillSeg: {DistillSegLib.__version__}",
        f"Slicer: {slicer.app.applicationVersion} (revision {slicer.app.revision})",
        f"System: {platform.platform()}, Python {sys.version.split()[0]}",
        f"Cores: {physical_cores()}, free memory {free_memory_bytes() / 2**30:.1f} GiB",
        f"onnxruntime: {engine.version or 'absent'} {engine.problem}".rstrip(),
        f"Disk: models {_megabytes(sum(p.stat().st_size for p in package_files()))}, "
        f"engine {_megabytes(sizeOnDisk())}",
        f"Status: {panel.state.name}",
    ]
    lines += _modelLines(panel) + _volumeLines(panel) + _runLines(panel)
    return "\n".join(lines) + "\n"


def _modelLines(panel):
    parameters = panel.parameters
    if parameters is None or not parameters.model:
        return ["Model: none"]
    package = panel.modelList.find(parameters.model)
    if package is None:
        return [f"Model: {parameters.model}, not at hand"]
    file = package.variant().file
    return [
        f"Model: {parameters.model}, {file} SHA-256 {package.digests[file]}",
        f"Region: {parameters.regionKind.value}, engine {parameters.engine}, "
        f"threads {parameters.threads}, beyond scope {parameters.forceScope}",
    ]


def _volumeLines(panel):
    lines = []
    volumes = inputsOf(panel.parameters) if panel.parameters is not None else ()
    for number, volume in enumerate(volumes, start=1):
        if volume is None:
            continue
        try:
            checkVolume(volume)
        except NodeError:  # which names nodes
            lines.append(f"Input {number}: {volume.GetClassName()}, cannot be used as it is")
            continue
        size, spacing, direction, _origin = gridFromVolume(volume)
        kind = volume.GetImageData().GetScalarTypeAsString()
        lines += [
            f"Input {number}: {_row(size)} voxels of {_row(spacing)} mm, {kind}, "
            f"modality {modalityOf(volume) or 'unknown'}",
            f"Directions {number} (LPS): {_row(direction)}",
        ]
    return lines


def _runLines(panel):
    segmentation = panel.work.lastSegmentation
    if segmentation is None:
        return ["Last run: none"]
    seconds = ", ".join(f"{stage} {value:.2f}" for stage, value in segmentation.seconds.items())
    return [f"Last run: {seconds} s", *(f"Warning: {text}" for text in segmentation.warnings)]


def _megabytes(count):
    return f"{count / 1e6:.1f} MB"


def _row(numbers):
    return " ".join(f"{number:.4g}" for number in numbers)
