"""Iso-FLOP minima: a parabola in log N through the runs of each budget (Chinchilla's approach 2, arXiv 2203.15556)."""

from __future__ import annotations

import dataclasses

import numpy as np

from vdit.scaling.laws.laws import Interval, central

SPREAD = 1.5  # runs whose FLOPs differ by more than this factor are not of one budget
MIN_SIZES = 3


@dataclasses.dataclass(frozen=True)
class Parabola:
    """The runs of one budget and the parabola through them.

    Attributes:
      budget: FLOPs (geometric mean of the runs, or the nominal budget).
      rows: indices of its runs.
      coefficients: of the loss in log N, highest power first; empty where there are fewer than 3 sizes.
      params: N at the minimum, limited to half a decade beyond the sizes tried; nan without a minimum.
      tokens: D at the minimum.
      loss: loss at the minimum.
      edge: "" if the minimum lies inside the sizes tried, else what is wrong with it in a few words.
    """

    budget: float
    rows: np.ndarray
    coefficients: np.ndarray
    params: float = float("nan")
    tokens: float = float("nan")
    loss: float = float("nan")
    edge: str = ""

    def __call__(self, params: np.ndarray) -> np.ndarray:
        """The parabola's loss at N."""
        return np.polyval(self.coefficients, np.log(params))


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """y = factor x^exponent, with a bootstrap interval of the exponent (None where none could be made)."""

    factor: float
    exponent: float
    interval: Interval | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.factor * np.asarray(x, np.float64) ** self.exponent


@dataclasses.dataclass(frozen=True)
class IsoFlop:
    """Approach 2: one parabola a budget, and power laws through the minima that lie inside the sizes tried.

    Attributes:
      parabolas: by rising budget.
      params, tokens, loss: N_opt, D_opt and L_opt against C; None with fewer than two good minima.
      unused: runs that belong to no budget.
    """

    parabolas: tuple[Parabola, ...]
    params: PowerLaw | None
    tokens: PowerLaw | None
    loss: PowerLaw | None
    unused: int


def group_budgets(flops: np.ndarray, budgets: np.ndarray | None = None) -> list[tuple[float, np.ndarray]]:
    """Puts runs into budgets: (FLOPs, indices of runs), rising.

    Args:
      flops: of each run.
      budgets: nominal budget of each run (nan where unknown), used where all are known.

    Returns:
      the nominal budgets; or else clusters, split at the widest gaps until none spans more than `SPREAD`.
    """
    if budgets is not None and np.all(np.isfinite(budgets)):
        return [(float(b), np.flatnonzero(budgets == b)) for b in np.unique(budgets)]
    logs = np.log(flops)
    groups, pending = [], [np.argsort(logs, kind="stable")]
    while pending:
        group = pending.pop()
        ordered = logs[group]
        if ordered[-1] - ordered[0] <= np.log(SPREAD):
            groups.append((float(np.exp(ordered.mean())), group))
            continue
        cut = int(np.diff(ordered).argmax()) + 1
        pending += [group[:cut], group[cut:]]
    return sorted(groups, key=lambda found: found[0])


def _coefficients(x_R: np.ndarray, y_R: np.ndarray, weights_KR: np.ndarray, degree: int) -> np.ndarray:
    """Weighted least-squares polynomials, lowest power first, for each of K weightings: (K, degree + 1).

    A weighting that leaves too few different x to determine one gives nan.
    """
    powers_RP = x_R[:, None] ** np.arange(degree + 1)
    moments_KPP = np.einsum("kr,rp,rq->kpq", weights_KR, powers_RP, powers_RP)
    right_KP = np.einsum("kr,rp,r->kp", weights_KR, powers_RP, y_R)
    values, place = np.unique(x_R, return_inverse=True)
    kept_KV = np.einsum("kr,rv->kv", weights_KR, np.eye(len(values))[place]) > 0
    whole = kept_KV.sum(-1) > degree
    result_KP = np.full(right_KP.shape, np.nan)
    result_KP[whole] = np.linalg.solve(moments_KPP[whole], right_KP[whole][..., None])[..., 0]
    return result_KP


def _minima(n: np.ndarray, tokens: np.ndarray, loss: np.ndarray, weights_KR: np.ndarray) -> tuple[np.ndarray, ...]:
    """Minimum of the parabola under each weighting: log N, log D, loss (each K; nan where it has no minimum)."""
    x_R = np.log(n)
    centre, reach = x_R.mean(), np.log(10) / 2
    level, slope, curve = _coefficients(x_R - centre, loss, weights_KR, 2).T
    with np.errstate(all="ignore"):
        top = np.where(curve > 0, -slope / (2 * curve), np.nan)
    top = np.clip(top, x_R.min() - centre - reach, x_R.max() - centre + reach)
    first, second = _coefficients(x_R - centre, np.log(tokens), weights_KR, 1).T  # D falls with N along a budget
    return top + centre, first + second * top, level + slope * top + curve * top**2


def fit_parabola(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, budget: float, rows: np.ndarray) -> Parabola:
    """The parabola through the runs `rows`, and whether its minimum can be trusted."""
    n, d, y = params[rows], tokens[rows], loss[rows]
    if len(np.unique(n)) < MIN_SIZES:
        return Parabola(budget, rows, np.zeros(0), edge=f"fewer than {MIN_SIZES} sizes")
    x = np.log(n)
    coefficients = np.polyfit(x, y, 2)
    top, log_tokens, least = (float(v[0]) for v in _minima(n, d, y, np.ones((1, len(rows)))))
    if not np.isfinite(top):
        end = "smallest" if y[x.argmin()] < y[x.argmax()] else "largest"
        return Parabola(budget, rows, coefficients, edge=f"no minimum: loss still falls towards the {end} size")
    edge = ""
    if not x.min() < top < x.max():
        edge = f"minimum beyond the {'smallest' if top <= x.min() else 'largest'} size"
    return Parabola(budget, rows, coefficients, float(np.exp(top)), float(np.exp(log_tokens)), least, edge)


def _resample(
    params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, rows: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Logs of N, D and loss at the minimum of `count` resamples of one budget's runs, (count, 3).

    Fewer where not even one in ten resamples has a minimum inside the sizes tried.
    """
    x = np.log(params[rows])
    picked_KR = rng.integers(len(rows), size=(10 * count, len(rows)))
    weights_KR = np.eye(len(rows))[picked_KR].sum(1)
    log_n, log_d, least = _minima(params[rows], tokens[rows], loss[rows], weights_KR)
    inside = (log_n > x.min()) & (log_n < x.max()) & (least > 0)
    return np.stack([log_n[inside], log_d[inside], np.log(least[inside])], -1)[:count]


def power_law(x: np.ndarray, y: np.ndarray) -> PowerLaw:
    """Least squares in logs."""
    exponent, log_factor = np.polyfit(np.log(x), np.log(y), 1)
    return PowerLaw(float(np.exp(log_factor)), float(exponent))


def fit_isoflop(
    flops: np.ndarray,
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    *,
    budgets: np.ndarray | None = None,
    bootstraps: int = 500,
    seed: int = 0,
) -> IsoFlop:
    """Fits a parabola to every budget with 3 sizes or more and power laws to the minima.

    Intervals resample the runs within each budget; a resample in which a parabola loses its third size or its minimum
    is drawn again, and there is no interval where that happens nine times in ten.

    Args:
      flops, params, tokens, loss: of each run.
      budgets: nominal budgets, see `group_budgets`.
      bootstraps: resamples.
      seed: of the resampling.
    """
    flops, params, tokens, loss = (np.asarray(values, np.float64) for values in (flops, params, tokens, loss))
    groups = group_budgets(flops, budgets)
    fits = [fit_parabola(params, tokens, loss, budget, rows) for budget, rows in groups]
    parabolas = tuple(found for found in fits if found.coefficients.size)
    unused = sum(len(found.rows) for found in fits if not found.coefficients.size)
    good = [found for found in parabolas if not found.edge]
    if len(good) < 2:
        return IsoFlop(parabolas, None, None, None, unused)
    budget = np.array([found.budget for found in good])
    rng = np.random.default_rng(seed)
    logs_GK3 = [_resample(params, tokens, loss, p.rows, bootstraps, rng) for p in good]
    intervals: list[Interval | None] = [None] * 3
    if min(len(logs) for logs in logs_GK3) == bootstraps > 0:
        x = np.log(budget) - np.log(budget).mean()
        exponents_K3 = np.einsum("g,gkp->kp", x / (x @ x), np.stack(logs_GK3))
        intervals = [central(values) for values in exponents_K3.T]
    in_params, in_tokens, in_loss = (
        dataclasses.replace(power_law(budget, np.array([getattr(p, name) for p in good])), interval=interval)
        for name, interval in zip(("params", "tokens", "loss"), intervals, strict=True)
    )
    return IsoFlop(parabolas, in_params, in_tokens, in_loss, unused)
