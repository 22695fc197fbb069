"""A file of runs made ready to fit: columns recognised, conditions applied, broken rows left out, C checked."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vdit.errors import UserError
from vdit.scaling.cleaning import clean
from vdit.scaling.laws.checks.diagnose import checkpoints, contradicting_budgets, implausible_flops
from vdit.scaling.reading import Run, read_runs
from vdit.scaling.runs import Table, table
from vdit.scaling.where import select

CONVENTIONS = ("counted", "6nd")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A file of runs.

    Attributes:
      fitted, held_out: what is fitted, and what the law is judged by (None without such runs).
      runs: the fitted ones with all their columns.
      notes: what was taken for what.
      warnings: what was left out or not believed.
    """

    fitted: Table
    held_out: Table | None
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load(
    path: str | Path,
    drop_highest: int = 0,
    convention: str = "counted",
    *,
    columns: Mapping[str, str] | None = None,
    where: str = "",
) -> Loaded:
    """Reads runs; a column such as `kind` or `held_out`, if any, says which are held out.

    Args:
      path: the file.
      drop_highest: leave out so many runs of highest loss.
      convention: what C is: the column flops as "counted", or "6nd".
      columns: canonical name -> name in the file.
      where: condition on the runs; beside the file's columns it may name epochs, and N, D, C and L.

    Raises:
      UserError: if the file or --drop_highest cannot be used, or no run meets the condition.
    """
    found = read_runs(path, columns)
    runs = found.runs
    if where:
        met = select([_named(run) for run in runs], where)
        runs = [run for run, holds in zip(runs, met, strict=True) if holds]
        if not runs:
            raise UserError(f"--where={where!r} is met by none of the {len(met)} runs of {path}")
    grid = [run for run in runs if run.get("kind", "grid") == "grid"]
    held_out = [run for run in runs if run.get("kind") == "heldout"]
    notes = list(found.notes)
    if not grid:
        grid, held_out = runs, []
    elif others := Counter(str(run["kind"]) for run in runs if run.get("kind", "grid") not in ("grid", "heldout")):
        counted = ", ".join(f"{count} of kind {kind}" for kind, count in others.items())
        notes.append(f"neither fitted nor held out: {counted}")
    if not 0 <= drop_highest < max(len(grid), 1):
        raise UserError(f"--drop_highest={drop_highest} must leave runs to fit; {path} has {len(grid)}")
    grid, warnings = clean(grid)
    if not grid:
        raise UserError(f"{path} has no finished run; {'; '.join(warnings)}")
    whole = table(grid, str(path))
    kept = whole.without_highest(drop_highest)
    fitted = whole.pick(kept)
    judged_runs, lost = clean(held_out) if held_out else ([], [])
    judged = table(judged_runs, str(path)) if judged_runs else None
    warnings += [f"held-out runs: {line}" for line in lost]
    if convention == "counted" and (why := implausible_flops(fitted)):
        warnings.append(why)
        convention = "6nd"
    if convention == "6nd":
        fitted, judged = fitted.by_6nd(), judged.by_6nd() if judged else None
    if why := checkpoints(fitted):
        warnings.append(why)
    if why := contradicting_budgets(fitted):
        warnings.append(why)
        fitted = dataclasses.replace(fitted, budgets=np.full(len(fitted), np.nan))
    return Loaded(fitted, judged, tuple(grid[place] for place in kept), tuple(notes), tuple(warnings))


def _named(run: Run) -> Run:
    """A run with the short names and derived columns that conditions may use."""
    params, flops = run.get("params"), run.get("flops")
    tokens = run.get("tokens")
    if tokens is None and isinstance(params, (int, float)) and isinstance(flops, (int, float)) and params:
        tokens = flops / (6 * params)
    named = {"N": params, "D": tokens, "C": flops, "L": run.get("loss"), "tokens": tokens}
    unique = run.get("unique_tokens")
    if isinstance(unique, (int, float)) and unique and isinstance(tokens, (int, float)):
        named["epochs"] = max(tokens / unique, 0.0)
    return {**{name: value for name, value in named.items() if value is not None}, **run}
