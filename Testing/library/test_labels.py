from __future__ import annotations

import json

import numpy as np
import pytest

from DistillSegLib.errors import PackageError
from DistillSegLib.labels import PALETTE, Label, LabelTable, label_table, terminology_entry
from DistillSegLib.records import from_dict, to_dict

RED = (255, 0, 0)


def table(*values: int) -> LabelTable:
    return LabelTable(tuple(Label(value, f"structure {value}", RED) for value in values))


@pytest.mark.parametrize("value", [0, -1, 65536])
def test_a_value_outside_the_range_of_label_maps_is_refused(value):
    with pytest.raises(ValueError, match=f"has the value {value}; use 1 to 65535"):
        Label(value, "liver", RED)


@pytest.mark.parametrize("color", [(256, 0, 0), (0, -1, 0), (0, 0), (0, 0, 0, 0)])
def test_a_colour_that_is_none_is_refused(color):
    with pytest.raises(ValueError, match="has the colour"):
        Label(1, "liver", color)


@pytest.mark.parametrize("values", [(1, 1), (2, 1)])
def test_values_that_repeat_or_descend_are_refused(values):
    with pytest.raises(ValueError, match="must ascend without repetition"):
        table(*values)


def test_background_counts_as_a_class_but_is_not_listed():
    assert table(1, 5).classes == 3
    assert [label.value for label in table(1, 5)] == [1, 5]
    assert len(table(1, 5)) == 2


def test_class_indices_become_label_values():
    classes = np.array([[0, 1], [2, 2]])
    assert table(4, 205).decode(classes).tolist() == [[0, 4], [205, 205]]


def test_label_values_become_class_indices():
    values = np.array([[0, 4], [205, 205]], np.int16)
    assert table(4, 205).encode(values).tolist() == [[0, 1], [2, 2]]


@pytest.mark.parametrize(
    ("values", "dtype"), [((1, 255), np.uint8), ((1, 256), np.uint16), ((65535,), np.uint16)]
)
def test_label_maps_take_the_smallest_type_that_holds_every_value(values, dtype):
    classes = np.arange(len(values) + 1)
    decoded = table(*values).decode(classes)
    assert decoded.dtype == dtype
    assert decoded.tolist() == [0, *values]
    assert table(*values).encode(decoded).tolist() == classes.tolist()


@pytest.mark.parametrize("stranger", [3, -1, 70000])
def test_a_value_that_the_table_does_not_know_is_named(stranger):
    with pytest.raises(ValueError, match=rf"values \[{stranger}\]"):
        table(1, 5).encode(np.array([0, 1, stranger], np.int32))


def test_an_empty_table_knows_background_only():
    empty = LabelTable(())
    assert empty.classes == 1
    assert empty.encode(np.zeros((2, 2), np.uint8)).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="does not know"):
        empty.encode(np.ones(1, np.uint8))


def test_whole_numbers_stored_as_floats_are_encoded():
    assert table(2, 4).encode(np.array([0.0, 4.0, 2.0])).tolist() == [0, 2, 1]


def test_a_mask_is_encoded_as_the_label_one():
    assert table(1, 4).encode(np.array([[False, True]])).tolist() == [[0, 1]]


def test_a_fraction_is_no_label():
    with pytest.raises(ValueError, match="does not know"):
        table(1, 2).encode(np.array([0.0, 1.5]))


def test_an_empty_map_encodes_to_an_empty_map():
    assert table(1).encode(np.zeros((0, 3), np.uint8)).shape == (0, 3)


def test_a_table_from_names_sorts_and_skips_background():
    made = label_table({2: "Posterior", 0: "background", 1: "Anterior"})
    assert [(label.value, label.name) for label in made] == [(1, "Anterior"), (2, "Posterior")]


def test_colours_start_again_when_the_palette_ends():
    made = label_table({value: str(value) for value in range(1, len(PALETTE) + 2)})
    assert made.labels[-1].color == made.labels[0].color == PALETTE[0]


def test_neighbouring_colours_differ():
    assert len(set(PALETTE)) == len(PALETTE)


def test_terminology_has_the_seven_fields_of_slicer():
    entry = terminology_entry(("SCT", "10200004", "Liver"), modifier=("SCT", "24028007", "Right"))
    fields = entry.split("~")
    assert fields == [
        "Segmentation category and type - DICOM master list",
        "SCT^123037004^Anatomical Structure",
        "SCT^10200004^Liver",
        "SCT^24028007^Right",
        "Anatomic codes - DICOM master list",
        "^^",
        "^^",
    ]


def test_a_table_survives_json():
    entry = terminology_entry(("SCT", "5366008", "Hippocampus"))
    known = LabelTable((Label(1, "Hippocampus", (1, 2, 3), entry), Label(7, "Rest", RED)))
    assert from_dict(LabelTable, json.loads(json.dumps(to_dict(known)))) == known


def test_a_bad_table_in_a_file_is_refused_with_its_place():
    data = {"labels": [{"value": 0, "name": "x", "color": [0, 0, 0]}]}
    with pytest.raises(PackageError, match=r"labels\[0\] \(Label\): label 'x' has the value 0"):
        from_dict(LabelTable, data, error=PackageError)
