"""What repeated data is worth: L = E + A / N'^alpha + B / D'^beta with effective N' and D'.

Muennighoff et al. 2023, "Scaling Data-Constrained Language Models" (arXiv 2305.16264), equations 5 and 6: of D tokens
seen, U are unique and each is seen 1 + R times;

    D' = U + U R* (1 - exp(-R / R*))

and likewise N' of N parameters, of which the U_N that are best for U unique tokens count in full. R* is the number of
repeats after which a further one is worth 1/e of new data.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.approaches.parametric import HUBER_DELTA, MIN_ROWS, Form, fit_law
from vdit.scaling.laws.estimation import robust
from vdit.scaling.laws.estimation.surface import BOUNDS, Surface, surface
from vdit.scaling.laws.law import LEVEL, NAMES, Interval, Law, Number

REPEATED = 1.01  # epochs from which on a run counts as one that repeats
_LOG_R = (
    (float(np.log(0.05)), float(np.log(5e3))),
    (float(np.log(0.05)), float(np.log(1e12))),
)  # where R_D*, R_N* are sought
_STARTS = ((0.3, 2.0, 8.0, 30.0, 200.0), (0.3, 2.0, 8.0, 40.0))  # of R_D*, R_N*
_DIGITS = 1e-4  # losses are known no better than this share of them
_NEARBY = 40  # starts around the lowest minimum
_SIMULATED = 200  # draws of the losses that say what noise makes of a profile
_PROFILE = 41  # values of R* at which the other coefficients are fitted again
_FIELDS = ("repeats", "excess")


@dataclasses.dataclass(frozen=True)
class RepetitionLaw:
    """Coefficients, each a float or an array over resamples.

    Attributes:
      law: A, B, E, alpha, beta of data that is seen once.
      repeats: R_D*.
      excess: R_N*.
    """

    law: Law
    repeats: Number
    excess: Number

    def effective_tokens(self, tokens: Number, unique: Number) -> Number:
        """D' of D tokens, of which at most `unique` are different."""
        unique = np.minimum(tokens, unique)
        return unique * _saturating(np.asarray(tokens) / unique, self.repeats)

    def effective_params(self, params: Number, tokens: Number, unique: Number) -> Number:
        """N' of N parameters."""
        best = np.exp(_log_best_params(self.law, np.log(np.minimum(tokens, unique))))
        base = np.minimum(params, best)
        return base * _saturating(np.asarray(params) / base, self.excess)

    def loss(self, params: Number, tokens: Number, unique: Number) -> Number:
        """Predicted loss of N parameters after D tokens, of which at most `unique` are different."""
        return self.law.loss(self.effective_params(params, tokens, unique), self.effective_tokens(tokens, unique))

    def value(self, epochs: Number) -> Number:
        """What one more token is worth in that epoch (the first is 1), of a new one: exp(-R / R*)."""
        return np.exp(-np.maximum(np.asarray(epochs) - 1, 0) / self.repeats)

    def epochs_until(self, value: float) -> Number:
        """Epochs after which a repeated token is worth so much of a new one."""
        return 1 - self.repeats * np.log(value)


@dataclasses.dataclass(frozen=True)
class RepetitionFit:
    """A fitted law of repetition.

    Attributes:
      law: the coefficients.
      intervals: of "repeats" and "excess" by profile; an end is 0 or infinite where the runs do not bound it.
      residuals_R: log measured - log fitted loss.
      objective: summed Huber loss.
      repeated: runs that repeat their data.
      agreeing: how many of the starts end in the reported minimum, and of how many.
      warnings: what the runs do not determine.
    """

    law: RepetitionLaw
    intervals: dict[str, Interval]
    residuals_R: np.ndarray
    objective: float
    repeated: int
    agreeing: tuple[int, int]
    warnings: tuple[str, ...]

    def interval(self, name: str) -> Interval | None:
        """Interval of "repeats" or "excess"; None where the runs do not bound it on both sides."""
        low, high = self.intervals.get(name, (0.0, np.inf))
        return (low, high) if low > 0 and np.isfinite(high) else None


def _saturating(times: Number, half: Number) -> Number:
    """1 + R* (1 - exp(-R / R*)) with R = times - 1."""
    return 1 - half * np.expm1(-(times - 1) / half)


def _log_best_params(law: Law, log_tokens: Number) -> Number:
    """Log of the N for which `tokens` is compute-optimal under C = 6 N D: G (G D)^(beta / alpha), in logs."""
    log_g = (np.log(law.alpha * law.A) - np.log(law.beta * law.B)) / (law.alpha + law.beta)
    return log_g + law.beta / law.alpha * (log_tokens + log_g)


@dataclasses.dataclass(frozen=True)
class _Data:
    """Runs, with the centring of their logs; unique is at most tokens."""

    rows: Surface
    params_R: np.ndarray
    tokens_R: np.ndarray
    unique_R: np.ndarray

    def law(self, theta_7: np.ndarray) -> RepetitionLaw:
        law = self.rows.law(theta_7[:5])
        base = Law(*(float(getattr(law, name)) for name in NAMES))
        return RepetitionLaw(base, float(np.exp(theta_7[5])), float(np.exp(theta_7[6])))

    def residuals(self, theta_7: np.ndarray) -> np.ndarray:
        """Log measured - log fitted loss."""
        return self.rows.z_R - self.model(theta_7[None], np.zeros(1, int))[0][0]

    def model(self, theta_K7: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log of the loss over its mean, (K, R), and its derivatives (K, 7, R)."""
        log_a, log_b, log_e, alpha, beta, log_d, log_n = np.clip(theta_K7, *_BOUNDS.T).T[:, :, None]
        x, y, z = self.rows.means
        log_u_R, log_p_R = np.log(self.unique_R), np.log(self.params_R)
        tokens_KR, _, by_repeats_KR = _worth(np.log(self.tokens_R) - log_u_R, log_d)
        tokens_KR = tokens_KR + log_u_R - y
        # Log of the best N for U tokens, and its derivatives.
        log_g = (np.log(alpha) + log_a + z + alpha * x - np.log(beta) - log_b - z - beta * y) / (alpha + beta)
        best_KR = log_g + beta / alpha * (log_u_R + log_g)
        over_KR = log_p_R > best_KR
        base_KR = np.where(over_KR, best_KR, log_p_R)
        params_KR, by_times_KR, by_excess_KR = _worth(log_p_R - base_KR, log_n)
        params_KR = params_KR + base_KR - x
        a_KR, b_KR, e_K1 = np.exp(log_a - alpha * params_KR), np.exp(log_b - beta * tokens_KR), np.exp(log_e)
        total_KR = a_KR + b_KR + e_K1
        a_KR, b_KR = a_KR / total_KR, b_KR / total_KR
        by_params_KR = -alpha * a_KR
        by_best_KR = np.where(over_KR, by_params_KR * (1 - by_times_KR), 0)
        slopes = (
            a_KR + by_best_KR / alpha,
            b_KR - by_best_KR / alpha,
            e_K1 / total_KR,
            -a_KR * params_KR + by_best_KR * (1 / alpha + x - log_g - beta / alpha * (log_g + log_u_R)) / alpha,
            -b_KR * tokens_KR + by_best_KR * (log_u_R - 1 / beta - y) / alpha,
            -beta * b_KR * by_repeats_KR,
            by_params_KR * by_excess_KR,
        )
        return np.log(total_KR), np.stack(slopes, 1)


def _worth(log_times: Number, log_half: Number) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log of 1 + R* (1 - exp(-R / R*)), R = times - 1, and its derivatives by the logs of times and R*."""
    times, half = np.exp(log_times), np.exp(log_half)
    decay = np.exp(-(times - 1) / half)
    worth = 1 - half * np.expm1(-(times - 1) / half)
    return np.log(worth), times * decay / worth, (worth - 1 - (times - 1) * decay) / worth


_BOUNDS = np.array([*BOUNDS[:3], (0.02, 4.0), (0.02, 4.0), *_LOG_R])


def _minimise(
    data: _Data, starts_K7: np.ndarray, free: np.ndarray, target_KR: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and summed Huber loss over delta from each start; those not `free` stay where they start.

    Log losses to fit are those of the runs, or for each start others in `target_KR`.
    """
    starts_K7 = np.clip(starts_K7, *_BOUNDS.T)
    moved_KR = np.zeros((len(starts_K7), 1)) if target_KR is None else target_KR - data.rows.z_R

    def model(free_KF: np.ndarray, lanes_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta_K7 = starts_K7[lanes_K]
        theta_K7[:, free] = free_KF
        predicted_KR, slopes_K7R = data.model(theta_K7, lanes_K)
        return predicted_KR - moved_KR[lanes_K], slopes_K7R[:, free]

    weights = np.ones((1, len(data.params_R)))
    found, values = robust.minimise(
        model, data.rows.z_R, starts_K7[:, free], weights, delta=HUBER_DELTA, bounds_P2=_BOUNDS[free]
    )
    ends = starts_K7.copy()
    ends[:, free] = found
    return np.clip(ends, *_BOUNDS.T), values


def fit_repetition(
    params: np.ndarray,
    tokens: np.ndarray,
    unique: np.ndarray,
    loss: np.ndarray,
    *,
    base: Law | None = None,
    profiles: bool = True,
) -> RepetitionFit:
    """Fits all seven coefficients together, or the two of repetition on top of a known law.

    Intervals of R_D* and R_N* are profiles: all values whose own best fit is not worse than the best of all by more
    than noise explains. Unlike resamples they show where nothing bounds a coefficient.

    Args:
      params, tokens, loss: N, D and final loss of each run.
      unique: different tokens that a run could see: those of one epoch of its data.
      base: the law of data that is seen once, if it is known; None fits it along.
      profiles: whether to make intervals.

    Raises:
      UserError: if fewer than 8 runs, or fewer than 2 that repeat their data, or the law itself cannot be fitted.
    """
    params, tokens, unique, loss = (np.asarray(v, np.float64) for v in (params, tokens, unique, loss))
    repeated = int((tokens > REPEATED * unique).sum())
    if len(loss) < 8:
        raise UserError(f"{len(loss)} runs cannot fit a law of 7 coefficients; finish at least 8 runs")
    if repeated < 2:
        raise UserError(f"{repeated} runs repeat their data; the worth of repetition needs at least 2")
    data = _Data(surface(params, tokens, loss), params, tokens, np.minimum(tokens, unique))
    bases = [base] if base else _bases(data, loss)
    starts = [[*data.rows.theta(law), np.log(r), np.log(x)] for law in bases for r in _STARTS[0] for x in _STARTS[1]]
    free = np.arange(5 if base else 0, 7)
    ends, values = _minimise(data, np.array(starts), free)
    theta, least = _polish(data, ends[values.argmin()], float(values.min()), free)
    intervals = {}
    for name, i in zip(_FIELDS, (5, 6), strict=True):
        if profiles:
            intervals[name], theta, least = _profile(data, theta, least, i, free)
    fit = RepetitionFit(
        law=data.law(theta),
        intervals=intervals,
        residuals_R=data.residuals(theta),
        objective=least * HUBER_DELTA,
        repeated=repeated,
        agreeing=(int((values < least * (1 + 1e-3) + 1e-9).sum()), len(values)),
        warnings=(),
    )
    return dataclasses.replace(fit, warnings=_warnings(fit, params, data.unique_R, tokens / unique))


def _polish(data: _Data, theta: np.ndarray, least: float, free: np.ndarray) -> tuple[np.ndarray, float]:
    """The lowest minimum around one: the valley is narrow, curved and has a kink where N crosses the best size."""
    rng = np.random.default_rng(0)
    for spread in (0.3, 0.1, 0.03):
        starts = np.tile(theta, (_NEARBY, 1))
        starts[:, free] += rng.normal(0, spread, (_NEARBY, len(free)))
        ends, values = _minimise(data, starts, free)
        if values.min() < least:
            theta, least = ends[values.argmin()], float(values.min())
    return theta, least


def _bases(data: _Data, loss: np.ndarray) -> list[Law]:
    """Laws to start from: of all runs with D at most four epochs, and of the runs that hardly repeat."""
    huber = Form("huber")
    found = [fit_law(data.params_R, np.minimum(data.tokens_R, 4 * data.unique_R), loss, bootstraps=0, form=huber).law]
    once = data.tokens_R <= 1.5 * data.unique_R
    sizes = [len(np.unique(values[once])) for values in (data.params_R, data.tokens_R)]
    if once.sum() > MIN_ROWS and min(sizes) > 1:
        few = (values[once] for values in (data.params_R, data.tokens_R, loss))
        found.append(fit_law(*few, bootstraps=0, form=huber).law)
    return found


def _reach(data: _Data, theta: np.ndarray, place: int, free: np.ndarray) -> float:
    """By how much the loss (over delta) may exceed the least within the interval of one coefficient.

    That is by how much it does at the true value in 80% of the draws of losses around the fitted law: a likelihood
    ratio by simulation, as its limit for many runs, chi squared, is too short for seven coefficients and a kink. The
    law goes almost through as many runs as it has coefficients; these say nothing of the noise and are not drawn.
    """
    rows = len(data.params_R)
    left = max(rows - len(free), 1)
    residual_R = data.residuals(theta)
    kept = residual_R[np.argsort(np.abs(residual_R))[rows - left :]]
    rng = np.random.default_rng(0)
    noise_KR = rng.choice(kept, (_SIMULATED, rows)) * rng.choice([-1.0, 1.0], (_SIMULATED, rows))
    noise_KR += rng.normal(0, _DIGITS, noise_KR.shape)
    start_K7 = np.tile(theta, (_SIMULATED, 1))
    target_KR = data.rows.z_R - residual_R + noise_KR
    held, above_K = _minimise(data, start_K7, free[free != place], target_KR)
    _, least_K = _minimise(data, held, free, target_KR)
    return float(np.quantile(np.maximum(above_K - least_K, 0), LEVEL))


def _profile(
    data: _Data, theta: np.ndarray, least: float, place: int, free: np.ndarray
) -> tuple[Interval, np.ndarray, float]:
    """Where the profile of one coefficient crosses `_reach` above the least; and a better minimum, if it finds one."""
    reach = _reach(data, theta, place, free)
    others = free[free != place]
    grid = np.linspace(_BOUNDS[place][0], _BOUNDS[place][1], _PROFILE)
    for _ in range(4):  # closer and closer, until several values lie within the interval
        grid = np.unique(np.append(grid, theta[place]))
        starts = np.tile(theta, (len(grid), 1))
        starts[:, place] = grid
        ends, values = _minimise(data, starts, others)
        # A second pass starts each value from its neighbours' ends, so that no fit is left in a poor minimum.
        for order in (1, -1):
            near = np.roll(ends, order, axis=0)
            near[:, place] = grid
            again, better = _minimise(data, near, others)
            improved = better < values
            ends[improved], values[improved] = again[improved], better[improved]
        if values.min() < least:
            whole, value = _minimise(data, ends[[values.argmin()]], free)
            theta, least = (whole[0], float(value[0])) if value[0] < least else (theta, least)
        within = np.flatnonzero(values <= least + reach)
        first, last = (int(within[0]), int(within[-1])) if len(within) else (int(values.argmin()),) * 2
        if last - first >= 6:
            break
        grid = np.linspace(grid[max(first - 1, 0)], grid[min(last + 1, len(grid) - 1)], _PROFILE // 2)

    def crossing(inner: int, outer: int) -> float:
        share = (least + reach - values[inner]) / (values[outer] - values[inner])
        return float(np.exp(grid[inner] + np.clip(share, 0, 1) * (grid[outer] - grid[inner])))

    at_start = first == 0 and grid[0] <= _BOUNDS[place][0]
    at_end = last == len(grid) - 1 and grid[-1] >= _BOUNDS[place][1]
    low = 0.0 if at_start else crossing(first, max(first - 1, 0)) if first else float(np.exp(grid[0]))
    high = np.inf if at_end else crossing(last, last + 1) if last < len(grid) - 1 else float(np.exp(grid[-1]))
    return (low, high), theta, least


def _warnings(fit: RepetitionFit, params: np.ndarray, unique: np.ndarray, epochs: np.ndarray) -> tuple[str, ...]:
    found = []
    best = np.exp(_log_best_params(fit.law.law, np.log(unique)))
    if not (params > 1.2 * best).any():
        found.append("no run has more parameters than its unique data asks for: R_N* is not determined")
    for name, symbol, (least, most) in zip(_FIELDS, ("R_D*", "R_N*"), np.exp(_LOG_R), strict=True):
        value = getattr(fit.law, name)
        if not 1.02 * least < value < most / 1.02:
            found.append(f"{symbol} is not determined: it ran to the edge of its range ({value:.3g})")
        elif name in fit.intervals and fit.interval(name) is None:
            low, high = fit.intervals[name]
            bound = f"at least {low:.3g}" if low else f"at most {high:.3g}" if np.isfinite(high) else "any value"
            found.append(f"{symbol} is not determined: {bound} fits the runs as well")
        elif (span := fit.interval(name)) is not None and span[1] > 10 * span[0]:
            found.append(f"{symbol} is ill-determined: its interval is {span[0]:.3g} to {span[1]:.3g}")
    if epochs.max() < 1 + fit.law.repeats:
        found.append(
            f"the longest run has {epochs.max():.3g} epochs, fewer than 1 + R_D*: where repeats stop helping is"
            " extrapolated"
        )
    if fit.agreeing[0] < 2:
        found.append(f"one of {fit.agreeing[1]} starts alone reaches this minimum: another, lower one may exist")
    return tuple(found)
