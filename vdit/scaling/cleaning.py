"""Rows that no law should be fitted to, whatever the approach: unfinished, diverged and repeated ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.approaches.parametric import Form, fit_law
from vdit.scaling.reading import Run

_ABOVE_NEIGHBOURS = 1.3  # a run whose loss is so many times that of those nearest in N and D has diverged,
_ABOVE_SMALLER = 1.6  # or so many times that of a run with no more parameters and no more tokens,
_ABOVE_LAW = 1.3  # if it is also so many times what the law says: too little data alone gives 1.4 (Porian et al.)
_NEIGHBOURS = 4
_SHOWN = 8


def clean(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs to fit, and a line for each kind of row that was left out.

    It is the same for all approaches. Only exact repetitions, of N, D and the loss to the last digit, count as the same
    run twice: seeds differ.
    """
    warnings = []
    finished = [run for run in runs if _finite(run.get("loss"))]
    if lost := [_name(run, place) for place, run in enumerate(runs) if not _finite(run.get("loss"))]:
        warnings.append(f"left out, as they have no final loss: {_few(lost)}")
    once: dict[tuple, Run] = {}
    for place, run in enumerate(finished):
        key = tuple(run.get(name) for name in ("params", "tokens", "flops", "unique_tokens", "loss"))
        once.setdefault(key if None not in (key[0], key[2]) else (place,), run)
    if len(once) < len(finished):
        warnings.append(
            f"{len(finished) - len(once)} rows repeat another to the last digit of the loss and count once: repeated"
            " rows would make intervals too narrow"
        )
    kept = list(once.values())
    away = _diverged(kept)
    if away.any():
        names = [_name(run, place) for place, run in enumerate(kept) if away[place]]
        warnings.append(f"left out in all approaches, as they seem to have diverged: {_few(names)}")
    return [run for run, gone in zip(kept, away, strict=True) if not gone], warnings


def _name(run: Run, place: int) -> str:
    return str(run.get("run") or place + 1)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _diverged(runs: Sequence[Run]) -> np.ndarray:
    """Which runs are far above what their neighbours, or smaller and shorter runs, reached, and above the law too.

    Neighbours alone would blame the ends of a steep law, the law alone those of a design that it does not fit. Runs
    that repeat their data are not judged: they may lawfully end above shorter ones.
    """
    nothing = np.zeros(len(runs), bool)
    sizes = [(run.get("params"), run.get("tokens") or _derived(run), run["loss"]) for run in runs]
    if len(runs) < 2 * _NEIGHBOURS or not all(_finite(v) and v > 0 for size in sizes for v in size):  # type: ignore[operator]
        return nothing
    from scipy.spatial import cKDTree  # a third of a second, which a refusal need not take

    params, tokens, loss = np.array(sizes, np.float64).T
    x_R, y_R, z_R = np.log(params), np.log(tokens), np.log(loss)
    places = np.stack([x_R, y_R], 1)
    near_RK = cKDTree(places).query(places, _NEIGHBOURS + 1)[1][:, 1:]
    above = z_R - np.median(z_R[near_RK], axis=1) > math.log(_ABOVE_NEIGHBOURS)
    least_R = np.array([z_R[(x_R <= x + 1e-9) & (y_R <= y + 1e-9)].min() for x, y in places])
    above |= z_R - least_R > math.log(_ABOVE_SMALLER)
    repeats = [_finite(u := run.get("unique_tokens")) and u < d for run, d in zip(runs, tokens, strict=True)]
    above &= ~np.array(repeats)
    if not above.any():
        return nothing
    try:
        fit = fit_law(params, tokens, loss, bootstraps=0, form=Form("huber"))
    except UserError:
        return above
    return above & (fit.residuals_R > math.log(_ABOVE_LAW))


def _derived(run: Run) -> float | None:
    flops, params = run.get("flops"), run.get("params")
    return flops / (6 * params) if _finite(flops) and _finite(params) and params else None  # type: ignore[operator]
