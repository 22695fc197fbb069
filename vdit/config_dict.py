"""Configs from nested dictionaries, such as ml_collections' or JSON's, and back."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from vdit.config import Config
from vdit.errors import UserError


def build(values: Mapping[str, Any], cls: type = Config, prefix: str = "") -> Any:
    """Turns a ConfigDict (or any nested mapping) into a validated dataclass.

    Args:
      values: fields by name; missing fields take their default.
      cls: the dataclass to build.
      prefix: dotted path of `values`, for messages.

    Raises:
      UserError: for an unknown field or a value of another type.
    """
    fields = _types(cls)
    out = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(fields)}"
            raise UserError(f"unknown config field {path}; {hint}")
        out[name] = _convert(path, value, fields[name])
    return cls(**out)


_types = functools.cache(typing.get_type_hints)  # slow, and the same for every run of a sweep


def section_of(kind: Any) -> type | None:
    """The dataclass of a field of this type, which may be optional (`Section | None`); None for plain fields."""
    if isinstance(kind, types.UnionType):
        kind = typing.get_args(kind)[0]
    return typing.cast(type, kind) if dataclasses.is_dataclass(kind) else None


def _convert(path: str, value: Any, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        return _convert(path, value, section_of(kind)) if value else None
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(
                f"config field {path}={value!r} should hold the fields {', '.join(_types(typing.cast(type, kind)))}"
            )
        return build(value, typing.cast(type, kind), f"{path}.")
    if typing.get_origin(kind) is tuple:
        items = (value,) if isinstance(value, (str, int, float)) else value
        if not isinstance(items, (tuple, list)):
            raise UserError(f"config field {path}={value!r} should be a list of {typing.get_args(kind)[0].__name__}")
        return tuple(_convert(path, item, typing.get_args(kind)[0]) for item in items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise UserError(f"config field {path} is a number of {len(str(value))} digits, too large") from error
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"config field {path}={value!r} should be of type {kind.__name__}")
    if kind is float and math.isnan(value):
        raise UserError(f"config field {path} is nan, which is not a number")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The nested plain dictionary of a config, as written into a workdir."""
    return dataclasses.asdict(config)
