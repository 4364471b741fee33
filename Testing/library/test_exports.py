"""Tables that go with a segmentation."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.errors import ImageError
from DistillSegLib.exports import write_label_map, write_volumes
from DistillSegLib.labels import Label, LabelTable
from DistillSegLib.segmentations import Segmentation, read_segmentation

LABELS = LabelTable(
    (
        Label(2, "Head, left", (230, 159, 0)),
        Label(5, "Absent", (86, 180, 233)),
        Label(300, "Head, left", (0, 158, 115)),  # a name may repeat
    )
)


@pytest.fixture
def segmentation() -> Segmentation:
    """Voxels of 2 x 3 x 4 mm: 24 mm3, of which 5 belong to 2 and 7 to 300."""
    voxels = np.zeros((3, 4, 5), np.uint16)
    voxels[0, 0] = 2
    voxels.ravel()[-7:] = 300
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 3.0, 4.0))
    return Segmentation(image, LABELS)


def rows_of(path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_each_structure_has_its_volume_also_where_names_repeat(segmentation, tmp_path):
    rows = rows_of(write_volumes(segmentation, tmp_path / "volumes.csv"))
    assert [tuple(row.values()) for row in rows] == [
        ("2", "Head, left", "0.12"),
        ("5", "Absent", "0"),
        ("300", "Head, left", "0.168"),
    ]


def test_a_label_map_has_its_table_beside_it(segmentation, tmp_path):
    path, table = write_label_map(segmentation, tmp_path / "my.case.nii.gz")
    assert (path.name, table.name) == ("my.case.nii.gz", "my.case-labels.csv")
    names = {int(row["LabelValue"]): row["Name"] for row in rows_of(table)}
    assert names == {0: "Background", 2: "Head, left", 5: "Absent", 300: "Head, left"}
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(read_segmentation(path, LABELS).image),
        sitk.GetArrayFromImage(segmentation.image),
    )


def test_a_place_that_cannot_be_written_is_one_sentence(segmentation, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for write in (write_volumes, write_label_map):
        with pytest.raises(ImageError, match="could not be written"):
            write(segmentation, tmp_path / "file" / "x.nii.gz")
