"""Frozen dataclasses to plain data and back, strictly.

Manifests, recipes and checkpoints are all read through `from_dict`, so a misspelt key, a missing
value or a wrong type stops the program at the door and names the nearest thing that would be right.

    >>> from_dict(Point, {"x": 1.0, "yy": 2.0})
    RecipeError: Point has no field 'yy'; did you mean 'y'? Known: x, y.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeVar

from DistillSegLib.errors import DistillSegError, RecipeError

Record = TypeVar("Record")


def from_dict(
    cls: type[Record], data: Any, *, error: type[DistillSegError] = RecipeError, where: str = ""
) -> Record:
    """Build the dataclass `cls` from plain data (dict, list, str, int, float, bool, None).

    Nested dataclasses, tuples, mappings, `Literal`, optional fields and unions of dataclasses (told
    apart by a key `kind`, the class name) are followed.

    Args:
        error: raised on bad data; its message names the place, the key and the remedy.
        where: place of `data` in its file, such as "stages[1].optim", for messages.
    """
    if not isinstance(data, Mapping):
        raise error(f"{_at(where, cls)} must be a table of settings, found {_show(data)}.")
    hints = _hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in data:
        if key not in fields:
            raise error(f"{_at(where, cls)} has no field '{key}'; {nearest(key, fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = convert(
                hints[name], data[name], error=error, where=f"{where}.{name}".lstrip(".")
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise error(f"{_at(where, cls)} lacks the field '{name}'; add it.")
    try:
        return cls(**values)
    except ValueError as problem:
        raise error(f"{_at(where, cls)}: {problem}") from problem


def to_dict(record: Any) -> Any:
    """A dataclass as plain data (dict, list, str, int, float, bool, None); `from_dict` undoes it.

    Numbers of numpy become Python's, so that the result can always be written as JSON.
    """
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        return _plain(record, Any)
    hints = _hints(type(record))
    fields = (field for field in dataclasses.fields(record) if field.init)
    return {f.name: _plain(getattr(record, f.name), hints[f.name]) for f in fields}


def nearest(word: object, known: typing.Iterable[str]) -> str:
    """A hint for a misspelt word: "did you mean 'y'? Known: x, y."."""
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    guess = f"did you mean '{close[0]}'? " if close else ""
    return f"{guess}Known: {', '.join(names) or 'none'}."


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _at(where: str, cls: type) -> str:
    return f"{where} ({cls.__name__})" if where else cls.__name__


def _show(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _records_in(hint: Any) -> list[type]:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return []
    return [arg for arg in typing.get_args(hint) if dataclasses.is_dataclass(arg)]


def convert(hint: Any, value: Any, *, error: type[DistillSegError], where: str) -> Any:
    """A plain value as the type that `hint` names; `error` says what is wrong with it `where`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, error=error, where=where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, args, value, error, where)
    if origin is typing.Literal:
        if not any(type(value) is type(arg) and value == arg for arg in args):  # True is not 1
            raise error(f"{where} is {value!r}; {nearest(value, args)}")
        return value
    if hint is tuple or origin is tuple:
        return _convert_tuple(args, value, error, where)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise error(f"{where} must be a table, found {_show(value)}.")
        inner = args[1] if args else Any
        return {k: convert(inner, v, error=error, where=f"{where}.{k}") for k, v in value.items()}
    if not isinstance(value, (float, int) if hint is float else hint) or (
        isinstance(value, bool) and hint is not bool
    ):
        raise error(f"{where} must be of type {hint.__name__}, found {_show(value)}.")
    try:
        return float(value) if hint is float else value
    except OverflowError as problem:
        raise error(f"{where} is too large a number, {_show(value)}.") from problem


def _convert_union(hint: Any, args: tuple, value: Any, error: type[DistillSegError], where: str):
    if value is None and type(None) in args:
        return None
    records = _records_in(hint)
    if len(records) > 1:
        kinds = {record.__name__: record for record in records}
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise error(f"{where} needs a key 'kind'; {nearest(kind, kinds)}")
        rest = {k: v for k, v in value.items() if k != "kind"}
        return from_dict(kinds[kind], rest, error=error, where=where)
    if records and isinstance(value, Mapping):
        return from_dict(records[0], value, error=error, where=where)
    failures = []
    for arg in (a for a in args if a is not type(None)):
        try:
            return convert(arg, value, error=error, where=where)
        except error as failure:
            failures.append(str(failure))
    raise error(" Or: ".join(failures))


def _convert_tuple(args: tuple, value: Any, error: type[DistillSegError], where: str) -> tuple:
    if not isinstance(value, (list, tuple)):
        raise error(f"{where} must be a list, found {_show(value)}.")
    if not args or args[1:] == (Ellipsis,):
        args = (args[0] if args else Any,) * len(value)
    if len(args) != len(value):
        raise error(f"{where} must have {len(args)} entries, found {len(value)}.")
    pairs = enumerate(zip(args, value))
    return tuple(
        convert(arg, entry, error=error, where=f"{where}[{i}]") for i, (arg, entry) in pairs
    )


def _plain(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": type(value).__name__} if len(_records_in(hint)) > 1 else {}
        return kind | to_dict(value)
    if isinstance(value, Mapping):
        args = typing.get_args(hint)
        return {k: _plain(v, args[1] if len(args) == 2 else Any) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        args = [a for a in typing.get_args(hint) if a is not Ellipsis]
        hints = args if len(args) == len(value) else (args[:1] or [Any]) * len(value)
        return [_plain(v, h) for v, h in zip(value, hints)]
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)
