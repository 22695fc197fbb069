"""Tables of runs from files of any project: csv and its relatives, JSON lines, parquet, exports of wandb."""

from __future__ import annotations

import ast
import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdit.errors import UserError
from vdit.scaling.columns import amount, held_out_column, is_perplexity, kinds_of, recognise

Run = dict[str, Any]
MOST_ROWS = 5_000  # nobody has finished more runs: such a table holds training curves
_TEXT = ("run", "kind", "state")
_UNFINISHED = ("crashed", "failed", "killed", "running", "preempted", "preempting", "error", "canceled", "cancelled")


@dataclasses.dataclass(frozen=True)
class Runs:
    """A file of runs.

    Attributes:
      runs: with canonical columns beside all others.
      notes: what was taken for what, and which rows were left out, a line each.
    """

    runs: list[Run]
    notes: tuple[str, ...]


def read_runs(path: str | Path, columns: Mapping[str, str] | None = None) -> Runs:
    """Reads a table of runs; what needs no guess (the columns flops, params, tokens, loss) makes no note.

    Args:
      path: csv, tsv, any of them parted by ";" or "|", JSON lines or a JSON list, or parquet.
      columns: canonical name -> name in the file, for columns that are not recognised by themselves.

    Raises:
      UserError: if it cannot be read, has too many rows, or lacks a loss, or two of params, tokens and flops; then
        it lists the columns that are there.
    """
    rows, names, decimal_comma = _rows(Path(path))
    if len(rows) > MOST_ROWS:
        raise UserError(
            f"{path} has {len(rows):,} rows, more than {MOST_ROWS:,}: give final losses, one row a run (not training"
            " curves), or fewer of them"
        )
    found = recognise(names, columns)
    _check(path, found, names)
    taken = {name for name, _ in found.values()}
    if "kind" not in found and (name := held_out_column(rows, [name for name in names if name not in taken])):
        found["kind"] = name, 1.0
    column = found["kind"][0] if "kind" in found else ""
    kinds = kinds_of([row.get(column) for row in rows], column) if column else []
    runs: list[Run] = []
    unfinished: list[str] = []
    for place, row in enumerate(rows):
        run = _run(row, found, decimal_comma)
        if column and column in row:
            run["kind"] = kinds[place]
        if str(run.get("state", "")).lower() in _UNFINISHED:
            unfinished.append(str(run.get("run") or len(runs) + len(unfinished) + 1))
        else:
            runs.append(run)
    logs = is_perplexity(found["loss"][0])
    notes = [
        f"{wanted} is {'the log of' if logs and wanted == 'loss' else 'read from'} column {name}"
        + (f", times {factor:g}" if factor != 1 else "")
        for wanted, (name, factor) in found.items()
        if wanted not in ("state", "seed") and (name != wanted or factor != 1)
    ]
    if unfinished:
        notes.append(f"left out, as their state is not finished: {_few(unfinished)}")
    if "flops" not in found:
        given = "the budget" if "budget" in found and not {"params", "tokens"} <= set(found) else "6 N D"
        notes.append(f"there is no column of FLOPs: C is {given}")
    if "params" not in found:
        notes.append("there is no column of params: N is C / 6 D")
    words = [run for run in runs if "budget" in run and not isinstance(run["budget"], (int, float))]
    for run in words:
        del run["budget"]
    if words:
        notes.append("column budget holds words, not FLOPs: budgets are found from the flops")
    return Runs(runs, tuple(notes))


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _check(path: str | Path, found: Mapping[str, Any], names: list[str]) -> None:
    missing = [name for name in ("flops", "params", "loss") if name not in found]
    amounts = sum(name in found for name in ("flops", "params", "tokens"))
    if "loss" in found and (amounts >= 2 or ("budget" in found and amounts)):
        return
    raise UserError(
        f"{path} has no column {', '.join(missing)}; it needs a loss and two of params, tokens and flops. It has "
        f"{', '.join(names) or 'no columns'}; say which is which by --columns=params=NAME,loss=NAME"
    )


def _run(row: Mapping[str, Any], found: Mapping[str, tuple[str, float]], decimal_comma: bool) -> Run:
    """One row with canonical columns; empty cells are left out."""
    run: Run = {}
    for name, value in row.items():
        if name is not None and value is not None and value != "":
            run[name] = _parse(name, value, decimal_comma)
    for wanted, (name, factor) in found.items():
        if name not in run:
            continue
        value = row[name] if wanted in _TEXT else run[name]
        if factor != 1 and isinstance(value, (int, float)):
            value = value * factor
        run[wanted] = math.log(value) if wanted == "loss" and is_perplexity(name) and _positive(value) else value
    if "flops" not in run and isinstance(run.get("budget"), (int, float)) and not ("params" in run and "tokens" in run):
        run["flops"] = run["budget"]
    n, d, c = (run.get(name) for name in ("params", "tokens", "flops"))
    if c is None and _positive(n) and _positive(d):
        run["flops"] = 6 * n * d  # type: ignore[operator]
    elif n is None and _positive(c) and _positive(d):
        run["params"] = c / (6 * d)  # type: ignore[operator]
    return run


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > 0


def _parse(name: str, value: Any, decimal_comma: bool) -> Any:
    if name in _TEXT or not isinstance(value, str):
        return value
    number = amount(value, decimal_comma)
    if number is None:
        return value
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _rows(path: Path) -> tuple[list[Mapping[str, Any]], list[str], bool]:
    """Rows, names of the columns, and whether numbers may have decimal commas."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file of finished runs") from error
    if content[:4] == b"PAR1":
        return _parquet(path)
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as csv ({error}); save it as UTF-8") from error
    start = text.lstrip()[:1]
    if start in ("{", "["):
        return _json(path, text)
    lines = [line for line in io.StringIO(text, newline="") if not line.startswith("#")]
    if lines and re.fullmatch(r"sep=.\s*", lines[0]):  # Excel's note on what parts the columns
        del lines[0]
    header = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t|", key=header.count)
    try:
        reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True)
        rows = [row for row in reader if any(row.values())]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as csv ({error}); give a file of finished runs") from error
    names = [name.strip() for name in reader.fieldnames or [] if name.strip()]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{path} has several columns named {', '.join(twice)}; rename them")
    cleaned = [
        _opened({key.strip(): value for key, value in row.items() if key and isinstance(value, str)}) for row in rows
    ]
    names += [name for row in cleaned for name in row if name not in names]
    return list(cleaned), list(dict.fromkeys(names)), delimiter == ";"


def _opened(row: Mapping[str, str]) -> dict[str, Any]:
    """A row whose cells may hold whole dictionaries, as the tables do that wandb's guide to exports makes."""
    opened: dict[str, Any] = {}
    for name, value in row.items():
        inner = _dictionary(value) if value[:1] == "{" else None
        opened |= {name: value} if inner is None else _flat(inner, f"{name}/")
    return opened


def _dictionary(text: str) -> dict[str, Any] | None:
    """A dictionary in JSON or as Python prints it; None where it is neither."""
    for read in (json.loads, lambda text: ast.literal_eval(re.sub(r"-?\b(?:nan|inf)\b", "None", text))):
        try:
            found = read(text)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, dict) else None
    return None


def _json(path: Path, text: str) -> tuple[list[Mapping[str, Any]], list[str], bool]:
    try:
        if text.lstrip().startswith("["):
            items = json.loads(text)
        else:
            items = [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON lines ({error}); give one object a line") from error
    if not all(isinstance(item, dict) for item in items):
        raise UserError(f"{path} holds JSON values that are no objects; give one object a line")
    rows = [_flat(item) for item in items]
    return list(rows), list(dict.fromkeys(name for row in rows for name in row)), False


def _flat(item: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as wandb names them: {"val": {"loss": 1}} is val/loss; its {"value": 1, "desc": null} is 1."""
    flat: dict[str, Any] = {}
    for name, value in item.items():
        if isinstance(value, Mapping) and "value" in value and set(value) <= {"value", "desc"}:
            value = value["value"]
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (str, int, float, bool)):
            flat[f"{prefix}{name}"] = value
    return flat


def _parquet(path: Path) -> tuple[list[Mapping[str, Any]], list[str], bool]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(f"{path} is parquet, which needs pyarrow (pip install pyarrow), or save it as csv") from error
    try:
        file = parquet.ParquetFile(path)
        count = file.metadata.num_rows
        if count > MOST_ROWS:
            return [{}] * count, file.schema_arrow.names, False
        table = file.read()
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise UserError(f"{path} cannot be read as parquet ({error}); save it as csv") from error
    rows = [_flat(row) for row in table.to_pylist()]
    return list(rows), list(dict.fromkeys(name for row in rows for name in row)), False
