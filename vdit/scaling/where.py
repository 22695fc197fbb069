"""Conditions on runs, such as `tokens/params > 1 and loss < 5`: arithmetic and comparisons of columns, nothing else."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vdit.errors import UserError

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
_LONGEST = 500  # characters


class _Missing(Exception):
    """A run does not have a column."""


def select(runs: Sequence[Mapping[str, Any]], condition: str) -> list[bool]:
    """Which runs meet a condition; a run without one of its columns does not.

    Args:
      runs: with columns by name.
      condition: of + - * / **, < <= > >= == !=, and, or, not, numbers, quoted words and names of columns.

    Raises:
      UserError: if it is none, or names a column that no run has.
    """
    try:
        tree = ast.parse(condition.strip(), mode="eval").body if len(condition) <= _LONGEST else None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"--where={condition!r} is not a condition; write one such as tokens/params > 1") from error
    if tree is None:
        raise UserError(f"--where has {len(condition)} characters, more than {_LONGEST}")
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known = {name for run in runs for name in run}
    if named - known:
        missing, there = ", ".join(sorted(named - known)), ", ".join(sorted(known))
        raise UserError(f"--where={condition!r}: no run has {missing}; they have {there}")
    return [_holds(tree, run, condition) for run in runs]


def _holds(tree: ast.expr, run: Mapping[str, Any], condition: str) -> bool:
    try:
        return bool(_value(tree, run))
    except _Missing:
        return False
    except ArithmeticError:
        return False
    except (TypeError, KeyError) as error:
        raise UserError(
            f"--where={condition!r}: only + - * / ** of numbers, comparisons, and, or, not and columns are understood"
        ) from error


def _value(node: ast.expr, run: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return node.value
        case ast.Name():
            if node.id not in run:
                raise _Missing
            return run[node.id]
        case ast.BinOp():
            left, right = _value(node.left, run), _value(node.right, run)
            # Floats, as huge whole powers would take for ever and words could be multiplied.
            return _BINARY[type(node.op)](*(_number(side) for side in (left, right)))
        case ast.UnaryOp(op=ast.USub()):
            return -_number(_value(node.operand, run))
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, run)
        case ast.BoolOp(op=ast.And()):
            return all(_value(part, run) for part in node.values)
        case ast.BoolOp(op=ast.Or()):
            return any(_value(part, run) for part in node.values)
        case ast.Compare():
            sides = [_value(part, run) for part in (node.left, *node.comparators)]
            pairs = zip(node.ops, sides[:-1], sides[1:], strict=True)
            return all(_COMPARE[type(op)](left, right) for op, left, right in pairs)
    raise TypeError(type(node).__name__)


def _number(value: Any) -> float:
    if isinstance(value, (bool, int, float)):
        return float(value)
    raise TypeError(type(value).__name__)
