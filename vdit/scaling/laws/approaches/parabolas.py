"""Iso-FLOP minima (Chinchilla's approach 2, arXiv 2203.15556): parabolas near the best run, and Akima interpolation.

A parabola in log N is the second-order expansion of the law around its minimum. Where alpha and beta differ, the terms
it leaves out move its minimum, the more the wider the sizes tried, and even without noise (arXiv 2603.22339). So it is
fitted in a window around the best run, and what it would be off by, were the fitted law true, is said beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.approaches.parametric import Fit, fit_law
from vdit.scaling.laws.law import LEVEL, Interval, central

SPREAD = 1.5  # runs whose FLOPs differ by more than this factor are not of one budget
MIN_SIZES = 3
WINDOW = 4.0  # sizes within this factor of the best run's make the parabola,
NEAREST = 5  # and this many of the nearest in any case
LEAST_FREEDOM = 3  # residuals beyond the parabolas' coefficients, to know noise by
MOST_BIAS = 0.05  # of an exponent that still has an interval
_UNRESOLVED = 0.2  # share of noisy draws whose minimum lies beyond the sizes, from which on a budget has none
_DENSITY = 25  # points of an interpolation for each size tried (Porian et al.)
_LEAST_SPREAD = 0.33  # standard deviation of an interpolated minimum, at least, in steps from size to size (likewise)


@dataclasses.dataclass(frozen=True)
class Parabola:
    """The runs of one budget and the parabola through those near the best.

    Attributes:
      budget: FLOPs (geometric mean of the runs, or the nominal budget).
      rows: indices of its runs.
      coefficients: of the loss in log N, highest power first; empty where there are fewer than 3 sizes.
      params: N at the minimum, limited to half a decade beyond the sizes tried; nan without a minimum.
      tokens: D at the minimum.
      loss: loss at the minimum.
      edge: "" if the minimum lies inside the sizes tried, else what is wrong with it in a few words.
      window: indices of the runs that the parabola was fitted to.
    """

    budget: float
    rows: np.ndarray
    coefficients: np.ndarray
    params: float = float("nan")
    tokens: float = float("nan")
    loss: float = float("nan")
    edge: str = ""
    window: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))

    def __call__(self, params: np.ndarray) -> np.ndarray:
        """The parabola's loss at N."""
        return np.polyval(self.coefficients, np.log(params))


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """y = factor x^exponent.

    Attributes:
      factor, exponent: of the fitted line.
      interval: of the true exponent, corrected for the bias where it is known; None where none could be made.
      bias: by how much this way of finding the exponent would miss that of the fitted law, without any noise.
      interval_95: likewise at 95%, by which approaches are compared, as tails are heavy; also where `interval` is not
        given, from noise around the fitted law.
    """

    factor: float
    exponent: float
    interval: Interval | None = None
    bias: float | None = None
    interval_95: Interval | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.factor * np.asarray(x, np.float64) ** self.exponent


@dataclasses.dataclass(frozen=True)
class IsoFlop:
    """Approach 2: one parabola a budget, and power laws through the minima that lie inside the sizes tried.

    Attributes:
      parabolas: by rising budget.
      params, tokens, loss: N_opt, D_opt and L_opt against C; None with fewer than two good minima.
      unused: runs that belong to no budget.
      akima: N_opt by interpolation through all sizes instead of parabolas (Porian et al. 2024, arXiv 2406.19146).
      without: why there is no interval, "" where there is one.
    """

    parabolas: tuple[Parabola, ...]
    params: PowerLaw | None
    tokens: PowerLaw | None
    loss: PowerLaw | None
    unused: int
    akima: PowerLaw | None = None
    without: str = ""


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


def _window(x_R: np.ndarray, loss_KR: np.ndarray) -> np.ndarray:
    """Which runs are near the best of each of K draws of the losses, (K, R) of 0 and 1."""
    sizes, place = np.unique(x_R, return_inverse=True)
    means_KS = (loss_KR @ np.eye(len(sizes))[place]) / np.bincount(place)
    far_KS = np.abs(sizes - sizes[means_KS.argmin(-1)][:, None])
    limit_K1 = np.maximum(np.sort(far_KS, -1)[:, :NEAREST][:, -1:], np.log(WINDOW)) * (1 + 1e-9)
    return (far_KS <= limit_K1)[:, place].astype(np.float64)


def _coefficients(x_R: np.ndarray, y_KR: np.ndarray, weights_KR: np.ndarray, degree: int) -> np.ndarray:
    """Weighted least-squares polynomials, lowest power first, for each of K problems: (K, degree + 1)."""
    powers_RP = x_R[:, None] ** np.arange(degree + 1)
    moments_KPP = np.einsum("kr,rp,rq->kpq", weights_KR, powers_RP, powers_RP)
    right_KP = np.einsum("kr,kr,rp->kp", weights_KR, np.broadcast_to(y_KR, weights_KR.shape), powers_RP)
    return np.linalg.solve(moments_KPP, right_KP[..., None])[..., 0]


def _minima(
    x_R: np.ndarray, log_tokens_R: np.ndarray, loss_KR: np.ndarray, weights_KR: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Minimum of the parabola through each weighting: log N, log D, loss (each K; nan where it has no minimum)."""
    centre, reach = x_R.mean(), np.log(10) / 2
    level, slope, curve = _coefficients(x_R - centre, loss_KR, weights_KR, 2).T
    with np.errstate(all="ignore"):
        top = np.where(curve > 0, -slope / (2 * curve), np.nan)
    top = np.clip(top, x_R.min() - centre - reach, x_R.max() - centre + reach)
    first, second = _coefficients(x_R - centre, log_tokens_R, weights_KR, 1).T  # D falls with N along a budget
    return top + centre, first + second * top, level + slope * top + curve * top**2


def fit_parabola(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, budget: float, rows: np.ndarray) -> Parabola:
    """The parabola through the best of the runs `rows` and its neighbours, and whether its minimum can be trusted."""
    n, d, y = params[rows], tokens[rows], loss[rows]
    if len(np.unique(n)) < MIN_SIZES:
        return Parabola(budget, rows, np.zeros(0), edge=f"fewer than {MIN_SIZES} sizes")
    x = np.log(n)
    near = _window(x, y[None])
    inside = near[0] > 0
    window = rows[inside]
    coefficients = np.polyfit(x[inside], y[inside], 2)
    top, log_tokens, least = (float(v[0]) for v in _minima(x, np.log(d), y[None], near))
    if not np.isfinite(top):
        end = "smallest" if y[x.argmin()] < y[x.argmax()] else "largest"
        edge = f"no minimum: loss still falls towards the {end} size"
        return Parabola(budget, rows, coefficients, edge=edge, window=window)
    edge = ""
    if not x.min() < top < x.max():
        edge = f"minimum beyond the {'smallest' if top <= x.min() else 'largest'} size"
    return Parabola(budget, rows, coefficients, float(np.exp(top)), float(np.exp(log_tokens)), least, edge, window)


def power_law(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> PowerLaw:
    """Least squares in logs."""
    exponent, log_factor = np.polyfit(np.log(x), np.log(y), 1, w=None if weights is None else np.sqrt(weights))
    return PowerLaw(float(np.exp(log_factor)), float(exponent))


@dataclasses.dataclass(frozen=True)
class _Noise:
    """Draws of the losses of single runs: relative noise that residuals show.

    Attributes:
      scale: standard deviation of the logs.
      freedom: residuals less coefficients that were fitted to them; 0 where nothing is left to see noise by.
    """

    scale: float
    freedom: int

    def draw(self, loss_R: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Losses_KR around loss_R; the scale is itself drawn, as it was estimated from few residuals."""
        scale_K1 = self.scale * np.sqrt(self.freedom / rng.chisquare(self.freedom, (count, 1)))
        return loss_R * np.exp(scale_K1 * rng.normal(size=(count, len(loss_R))))


def _noise(parabolas: Sequence[Parabola], params: np.ndarray, loss: np.ndarray, fit: Fit | None = None) -> _Noise:
    """That of the parabolas' residuals, pooled over budgets; of the law's, if it comes closer to the runs.

    Where exponents differ, no parabola follows wide budgets, and its misfit would be taken for noise.
    """
    residuals = [np.log(loss[p.window] / p(params[p.window])) for p in parabolas]
    freedom = sum(len(r) - 3 for r in residuals)
    if freedom < 1:
        return _Noise(0.0, 0)
    found = _Noise(float(np.sqrt(sum((r**2).sum() for r in residuals) / freedom)), freedom)
    if fit is None or freedom < LEAST_FREEDOM or fit.rows <= fit.form.free:
        return found
    left = fit.rows - fit.form.free
    return min(found, _Noise(float(np.sqrt((fit.residuals_R**2).sum() / left)), left), key=lambda noise: noise.scale)


def _draws(
    mean_R: np.ndarray,
    params_R: np.ndarray,
    tokens_R: np.ndarray,
    noise: _Noise,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Logs of N, D and loss at those minima of `count` draws of one budget that lie inside its sizes, (K, 3)."""
    x_R = np.log(params_R)
    drawn_KR = noise.draw(mean_R, count, rng)
    log_n, log_d, least = _minima(x_R, np.log(tokens_R), drawn_KR, _window(x_R, drawn_KR))
    inside = (log_n > x_R.min()) & (log_n < x_R.max()) & (least > 0)
    return np.stack([log_n[inside], log_d[inside], np.log(least[inside])], -1)


def _akima(x_R: np.ndarray, loss_KR: np.ndarray) -> np.ndarray:
    """Log N of the lowest point of an Akima interpolation through the sizes, (K,); nan at an edge."""
    from scipy.interpolate import Akima1DInterpolator  # half a second, which a refusal need not take

    sizes, place = np.unique(x_R, return_inverse=True)
    means_SK = ((np.log(loss_KR) @ np.eye(len(sizes))[place]) / np.bincount(place)).T
    fine = np.linspace(sizes[0], sizes[-1], _DENSITY * (len(sizes) - 1))
    best_K = Akima1DInterpolator(sizes, means_SK)(fine).argmin(0)
    return np.where((best_K > 0) & (best_K < len(fine) - 1), fine[best_K], np.nan)


def fit_akima(
    parabolas: Sequence[Parabola], params: np.ndarray, loss: np.ndarray, count: int, rng: np.random.Generator
) -> PowerLaw | None:
    """N_opt(C) as Porian et al. 2024 have it: the median minimum of interpolations through noisy losses, weighted.

    Args:
      parabolas: of the budgets; their residuals say the noise.
      params, loss: of all runs.
      count: noisy draws.
      rng: of the draws.

    Returns:
      None where fewer than two budgets have a minimum inside their sizes in more than half of the draws.
    """
    noise = _noise([p for p in parabolas if not p.edge], params, loss)
    points = []
    for found in parabolas:
        x_R = np.log(params[found.rows])
        once = loss[found.rows][None]
        tops = _akima(x_R, noise.draw(once[0], count, rng) if noise.freedom and count else once)
        inside = tops[np.isfinite(tops)]
        if len(inside) > len(tops) / 2:
            step = (x_R.max() - x_R.min()) / (len(np.unique(x_R)) - 1)
            spread = max(float(inside.std()), _LEAST_SPREAD * step) * len(tops) / len(inside)
            points.append((found.budget, float(np.exp(np.median(inside))), spread))
    if len(points) < 2:
        return None
    budget, size, spread_P = np.array(points).T
    return power_law(budget, size, spread_P**-2.0)


def fit_isoflop(
    flops: np.ndarray,
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    *,
    budgets: np.ndarray | None = None,
    bootstraps: int = 500,
    seed: int = 0,
    fit: Fit | None = None,
) -> IsoFlop:
    """Fits a parabola to every budget with 3 sizes or more and power laws to the minima.

    Intervals are of by how much parabolas miss the exponent of the fitted law when losses are drawn from it, with the
    noise that residuals of all parabolas, or of the law, show together: resampled runs of a budget would often be of
    one or two sizes. So they are corrected for the bias of parabolas, which is said: what they make of losses that
    follow the law exactly, less its exponent. There is none where it is more than `MOST_BIAS`.

    Args:
      flops, params, tokens, loss: of each run.
      budgets: nominal budgets, see `group_budgets`.
      bootstraps: draws.
      seed: of the draws.
      fit: the law whose losses show the bias; None fits one.
    """
    flops, params, tokens, loss = (np.asarray(values, np.float64) for values in (flops, params, tokens, loss))
    groups = group_budgets(flops, budgets)
    fits = [fit_parabola(params, tokens, loss, budget, rows) for budget, rows in groups]
    parabolas = [found for found in fits if found.coefficients.size]
    unused = sum(len(found.rows) for found in fits if not found.coefficients.size)
    rng = np.random.default_rng(seed)
    unfitted = ""
    if bootstraps and fit is None:
        try:
            fit = fit_law(params, tokens, loss, flops=flops, bootstraps=0, starts=10)
        except UserError as error:
            unfitted = f"no law to know the bias of parabolas by ({error})"
    noise = _noise([p for p in parabolas if not p.edge], params, loss, fit)
    known = bool(bootstraps) and noise.freedom >= LEAST_FREEDOM
    for place, found in enumerate(parabolas):
        if found.edge or not known:
            continue
        rows = found.rows
        mean_R = np.where(np.isin(rows, found.window), found(params[rows]), loss[rows])
        lost = 1 - len(_draws(mean_R, params[rows], tokens[rows], noise, bootstraps, rng)) / bootstraps
        if lost > _UNRESOLVED:
            edge = f"minimum not resolved: with other noise {lost:.0%} of them lie beyond the sizes tried"
            parabolas[place] = dataclasses.replace(found, edge=edge)
    good = [found for found in parabolas if not found.edge]
    if len(good) < 2:
        return IsoFlop(tuple(parabolas), None, None, None, unused)
    laws = _through(good)
    akima = fit_akima(good, params, loss, bootstraps, rng)
    without = unfitted
    if bootstraps and not known:
        without = f"{noise.freedom} residuals are left after fitting the parabolas: too few to know the noise by"
        if fit is not None:
            laws[0] = _compared(laws[0], good, params, tokens, fit, bootstraps, rng)
    elif fit is not None and bootstraps:
        laws, without = _with_intervals(laws, good, params, tokens, fit, noise, bootstraps, rng)
    return IsoFlop(tuple(parabolas), laws[0], laws[1], laws[2], unused, akima, without)


def around(value: float, missed_K: np.ndarray, level: float = LEVEL) -> Interval | None:
    """The interval of a truth, by how much estimates like `value` miss theirs in draws."""
    span = central(missed_K, level)
    return None if span is None else (float(value - span[1]), float(value - span[0]))


def _compared(
    law: PowerLaw,
    good: Sequence[Parabola],
    params: np.ndarray,
    tokens: np.ndarray,
    fit: Fit,
    count: int,
    rng: np.random.Generator,
) -> PowerLaw:
    """The power law of N with `interval_95` alone, of losses drawn from the fitted law with its own residuals.

    Of each draw the budgets count whose minimum stays inside their sizes.
    """
    exact = fit.law.loss(params, tokens)
    top_KG = np.full((count, len(good)), np.nan)
    for place, found in enumerate(good):
        x_R = np.log(params[found.rows])
        drawn_KR = exact[found.rows] * np.exp(rng.normal(0, fit.scatter, (count, len(x_R))))
        top_K = _minima(x_R, np.log(tokens[found.rows]), drawn_KR, _window(x_R, drawn_KR))[0]
        top_KG[:, place] = np.where((top_K > x_R.min()) & (top_K < x_R.max()), top_K, np.nan)
    top_KG = top_KG[np.isfinite(top_KG).sum(1) >= 2]
    x_KG = np.where(np.isfinite(top_KG), np.log([found.budget for found in good]), np.nan)
    x_KG -= np.nanmean(x_KG, axis=1, keepdims=True)
    slope_K = np.nansum(x_KG * top_KG, axis=1) / np.nansum(x_KG**2, axis=1)
    return dataclasses.replace(law, interval_95=around(law.exponent, slope_K - fit.law.exponent(fit.cost), 0.95))


def _through(parabolas: Sequence[Parabola]) -> list[PowerLaw]:
    """Power laws in C of N, D and loss at the minima."""
    budget = np.array([found.budget for found in parabolas])
    return [
        power_law(budget, np.array([getattr(found, name) for found in parabolas]))
        for name in ("params", "tokens", "loss")
    ]


def _with_intervals(
    laws: list[PowerLaw],
    good: Sequence[Parabola],
    params: np.ndarray,
    tokens: np.ndarray,
    fit: Fit,
    noise: _Noise,
    count: int,
    rng: np.random.Generator,
) -> tuple[list[PowerLaw], str]:
    """The power laws with their biases and intervals, or why there are none."""
    exact = fit.law.loss(params, tokens)
    again = [fit_parabola(params, tokens, exact, found.budget, found.rows) for found in good]
    if any(found.edge for found in again):
        return laws, "the fitted law has its optimum beyond the sizes of a budget"
    a = float(fit.law.exponent(fit.cost))
    exponents = [law.exponent for law in _through(again)]
    biases = [exponents[0] - a, exponents[1] - (1 - fit.cost.exponent * a), None]
    laws = [dataclasses.replace(law, bias=bias) for law, bias in zip(laws, biases, strict=True)]
    if abs(exponents[0] - a) > MOST_BIAS:
        return laws, f"parabolas would be off by {exponents[0] - a:+.3f}, were the fitted law true"
    drawn = [_draws(exact[p.rows], params[p.rows], tokens[p.rows], noise, count, rng) for p in good]
    if min(map(len, drawn)) < (1 - _UNRESOLVED) * count:
        laws[0] = _compared(laws[0], good, params, tokens, fit, count, rng)
        return laws, "of losses drawn from the fitted law, too few have their minimum inside the sizes of a budget"
    drawn_GK3 = np.stack([np.resize(draws_K3, (count, 3)) for draws_K3 in drawn])
    budget = np.log([found.budget for found in good])
    x = budget - budget.mean()
    drawn_K3 = np.einsum("g,gkp->kp", x / (x @ x), drawn_GK3)
    truths = [a, 1 - fit.cost.exponent * a, exponents[2]]
    found = []
    for law, values, truth in zip(laws, drawn_K3.T, truths, strict=True):
        spans = [around(law.exponent, values - truth, level) for level in (LEVEL, 0.95)]
        found.append(dataclasses.replace(law, interval=spans[0], interval_95=spans[1]))
    return found, ""
