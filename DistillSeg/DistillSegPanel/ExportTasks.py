"""What is written for others: copied from the scene here, written by the worker.

Each function copies on the main thread and returns `task(report, cancelled)` for the worker, which
returns the files.
"""

import re
from pathlib import Path

from slicer.i18n import tr as _

from DistillSegLib.comparison import compare
from DistillSegLib.exports import write_label_map, write_volumes
from DistillSegLib.report import write_report
from DistillSegLib.segmentations import relabelled
from DistillSegPanel import Outputs
from DistillSegPanel.Nodes import imageFromVolume
from DistillSegPanel.SegmentationFile import valuesOf
from DistillSegPanel.Segments import segmentationFromNode


def labelMapTask(node, path):
    """NIfTI with the model's own values, and beside it what they mean."""
    segmentation, values = segmentationFromNode(node), valuesOf(node)
    return lambda report, cancelled: list(write_label_map(relabelled(segmentation, values), path))


def tablesTask(node, path, other=None, toleranceMm=1.0):
    """Volumes as CSV; if there is another segmentation, the comparison in a second file."""
    segmentation, values = segmentationFromNode(node), valuesOf(node)
    second = segmentationFromNode(other) if other is not None else None

    def task(report, cancelled):
        files = [write_volumes(relabelled(segmentation, values), path)]
        if second is not None:
            found = _compared(segmentation, second, toleranceMm, report, cancelled)
            files.append(found.to_csv(path.with_name(f"{path.stem}-comparison.csv")))
        return files

    return task


def reportTask(node, path, other=None, toleranceMm=1.0):
    """One HTML file with pictures and tables, on one segmentation or on two."""
    segmentation, volume = segmentationFromNode(node), Outputs.volumeOf(node)
    image = imageFromVolume(volume) if volume is not None else None
    second = segmentationFromNode(other) if other is not None else None
    facts = {_("Image"): volume.GetName() if volume is not None else _("not in the scene")}
    if Outputs.modelOf(node):
        facts[_("Model")] = Outputs.modelOf(node)

    def task(report, cancelled):
        found = None
        if second is not None:
            found = _compared(segmentation, second, toleranceMm, report, cancelled)
        report(0.5, lambda: _("Drawing the report …"))
        title = segmentation.source
        return [write_report(path, image, segmentation, second, found, title=title, facts=facts)]

    return task


def _compared(a, b, toleranceMm, report, cancelled):
    """The comparison of two segmentations, in the worker; the first half of its task."""
    return compare(
        a,
        b,
        tolerance_mm=toleranceMm,
        rest="overlap",
        on_progress=lambda share: report(share / 2, lambda: _("Comparing …")),
        cancelled=cancelled,
    )


def otherOf(parameters, node):
    """The segmentation that one is compared with in 'Compare', or None."""
    pair = (parameters.compareA, parameters.compareB)
    if node not in pair or None in pair or pair[0] is pair[1]:
        return None
    return pair[1] if node is pair[0] else pair[0]


def freePath(folder, name, ending):
    """A file name for a node that takes no other file's place: "name.nii.gz", "name-2.nii.gz"."""
    stem = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(" .") or "segmentation"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 10_000))]
    paths = (Path(folder, each + ending) for each in names)
    return next(path for path in paths if not path.exists())
