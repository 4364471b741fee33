"""Packs the API names that the lint and the stand-in need into `slicer-api.json.xz`.

    python Testing/slicer/facts/make_facts.py FOLDER

FOLDER holds four JSON files of names that were read from the headers and Python files of Slicer
5.8, 5.10 and 5.12 (and of the CTK commits which they pin), and from Qt 5.15:

* `slicer-qt-api.json`      properties, signals, slots, methods of CTK, qMRML and qSlicer classes
* `qt515.json`              members, properties, signals of Qt's own classes
* `mrml-names.json`         methods, enumerators and events of MRML and of module logics
* `slicer-util-names.json`  functions and classes of `slicer.util`

Run it with slicer-core and SimpleITK installed: the names of VTK's and SimpleITK's members and of
all wrapped classes are added from there, once for all versions, and what `slicer/util.py` itself
asks of `slicer.app`. What is equal in all versions is stored once. Facts only, no code.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path

VERSIONS = ("5.8", "5.10", "5.12")
RESULT = Path(__file__).with_name("slicer-api.json.xz")
ONLY_READ_IN_MACROS = ("GetBackgroundLayer", "GetForegroundLayer", "GetLabelLayer")
SHORT_TYPES = {"b": "bool", "i": "int", "d": "double", "v": "vtkIdType", "Q": "QString"}


def full_signature(signal: str) -> str:
    """`layoutChanged(i)` -> `layoutChanged(int)`: some types were left shortened."""
    name, _, arguments = signal.rstrip(")").partition("(")
    types = [SHORT_TYPES.get(a, a) for a in arguments.split(",") if a]
    return f"{name}({','.join(types)})"


def qt_class(fact: dict) -> dict:
    return {
        "base": fact["base"],
        "props": {name: kind for name, kind in sorted(fact["props"].items())},
        "signals": sorted({full_signature(s) for s in fact["signals"]}),
        "methods": sorted({*fact["slots"], *fact["invokables"]}),
        "enums": sorted(set(fact["enums"])),
    }


def shared_and_own(by_version: dict[str, dict]) -> dict:
    """Splits what is equal in all versions from what only some of them have."""
    first, *others = (by_version[v] for v in VERSIONS)
    common = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
    own = {
        version: {k: v for k, v in by_version[version].items() if k not in common}
        for version in VERSIONS
    }
    return {"common": common, "own": own}


def with_spaced_macros(by_version: dict[str, list[str]]) -> dict[str, list[str]]:
    """Adds to 5.8 what its headers declare as `vtkSetMacro (Name, int)`.

    The reader of headers missed macros with that space, which 5.10 no longer has. So a pair of
    Get and Set, or On and Off, that only 5.10 seems to have counts for 5.8 as well; a pair that is
    really new is then not noticed.
    """
    old, new = set(by_version["5.8"]), set(by_version["5.10"])
    appeared = new - old
    pairs = (("Get", "", "Set", ""), ("", "On", "", "Off"))
    missed = set(ONLY_READ_IN_MACROS)
    for name in appeared:
        for start, end, other_start, other_end in pairs:
            if name.startswith(start) and name.endswith(end):
                stem = name.removeprefix(start).removesuffix(end)
                other = f"{other_start}{stem}{other_end}"
                if other in new and other != name:
                    missed |= {name, other}
    return {**by_version, "5.8": sorted(old | missed)}


def names(by_version: dict[str, list[str]]) -> dict:
    sets = {v: set(by_version[v]) for v in VERSIONS}
    common = set.intersection(*sets.values())
    own = {v: sorted(sets[v] - common) for v in VERSIONS}
    return {"common": sorted(common), "own": own}


def wrapped_names(mrml: set[str]) -> dict[str, list[str]]:
    """Classes of VTK and MRML, and members of which no Slicer version is known.

    These are VTK's own, and those of classes whose headers were not read.
    """
    import slicer
    import vtk

    classes, members = set(), set()
    for module in (vtk, slicer):
        for name in dir(module):
            thing = getattr(module, name)
            if isinstance(thing, type) and name.startswith("vtk"):
                classes.add(name)
                public = {m for m in dir(thing) if not m.startswith("_")}
                members |= public if module is vtk else public - mrml
    return {"classes": sorted(classes), "members": sorted(members), "vtk": sorted(dir(vtk))}


def itk_names() -> list[str]:
    """Public members of SimpleITK and of its classes."""
    import SimpleITK as sitk

    things = [sitk, *(t for t in vars(sitk).values() if isinstance(t, type))]
    return sorted({name for thing in things for name in dir(thing) if name[0].isupper()})


def application_names() -> list[str]:
    """Attributes of `slicer.app` that Slicer's own Python uses."""
    import slicer

    text = (Path(slicer.__path__[0]) / "util.py").read_text(encoding="utf-8")
    return sorted(set(re.findall(r"\bslicer\.app\.(\w+)", text)))


def main(folder: Path) -> None:
    def read(name: str) -> dict:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    widgets = {
        version: {name: qt_class(fact) for name, fact in facts.items()}
        for version, facts in read("slicer-qt-api.json").items()
        if version in VERSIONS
    }
    facts = {
        "source": "headers of Slicer 5.8, 5.10, 5.12 with their CTK; Qt 5.15; slicer-core",
        "versions": VERSIONS,
        "widgets": shared_and_own(widgets),
        "qt": read("qt515.json"),
        "mrml": names(with_spaced_macros(read("mrml-names.json"))),
        "util": names(read("slicer-util-names.json")),
        "wrapped": {
            **wrapped_names(set(read("mrml-names.json")["main"])),
            "itk": itk_names(),
            "application": application_names(),
        },
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    RESULT.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{RESULT.name}: {RESULT.stat().st_size / 1000:.0f} kB from {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
