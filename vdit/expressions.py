"""Conditions on numbers that users write, such as `motion > 0.1 and height >= 256`: read without running anything."""

from __future__ import annotations

import ast
import dataclasses
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vdit.errors import UserError

LONGEST = 1000
"""Characters of an expression."""

_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclasses.dataclass(frozen=True)
class Condition:
    """A condition on named numbers; made by `parse_condition`.

    Attributes:
      text: as it was written.
      flag: the field or flag that it was given for.
      names: of the numbers.
    """

    text: str
    flag: str
    names: tuple[str, ...]

    def __call__(self, values: Mapping[str, Any]) -> np.ndarray:
        """Whether it holds, for each entry of the values, which are broadcast; of NaN no comparison but != holds.

        Raises:
          UserError: naming a value that is not there, and those that are.
        """
        if missing := [name for name in self.names if name not in values]:
            there = ", ".join(sorted(values)) or "none"
            raise UserError(f"{self.flag}={self.text!r}: there is no {missing[0]!r}; there are {there}")
        tree = ast.parse(self.text, mode="eval").body
        with np.errstate(all="ignore"):
            return np.asarray(_truth(tree, values))


def parse_condition(text: str, flag: str) -> Condition:
    """Reads a condition: comparisons of numbers and names with + - * / and parentheses, joined by and, or and not.

    Args:
      text: what the user wrote.
      flag: the field or flag it was given for, for errors.

    Raises:
      UserError: saying what cannot be read.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST} characters")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd literals
            tree = ast.parse(text.strip(), mode="eval").body
        names: dict[str, None] = {}
        _check(tree, names, is_condition=True)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise UserError(
            f"{flag}={text[:100]!r} is not a condition such as 'motion > 0.1 and height >= 256' ({reason})"
        ) from error
    return Condition(text.strip(), flag, tuple(names))


def _check(node: ast.expr, names: dict[str, None], is_condition: bool) -> None:
    """Raises ValueError for anything but a condition, or a number, of the known parts; collects the names."""
    match node:
        case ast.BoolOp() if is_condition:
            parts = node.values
        case ast.UnaryOp(op=ast.Not()) if is_condition:
            parts = [node.operand]
        case ast.Compare() if is_condition and all(type(op) in _COMPARE for op in node.ops):
            parts, is_condition = [node.left, *node.comparators], False
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()) if not is_condition:
            parts = [node.operand]
        case ast.BinOp() if not is_condition and type(node.op) in _ARITHMETIC:
            parts = [node.left, node.right]
        case ast.Constant() if not is_condition and _is_number(node.value):
            parts = []
        case ast.Name() if not is_condition:
            names[node.id], parts = None, []
        case _:
            what = ast.unparse(node)[:40] if not isinstance(node, ast.Constant) else repr(node.value)[:40]
            raise ValueError(f"{what} is no {'comparison' if is_condition else 'number, name, sum or product'}")
    for part in parts:
        _check(part, names, is_condition)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)  # type: ignore[arg-type,operator]


def _truth(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.BoolOp():
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            found = _truth(node.values[0], values)
            for part in node.values[1:]:
                found = join(found, _truth(part, values))
            return found
        case ast.UnaryOp():
            return np.logical_not(_truth(node.operand, values))
        case ast.Compare():
            numbers = [_number(part, values) for part in (node.left, *node.comparators)]
            pairs = zip(node.ops, numbers[:-1], numbers[1:], strict=True)
            return np.logical_and.reduce(np.broadcast_arrays(*(_COMPARE[type(op)](a, b) for op, a, b in pairs)))
    raise AssertionError(node)


def _number(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return np.float64(node.value)  # type: ignore[arg-type]
        case ast.Name():
            return np.asarray(values[node.id], np.float64)
        case ast.UnaryOp():
            number = _number(node.operand, values)
            return -number if isinstance(node.op, ast.USub) else number
        case ast.BinOp():
            return _ARITHMETIC[type(node.op)](_number(node.left, values), _number(node.right, values))
    raise AssertionError(node)
