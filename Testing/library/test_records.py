from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from DistillSegLib.errors import DistillSegError, PackageError, RecipeError
from DistillSegLib.records import from_dict, nearest, to_dict


@dataclass(frozen=True)
class Clip:
    low: float
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}.")


@dataclass(frozen=True)
class Largest:
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Small:
    labels: tuple[int, ...]
    volume_ml: float


@dataclass(frozen=True)
class Plan:
    name: str
    epochs: int = 1
    fast: bool = False
    mode: Literal["ct", "mr"] = "ct"
    version: Literal[1] = 1
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    clips: tuple[Clip, ...] = ()
    steps: tuple[Largest | Small, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    parts: dict[str, Clip] = field(default_factory=dict)
    limit: float | None = None
    threads: int | Literal["auto"] = "auto"
    source: str | Clip = ""
    settings: dict[str, Any] = field(default_factory=dict)


def refusal(data, cls=Plan) -> str:
    with pytest.raises(RecipeError) as caught:
        from_dict(cls, data)
    return str(caught.value)


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    message = refusal({"name": "a", "epoch": 3})
    assert "Plan has no field 'epoch'" in message
    assert "did you mean 'epochs'?" in message


def test_an_unknown_key_like_no_other_lists_the_known_ones():
    message = refusal({"low": 0, "zzz": 3}, Clip)
    assert "did you mean" not in message
    assert "Known: low, high." in message


def test_a_missing_value_is_named():
    assert refusal({}) == "Plan lacks the field 'name'; add it."


def test_a_place_deep_inside_is_named():
    message = refusal({"name": "a", "clips": [{"low": 0}, {"low": 0, "hihg": 1}]})
    assert message.startswith("clips[1] (Clip) has no field 'hihg'; did you mean 'high'?")


def test_a_place_in_a_table_is_named():
    assert refusal({"name": "a", "weights": {"kd": "x"}}).startswith("weights.kd must be of type")
    assert refusal({"name": "a", "parts": {"b": {}}}).startswith("parts.b (Clip) lacks")


def test_the_place_of_the_record_in_its_file_is_prefixed():
    with pytest.raises(RecipeError, match=r"^stages\[2\]\.epochs must be of type int"):
        from_dict(Plan, {"name": "a", "epochs": "3"}, where="stages[2]")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3),
        ("name", None),
        ("epochs", 1.5),
        ("epochs", True),
        ("fast", 1),
        ("mode", "pet"),
        ("version", True),
        ("version", 1.0),
        ("spacing_mm", [1.0, 1.0]),
        ("spacing_mm", 1.0),
        ("spacing_mm", "abc"),
        ("spacing_mm", [1.0, 1.0, True]),
        ("clips", {"low": 0}),
        ("weights", [1.0]),
        ("limit", "none"),
        ("limit", 10**400),
        ("threads", "many"),
        ("source", 3),
        ("steps", [{"labels": [1]}]),
        ("steps", [{"kind": ["Small"], "labels": [1]}]),
        ("steps", [3]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_place(key, value):
    message = refusal({"name": "a", key: value})
    assert message.startswith(key)
    assert "\n" not in message


def test_data_that_is_no_table_is_refused():
    assert "must be a table of settings, found list" in refusal([1, 2])
    assert "found NoneType" in refusal(None)


def test_a_key_that_is_no_text_is_refused():
    assert "has no field '1'" in refusal({"name": "a", 1: 2})


def test_a_check_of_the_record_itself_is_reported_with_its_place():
    message = refusal({"name": "a", "clips": [{"low": 3, "high": 2}]})
    assert message == "clips[0] (Clip): low 3.0 is above high 2.0."


def test_the_caller_chooses_the_error():
    with pytest.raises(PackageError):
        from_dict(Plan, {}, error=PackageError)


def test_a_whole_number_is_read_as_a_float_where_one_is_wanted():
    clip = from_dict(Clip, {"low": 0, "high": 2})
    assert isinstance(clip.low, float)
    assert clip == Clip(0.0, 2.0)


def test_lists_become_tuples():
    plan = from_dict(Plan, {"name": "a", "spacing_mm": [3, 2, 1]})
    assert plan.spacing_mm == (3.0, 2.0, 1.0)


def test_a_union_of_records_is_told_apart_by_kind():
    plan = from_dict(
        Plan, {"name": "a", "steps": [{"kind": "Small", "labels": [2], "volume_ml": 1}]}
    )
    assert plan.steps == (Small((2,), 1.0),)
    assert "did you mean 'Small'?" in refusal({"name": "a", "steps": [{"kind": "small"}]})


def test_a_misspelt_key_of_a_record_beside_text_is_still_named():
    message = refusal({"name": "a", "source": {"low": 0, "hgh": 1}})
    assert message.startswith("source (Clip) has no field 'hgh'; did you mean 'high'?")


def test_a_choice_of_types_names_them_all():
    message = refusal({"name": "a", "threads": "many"})
    assert "of type int" in message
    assert "Known: auto." in message


def test_nothing_stands_for_an_optional_value_only():
    assert from_dict(Plan, {"name": "a", "limit": None}).limit is None
    assert refusal({"name": "a", "epochs": None}).startswith("epochs must be of type int")


def test_a_long_value_is_shortened_in_the_message():
    assert len(refusal({"name": ["x" * 10_000]})) < 200


def test_free_settings_pass_as_they_are():
    settings = {"width": [1, 2], "deep": {"x": None}}
    assert from_dict(Plan, {"name": "a", "settings": settings}).settings == settings


def test_numpy_numbers_become_plain_ones():
    plan = Plan("a", epochs=np.int64(3), limit=np.float32(0.5), weights={"kd": np.float64(2)})
    assert json.loads(json.dumps(to_dict(plan)))["limit"] == 0.5
    assert from_dict(Plan, to_dict(plan)) == plan


def test_flags_stay_flags():
    assert to_dict(Plan("a", fast=True))["fast"] is True


def test_nearest_needs_no_list():
    assert (
        nearest("tow", (name for name in ("one", "two"))) == "did you mean 'two'? Known: one, two."
    )


def test_every_error_is_one_family():
    for error in (RecipeError, PackageError):
        assert issubclass(error, DistillSegError)


numbers = st.floats(allow_nan=False, width=32)
clips = st.builds(Clip, low=st.floats(-9, 0), high=st.floats(1, 9))
labels = st.lists(st.integers(1, 9)).map(tuple)
plans = st.builds(
    Plan,
    name=st.text(),
    epochs=st.integers(),
    fast=st.booleans(),
    mode=st.sampled_from(["ct", "mr"]),
    spacing_mm=st.tuples(numbers, numbers, numbers),
    clips=st.lists(clips).map(tuple),
    steps=st.lists(st.builds(Largest, labels) | st.builds(Small, labels, numbers)).map(tuple),
    weights=st.dictionaries(st.text(), numbers),
    parts=st.dictionaries(st.text(), clips),
    limit=st.none() | numbers,
    threads=st.integers() | st.just("auto"),
    source=st.text() | clips,
)


@settings(deadline=None)
@given(plans)
def test_a_record_survives_json(plan):
    assert from_dict(Plan, json.loads(json.dumps(to_dict(plan)))) == plan


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*Plan.__dataclass_fields__, "kind", "x"]), inner)
    ),
)


@settings(deadline=None)
@given(plain)
def test_any_data_gives_a_record_or_a_sentence(data):
    try:
        assert isinstance(from_dict(Plan, data), Plan)
    except RecipeError as refused:
        assert str(refused)
