"""Names of structures in other nomenclatures."""

from __future__ import annotations

import pytest

from DistillSegLib.labels import Label, LabelTable, terminology_entry
from DistillSegLib.nomenclature import LEFT, RIGHT, SCHEMES, TG263, renamed

SIDES = {LEFT: "Left", RIGHT: "Right"}


def label(value: int, name: str, code: str = "", meaning: str = "", side: str = "") -> Label:
    modifier = ("SCT", side, SIDES.get(side, "Anterior")) if side else None
    entry = terminology_entry(("SCT", code, meaning), modifier=modifier) if code else ""
    return Label(value, name, (9, 9, 9), entry)


KIDNEY = "64033007"
TABLE = LabelTable(
    (
        label(1, "left kidney", KIDNEY, "Kidney", LEFT),
        label(2, "right kidney", KIDNEY, "Kidney", RIGHT),
        label(3, "leber", "10200004", "Liver"),
        label(4, "something"),
    )
)


def names(scheme: str, table: LabelTable = TABLE) -> list[str]:
    return [each.name for each in renamed(table, scheme)]


def test_each_scheme_names_what_it_knows_and_leaves_the_rest():
    assert names("model") == ["left kidney", "right kidney", "leber", "something"]
    assert names("standard") == ["Kidney, left", "Kidney, right", "Liver", "something"]
    assert names("tg263") == ["Kidney_L", "Kidney_R", "Liver", "something"]


def test_values_colours_and_terminology_stay():
    for scheme in SCHEMES:
        for old, new in zip(TABLE, renamed(TABLE, scheme), strict=True):
            assert (old.value, old.color, old.terminology) == (
                new.value,
                new.color,
                new.terminology,
            )


def test_tg_263_names_no_part_and_no_side_that_it_does_not_define():
    odd = LabelTable(
        (
            label(1, "front", "5366008", "Hippocampus", "255549009"),  # anterior
            label(2, "some kidney", KIDNEY, "Kidney"),
            label(3, "left liver", "10200004", "Liver", LEFT),
        )
    )
    assert names("tg263", odd) == ["front", "some kidney", "left liver"]


def test_names_that_would_become_equal_are_left():
    twice = LabelTable((label(1, "a", "10200004", "Liver"), label(2, "b", "10200004", "Liver")))
    assert names("tg263", twice) == ["a", "b"]


def test_tg_263_names_are_as_its_rules_demand():
    for name in TG263.values():
        filled = name.format("L")
        assert len(filled) <= 16 and filled.replace("_", "").isalnum()


def test_an_unknown_scheme_is_refused():
    with pytest.raises(KeyError):
        renamed(TABLE, "latin")
