"""What a fit cannot tell, a line each; of clean runs fewer than one fit in twenty is warned of (docs/laws.md)."""

from __future__ import annotations

import numpy as np
from scipy import special

from vdit.scaling.laws.approaches.envelope import Envelope
from vdit.scaling.laws.approaches.parabolas import MIN_SIZES, IsoFlop, Parabola
from vdit.scaling.laws.approaches.parametric import Fit
from vdit.scaling.laws.law import central
from vdit.scaling.runs import Table

_RATIO = (0.1, 50.0)  # counted FLOPs over 6 N D that a transformer can have
_SCATTERED = 0.5  # of the logs of FLOPs around a power law of N and D, from which on they are not those of the runs
_RARE = 0.002  # chance of a trend in residuals without one
_LARGE = 0.05  # scatter of the loss around the law
_APART = 0.05  # to either side of an exponent without an interval
_TOGETHER = 0.995  # correlation of log N and log D, from which on their parts in the loss are hardly told apart
_DRIFTED = 2.5  # factor by which the best size moves against the middle of those tried
_EDGES = 1 / 3  # share of budgets without a minimum, above which it is said
_SHOWN = 5


def diagnose(runs: Table, fit: Fit, isoflop: IsoFlop, envelope: Envelope) -> list[str]:
    """All warnings about a table and the three approaches' fits to it."""
    found = [*fit.warnings, *_together(runs), *_floor(runs, fit), *_residuals(runs, fit), *_outliers(runs, fit)]
    return found + [*_grids(runs, fit, isoflop), *_disagreement(fit, isoflop, envelope)]


def implausible_flops(runs: Table) -> str:
    """Why the FLOPs cannot be those of these N and D; "" if they can."""
    ratio = runs.flops / (6 * runs.params * runs.tokens)
    logs = np.log(ratio)
    x = np.log(runs.params) - np.log(runs.params).mean()
    spread = logs - logs.mean() - x * (x @ logs) / max(float(x @ x), 1e-12)
    if float(spread.std()) > _SCATTERED:
        return (
            f"flops are {ratio.min():.2g} to {ratio.max():.2g} times 6 N D without any order: C = 6 N D is used instead"
        )
    middle = float(np.median(ratio))
    if not _RATIO[0] <= middle <= _RATIO[1]:
        units = round(np.log10(middle) / 3) * 3
        hint = f"; are units mixed (a factor 1e{units})?" if units and abs(np.log10(middle) - units) < 0.5 else ""
        return f"flops are about {middle:.2g} times 6 N D, so C = 6 N D is used instead{hint}"
    return ""


def checkpoints(runs: Table) -> str:
    """Why rows seem to be of one training run each, at several D; "" if names and sizes do not say so."""
    lengths: dict[tuple[str, float], set[float]] = {}
    for name, params, tokens in zip(runs.names, runs.params, runs.tokens, strict=True):
        lengths.setdefault((name, float(params)), set()).add(float(tokens))
    several = list(dict.fromkeys(name for (name, _), seen in lengths.items() if len(seen) > 1))
    if not several:
        return ""
    names = ", ".join(several[:_SHOWN]) + (f" and {len(several) - _SHOWN} more" if len(several) > _SHOWN else "")
    return (
        f"runs have rows at several D ({names}): if these are checkpoints on the way, whose learning"
        " rate has not come down, the law is of their schedule; give each run's last row"
    )


def contradicting_budgets(runs: Table) -> str:
    """Why the nominal budgets are not the groups that the FLOPs make; "" if they are."""
    if not np.isfinite(runs.budgets).all():
        return ""
    for budget in np.unique(runs.budgets):
        flops = runs.flops[runs.budgets == budget]
        if flops.max() > 2 * flops.min():
            return (
                f"runs of the budget {budget:.3g} have {flops.min():.3g} to {flops.max():.3g} FLOPs: budgets are found"
                " from the flops instead"
            )
    return ""


def _together(runs: Table) -> list[str]:
    """Whether D is a power of N over all runs, as where all have one D/N, or one budget."""
    x, y = np.log(runs.params), np.log(runs.tokens)
    correlation = float(np.corrcoef(x, y)[0, 1])
    if abs(correlation) < _TOGETHER:
        return []
    slope = float(np.polyfit(x, y, 1)[0])
    return [
        f"D goes as N^{slope:.2g} in all runs, so what each of them does to the loss is hardly told apart: run some"
        " sizes at several D"
    ]


def _floor(runs: Table, fit: Fit) -> list[str]:
    if runs.loss.min() > fit.law.E:
        return []
    least = runs.loss.min()
    return [f"E = {fit.law.E:.4g} is above the lowest loss measured ({least:.4g}): the law misses the best runs"]


def _residuals(runs: Table, fit: Fit) -> list[str]:
    """Large ones; and a trend of their ranks with size, tokens, compute, or towards the edges."""
    found = []
    if fit.scatter > _LARGE:
        found.append(f"residuals are large: {fit.scatter:.1%} of the loss (robust standard deviation)")
    freedom = fit.rows - 5 - fit.form.free
    if freedom < 5:
        return found
    x, y = np.log(runs.params), np.log(runs.tokens)
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    terms = np.stack([x, y, x * y, x**2, y**2], 1)
    # Ranks, so that single runs that stray do not make the test.
    _, place_R, count = np.unique(fit.residuals_R, return_inverse=True, return_counts=True)
    normal = special.ndtri((np.cumsum(count) - count / 2)[place_R] / fit.rows)
    terms = terms - terms.mean(0)
    explained = terms @ np.linalg.lstsq(terms, normal, rcond=None)[0]
    left = normal - explained
    f = (explained @ explained / 5) / (left @ left / freedom)
    if special.fdtrc(5, freedom, f) < _RARE:
        part = 1 - (left @ left) / (normal @ normal)
        found.append(
            f"residuals are not noise: {part:.0%} of their order follows N and D, so the law's form misses these runs;"
            " leave out those far from the optimum (see the sensitivity table)"
        )
    return found


def _outliers(runs: Table, fit: Fit) -> list[str]:
    """Runs farther from the law than any of so many normal residuals would be."""
    freedom = max(fit.rows - fit.form.free, 1)
    reach = 1.25 * float(-special.stdtrit(freedom, 0.01 / (2 * fit.rows))) * fit.scatter
    far = np.flatnonzero(np.abs(fit.residuals_R) > max(reach, 1e-9))
    if not len(far):
        return []
    far = far[np.argsort(-np.abs(fit.residuals_R[far]), kind="stable")]
    names = ", ".join(runs.names[i] for i in far[:_SHOWN]) + (
        f" and {len(far) - _SHOWN} more" if len(far) > _SHOWN else ""
    )
    return [f"outliers, {reach:.1%} or more from the law: {names}"]


def _grids(runs: Table, fit: Fit, isoflop: IsoFlop) -> list[str]:
    """Budgets whose minimum is at an edge, sizes that are off-centre or drift, and the bias of parabolas."""
    found = []
    edges = [p for p in isoflop.parabolas if p.edge]
    if len(edges) > _EDGES * len(isoflop.parabolas) or any(_is_beyond(p, runs, fit) for p in edges):
        found.append(f"approach 2: {len(edges)} of {len(isoflop.parabolas)} budgets have no minimum inside their sizes")
    good = [p for p in isoflop.parabolas if not p.edge]
    if len(good) >= 2:
        offset = np.array([_offset(p.params, p, runs) for p in good])
        # The minima of a few parabolas drift by noise alone, the law's less.
        by_law = np.array([_offset(float(fit.law.optimal_params(p.budget, fit.cost)), p, runs) for p in good])
        span = np.array([np.ptp(np.log(runs.params[p.rows])) / 2 for p in good])
        if np.median(np.abs(offset) / span) > 0.6:
            side, factor = "above" if np.median(offset) > 0 else "below", np.exp(abs(np.median(offset)))
            found.append(f"grids are off-centre: the best size is {factor:.2g} times {side} the middle of those tried")
        elif len(good) > 2 and min(abs(_drift(good, offset)), abs(_drift(good, by_law))) > np.log(_DRIFTED):
            found.append(
                f"grids drift: from the smallest to the largest budget the best size moves by a factor"
                f" {np.exp(abs(_drift(good, offset))):.2g} against the middle of those tried"
            )
    law = isoflop.params
    if law is not None and law.bias is not None and abs(law.bias) > 0.01:
        found.append(f"approach 2 is biased by {law.bias:+.3f} on these grids, were the fitted law true")
    return found


def _is_beyond(parabola: Parabola, runs: Table, fit: Fit) -> bool:
    """Whether a budget's best size by the fitted law lies beyond its sizes too: noise alone hides minima of a few."""
    n = runs.params[parabola.rows]
    best = float(fit.law.optimal_params(parabola.budget, fit.cost))
    return len(np.unique(n)) > MIN_SIZES and not n.min() < best < n.max()


def _offset(best: float, parabola: Parabola, runs: Table) -> float:
    """Log of a best size over the middle of the sizes tried; NaN where a law has none (an exponent of 0)."""
    x = np.log(runs.params[parabola.rows])
    return float(np.log(best) - (x.min() + x.max()) / 2) if 0 < best < np.inf else np.nan


def _drift(parabolas: list[Parabola], offset: np.ndarray) -> float:
    budget = np.log([p.budget for p in parabolas])
    return float(np.polyfit(budget, offset, 1)[0] * (budget.max() - budget.min()))


def _disagreement(fit: Fit, isoflop: IsoFlop, envelope: Envelope) -> list[str]:
    """Exponents of approaches 1 and 2 that cannot be that of approach 3: intervals of 95% apart."""
    a = float(fit.law.exponent(fit.cost))
    own = None if fit.free_exponents else central(fit.resamples.exponent(fit.cost), 0.95)
    least, most = own or (a - _APART, a + _APART)
    found = []
    for name, law in (("1", envelope.params), ("2", isoflop.params)):
        if law is None:
            continue
        value = law.exponent - (law.bias or 0)
        low, high = law.interval_95 or (value - _APART, value + _APART)
        if low > most or high < least:
            found.append(
                f"approaches disagree: a = {law.exponent:.3f} by approach {name}, {a:.3f} by approach 3, beyond what"
                " their intervals allow"
            )
    return found
