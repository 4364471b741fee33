"""Other names for the same structures: DICOM's meanings, and TG-263 as radiotherapy uses it.

TG-263: Mayo et al., AAPM report 263, 2018. Only names that the report defines for a whole structure
are given; what it does not define, such as a part, keeps the name that the model gave.
"""

from __future__ import annotations

from dataclasses import replace

from DistillSegLib.labels import Label, LabelTable

SCHEMES = ("model", "standard", "tg263")

LEFT, RIGHT = "7771000", "24028007"  # SNOMED CT

# SNOMED CT's code of a structure -> its name; "{}" takes the side.
TG263 = {
    "10200004": "Liver",
    "12738006": "Brain",
    "15776009": "Pancreas",
    "15825003": "A_Aorta",
    "15926001": "Brainstem",
    "2748008": "SpinalCord",
    "28231008": "Gallbladder",
    "32849002": "Esophagus",
    "34402009": "Rectum",
    "38848004": "Duodenum",
    "39607008": "Lung_{}",
    "41216001": "Prostate",
    "44567001": "Trachea",
    "45289007": "Parotid_{}",
    "5366008": "Hippocampus_{}",
    "64033007": "Kidney_{}",
    "69695003": "Stomach",
    "78961009": "Spleen",
    "80891009": "Heart",
    "89837001": "Bladder",
}


def renamed(labels: LabelTable, scheme: str) -> LabelTable:
    """A table with the names of a scheme, where it has one for the structure.

    Args:
        scheme: "model" changes nothing; "standard" is the meaning of the DICOM code, with that of
            its modifier; "tg263" is the name in AAPM's report.
    """
    name = {"model": _own, "standard": _standard, "tg263": _tg263}[scheme]
    table = LabelTable(tuple(replace(label, name=name(label) or label.name) for label in labels))
    names = [label.name for label in table]
    # Two structures of one name could not be told apart any more.
    return table if len(set(names)) == len(names) else labels


def _own(label: Label) -> str:
    return label.name


def _standard(label: Label) -> str:
    (_, _, meaning), (_, _, modifier) = _codes(label)
    return f"{meaning}, {modifier.lower()}" if meaning and modifier else meaning


def _tg263(label: Label) -> str:
    (scheme, code, _), (_, modifier, _) = _codes(label)
    name = TG263.get(code, "") if scheme == "SCT" else ""
    side = {LEFT: "L", RIGHT: "R"}.get(modifier, "")
    if bool(modifier) != bool(side) or ("{}" in name) != bool(side):
        return ""  # a part, or a side of what has none
    return name.format(side)


def _codes(label: Label) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(scheme, value, meaning) of a structure's type and of its modifier; empty where absent."""
    fields = [(*field.split("^"), "", "", "")[:3] for field in label.terminology.split("~")]
    fields += [("", "", "")] * 4
    return fields[2], fields[3]
