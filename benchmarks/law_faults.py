"""Runs with one fault each, and what `vdit.scaling.fit` says of them; `benchmarks.laws --only=faults` prints it."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.law_designs import ASYMMETRIC, BESIROGLU, Design, isoflop, ladder, rectangle
from vdit.errors import UserError
from vdit.scaling.laws.extensions.repetition import RepetitionLaw
from vdit.scaling.loading import load
from vdit.scaling.reporting.fit_words import describe
from vdit.scaling.result import Asked, report

Rows = list[dict[str, Any]]
_NOISE = 0.003
_BUDGETS = np.geomspace(1e18, 3e20, 6)
_SIZES = np.geomspace(1e7, 2e9, 8)


def rows(design: Design, noise: float = _NOISE) -> Rows:
    """The runs of a design as a table has them."""
    found = design.table(noise, 0)
    names = ("flops", "params", "tokens", "loss")
    columns = (found.flops, found.params, found.tokens, found.loss)
    values = zip(*(column.tolist() for column in columns), strict=True)
    return [{"run": f"r{place}", **dict(zip(names, row, strict=True))} for place, row in enumerate(values)]


def _grid(sizes: int = 7, centre: float = 1.0, drift: float = 1.0) -> Rows:
    design = isoflop("", BESIROGLU, _BUDGETS, sizes, 4, drift)
    n = design.params * centre
    return rows(Design("", BESIROGLU, n, np.repeat(_BUDGETS, sizes) / (6 * n)))


def _with(found: Rows, places: tuple[int, ...] = (), **changed: Any) -> Rows:
    """Rows of which some, or all, have other cells."""
    return [row | changed if not places or place in places else row for place, row in enumerate(found)]


def _bent() -> Rows:
    """Sizes far above the best do worse than the law has it, as Porian et al.'s largest models."""
    short = [max(np.log(row["params"] / row["tokens"]) + 3, 0.0) for row in _grid()]
    return [row | {"loss": row["loss"] + 0.1 * lack**2} for row, lack in zip(_grid(), short, strict=True)]


def _repeated() -> Rows:
    law = RepetitionLaw(BESIROGLU, repeats=15.0, excess=5.0)
    n, epochs = (v.ravel() for v in np.meshgrid(np.geomspace(1e6, 3e7, 5), [1.0, 2.0, 4.0, 8.0, 16.0]))
    unique = np.full(len(n), 1e9)
    loss = law.loss(n, unique * epochs, unique) * np.exp(np.random.default_rng(0).normal(0, _NOISE, len(n)))
    names = ("params", "tokens", "unique_tokens", "loss")
    return [dict(zip(names, row, strict=True)) for row in zip(n, unique * epochs, unique, loss, strict=True)]


def _arms() -> Rows:
    other = isoflop("", ASYMMETRIC, _BUDGETS, 7, 4)
    return [*_with(_grid(), arm="first"), *_with(rows(other), arm="second")]


def faults() -> Iterator[tuple[str, Rows, Asked, tuple[str, ...]]]:
    """(fault, runs, what is asked for, how the lines begin that say so)."""
    plain, warning = Asked(), "warning: "
    yield "sizes off-centre by a factor 3.5", _grid(centre=3.5), plain, (warning + "grids are off",)
    yield "sizes that drift by a factor 4", _grid(drift=4.0), plain, (warning + "grids drift",)
    yield "the form of the law misses some runs", _bent(), plain, (warning + "residuals are not",)
    yield "each budget has sizes of its own", _grid(), plain, ("envelope:",)
    yield "three sizes a budget", _grid(sizes=3), plain, ("parabolas:",)
    yield "a run that diverged", _with(_grid(), (5,), loss=11.0), plain, (warning + "left out in all",)
    yield "a run without a loss", _with(_grid(), (5,), loss="nan"), plain, (warning + "left out, as",)
    yield "rows twice", [*_grid(), *_grid()[:3]], plain, (warning + "3 rows",)
    yield "a run that strays", _with(_grid(), (20,), loss=_grid()[20]["loss"] * 1.1), plain, (warning + "outliers",)
    yield "budgets that are none", _with(_grid(), budget=1e18), plain, (warning + "runs of the budget",)
    millions = [row | {"params": row["params"] / 1e6} for row in _grid()]
    yield "N in millions, unsaid", millions, plain, (warning + "flops are about",)
    yield "two sizes", rows(rectangle("", BESIROGLU, _SIZES[[2, 5]], np.geomspace(2e8, 5e10, 8))), plain, (
        warning + "A, E, alpha",
    )  # fmt: skip
    yield "one D/N at all sizes", rows(ladder("", BESIROGLU, np.geomspace(1e7, 2e9, 20), (20.0,))), plain, (
        warning + "D goes as",
    )  # fmt: skip
    yield "checkpoints of some runs", _with(rows(rectangle("", BESIROGLU, _SIZES, np.geomspace(2e8, 5e10, 8))),
                                            run="trunk"), plain, (warning + "runs have rows",)  # fmt: skip
    yield "small models alone repeat data", _repeated(), plain, ("  warning: no run has", "  warning: R_N*")
    yield "arms whose exponents differ", _arms(), Asked(arms="arm"), ("  warning: the arms",)
    curve = [{"params": 1e8, "tokens": 1e6 * (1 + step), "loss": 3.0} for step in range(5001)]
    yield "training curves", curve, plain, ("error: ",)


def said(found: Rows, asked: Asked, bootstraps: int = 400) -> list[str]:
    """The lines that `vdit.scaling.fit` prints of a table."""
    names = list(dict.fromkeys(name for row in found for name in row))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(found)
        try:
            return describe(report(load(path), bootstraps, asked=asked)).splitlines()
        except UserError as error:
            return [f"error: {error}".replace(str(path), path.name)]
