"""A MONAI bundle as a teacher: its network, its weights, and what its preprocessing says.

Only `network_def` is built, by MONAI's ConfigParser. This runs the code that the bundle names, so
take bundles from whom you trust. The preprocessing is read, not run: our images must be as it makes
them, and what cannot be compared is said in the rehearsal.

MONAI's arrays run along x, y, z of the orientation that the bundle asks for; ours along z, y, x of
the plan's. The axes are turned on the way in and back on the way out, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from torch import nn

from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.training.foreign import Foreign, load_weights

CONFIGS = ("inference.json", "inference.yaml", "inference.yml", "train.json", "train.yaml")
WEIGHTS = "models/model.pt"
# Transforms that change neither place nor values, and those that only cut out a part.
HARMLESS = {"LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord", "CastToTyped"}


def bundle_teacher(
    folder: str,
    classes: tuple[int, ...],
    taps: Mapping[str, str],
    channels: int,
    labels: LabelTable,
    preprocessing: Preprocessing | None = None,
) -> Foreign:
    """The bundle's network as a frozen role.

    Raises:
        RecipeError: no bundle, weights of another network, other channels, structures, spacing or
            intensities than ours.
    """
    name, root = f"The bundle '{folder}'", Path(folder)
    parser = _parser(root, name)
    net = _network(parser, name)
    load_weights(net, root / WEIGHTS, name)
    _check_channels(_described(parser, "inputs", "image"), channels, name)
    named = _described(parser, "outputs", "pred", "channel_def")
    classes, notes = _classes(named, classes, labels, name)
    read = _Read(parser)
    axes, flipped = (2, 1, 0), []
    if preprocessing:
        axes, flipped = turned(read.orientation or preprocessing.orientation, preprocessing)
        _check_spacing(read, preprocessing, name)
        _check_intensity(read, preprocessing, name)
    notes += [f"{name}: {each} could not be checked." for each in read.unknown]
    return Foreign(name, net, classes=classes, paths=taps, axes=axes, flipped=flipped, notes=notes)


def turned(code: str, preprocessing: Preprocessing) -> tuple[tuple[int, int, int], list[int]]:
    """How an array along the axes of `code`, first letter first, lies in one of ours.

        turned("RAS", a preprocessing to "LPS") -> (2, 1, 0), [0, 1]

    Returns:
        Which of our axes (0 = z) is its first, second and third; those of its axes that run
        against ours.

    Raises:
        RecipeError: ours follow the slices, which lie differently in each patient.
    """
    if preprocessing.orientation == "slices":
        raise RecipeError(
            f"A bundle sees images along the patient's axes ({code}), the plan follows the slices; "
            f"give plan.orientation = '{code}'."
        )
    axes, flipped = [], []
    for number, letter in enumerate(code):
        pair = next(pair for pair in ("LR", "PA", "SI") if letter in pair)
        place = next(i for i, ours in enumerate(preprocessing.orientation) if ours in pair)
        axes.append(2 - place)
        if preprocessing.orientation[place] != letter:
            flipped.append(number)
    return tuple(axes), flipped


class _Read:
    """What a bundle's list of transforms says about the images.

    Attributes:
        spacing_mm: along its x, y and z; None if it does not resample.
        orientation: "" if it takes the axes as they are stored.
        intensity: as ours would be; None if it is not one of ours.
        unknown: what could not be read, in words.
    """

    def __init__(self, parser: ConfigParser):
        self.spacing_mm: tuple[float, ...] | None = None
        self.orientation, self.intensity = "", None
        self.unknown: list[str] = []
        scaled = False
        for kind, settings in _transforms(parser):
            if kind == "Spacingd":
                self.spacing_mm = _numbers(settings.get("pixdim"))
            elif kind == "Orientationd":
                self.orientation = str(settings.get("axcodes", ""))
            elif kind in ("ScaleIntensityRanged", "NormalizeIntensityd"):
                scaled = True
                self.intensity = _intensity(kind, settings)
                if self.intensity is None:
                    self.unknown.append(f"the intensities ({kind} with {settings})")
            elif kind not in HARMLESS:
                self.unknown.append(f"its preprocessing step '{kind}'")
        if sorted("LRPASI".find(letter) // 2 for letter in self.orientation) != [0, 1, 2]:
            self.orientation = ""
            self.unknown.append("the orientation (it takes the axes as they are stored)")
        if self.spacing_mm is None or len(self.spacing_mm) != 3:
            self.spacing_mm = None
            self.unknown.append("the spacing (it does not resample, or not to a fixed one)")
        if not scaled:
            self.unknown.append("the intensities (its preprocessing names no scaling that we know)")


def _transforms(parser: ConfigParser) -> Iterator[tuple[str, dict[str, Any]]]:
    steps = parser.get("preprocessing")
    steps = steps.get("transforms") if isinstance(steps, Mapping) else steps
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, Mapping) and not step.get("_disabled_"):
            settings = {key: _plain(parser, value) for key, value in step.items()}
            yield str(settings.pop("_target_", "?")).rsplit(".", 1)[-1], settings


def _plain(parser: ConfigParser, value: Any) -> Any:
    """A value, or the one that "@name" refers to; expressions stay text, and are not run."""
    if isinstance(value, str) and value.startswith("@"):
        return parser.get(value[1:].replace("::", "#"), value)
    return value


def _numbers(value: Any) -> tuple[float, ...] | None:
    values = value if isinstance(value, (list, tuple)) else ()
    if values and all(isinstance(v, (int, float)) for v in values):
        return tuple(float(v) for v in values)
    return None


def _intensity(kind: str, settings: Mapping[str, Any]) -> Intensity | None:
    """The same scaling in our words; None where ours cannot say it."""
    if kind == "NormalizeIntensityd":
        plain = not (settings.get("nonzero") or settings.get("subtrahend"))
        return Intensity("image", (0.0, 100.0)) if plain else None
    ends = _numbers([settings.get(key) for key in ("a_min", "a_max", "b_min", "b_max")])
    if ends is None or not settings.get("clip"):
        return None
    low, high, first, last = ends
    std = (high - low) / (last - first)
    return Intensity("fixed", (low, high), low - first * std, std)


def _check_spacing(read: _Read, preprocessing: Preprocessing, name: str) -> None:
    if read.spacing_mm is None:
        return
    axes, _ = turned(read.orientation or preprocessing.orientation, preprocessing)
    ours = [0.0, 0.0, 0.0]
    for value, axis in zip(read.spacing_mm, axes, strict=True):
        ours[axis] = value
    if not np.allclose(ours, preprocessing.spacing_mm, rtol=0.01):
        raise RecipeError(
            f"{name} was trained on voxels of {ours} mm (z, y, x), the plan has "
            f"{list(preprocessing.spacing_mm)}; give plan.spacing_mm = {ours}."
        )


def _check_intensity(read: _Read, preprocessing: Preprocessing, name: str) -> None:
    if read.intensity is None:
        return
    for found in preprocessing.intensity:
        theirs = read.intensity
        numbers = [(i.mean, i.std, *i.clip) for i in (found, theirs)]
        fixed = theirs.scheme == "fixed"
        if not fixed:  # which leaves mean and deviation unused
            numbers = [i.clip for i in (found, theirs)]
        if found.scheme != theirs.scheme or not np.allclose(*numbers, rtol=1e-3):
            given = f'scheme = "{theirs.scheme}", clip = {list(theirs.clip)}'
            given += f", mean = {theirs.mean:g}, std = {theirs.std:g}" if fixed else ""
            raise RecipeError(
                f"{name} was trained on other intensities than the plan's ({found}); give "
                f"plan.intensity = [{{ {given} }}], once for each channel."
            )


def _parser(root: Path, name: str) -> ConfigParser:
    files = [root / "configs" / config for config in CONFIGS]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise RecipeError(
            f"{name} has no configs/inference.json or .yaml; give the folder of a MONAI bundle."
        )
    parser = ConfigParser()
    try:
        parser.read_config(str(file))
        meta = root / "configs" / "metadata.json"
        if meta.is_file():
            file = meta
            parser.read_meta(str(meta))
    except Exception as problem:  # json, yaml and MONAI raise many kinds
        raise RecipeError(
            f"{name}: '{file.name}' cannot be read ({type(problem).__name__}: {problem}); "
            "repair it."
        ) from problem
    parser["bundle_root"] = str(root)
    return parser


def _network(parser: ConfigParser, name: str) -> nn.Module:
    if parser.get("network_def") is None:
        raise RecipeError(f"{name} defines no network_def, which MONAI's bundles should.")
    try:
        net = parser.get_parsed_content("network_def")
    except Exception as problem:  # whatever the bundle's code raises
        reason = str(problem.__cause__ or problem).splitlines()[0]
        raise RecipeError(
            f"{name}: its network cannot be built ({reason}); install what it needs."
        ) from problem
    if not isinstance(net, nn.Module):
        raise RecipeError(f"{name}: network_def is a {type(net).__name__}, not a torch.nn.Module.")
    return net


def _described(parser: ConfigParser, *path: str) -> Mapping[str, Any]:
    """A table of metadata.json's network_data_format; empty where there is none."""
    found: Any = parser.get("_meta_#network_data_format", {})
    for key in path:
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _check_channels(described: Mapping[str, Any], channels: int, name: str) -> None:
    theirs = described.get("num_channels")
    if theirs not in (None, channels):
        raise RecipeError(f"{name} takes {theirs} channels, the data set has {channels}.")


def _classes(
    named: Mapping[str, Any], classes: tuple[int, ...], labels: LabelTable, name: str
) -> tuple[tuple[int, ...], list[str]]:
    """Its channel of each of our classes, and what is to be said about that."""
    if classes:
        return classes, []
    numbered = all(str(number).isdecimal() for number in named)
    theirs = {str(each).casefold(): int(n) for n, each in named.items()} if numbered else {}
    if not theirs:
        return (), [f"{name}: the order of its classes could not be checked."]
    absent = [label.name for label in labels if label.name.casefold() not in theirs]
    if absent:
        raise RecipeError(
            f"{name} knows {list(named.values())}, not '{absent[0]}'; say by classes = [0, …] "
            "which of its channels is which of ours."
        )
    background = theirs.get("background", 0)
    return (background, *(theirs[label.name.casefold()] for label in labels)), []
