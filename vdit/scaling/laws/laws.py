"""The law L(N, D) = E + A / N^alpha + B / D^beta (Chinchilla's approach 3), its intervals and what it predicts.

Hoffmann et al. 2022 (arXiv 2203.15556), appendix D.3, with the correction of Besiroglu et al. 2024 (arXiv 2404.10102):
the Huber loss is summed over runs, not averaged, or the optimiser stops before it has converged.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.minimise import minimise_many

Number = Any  # float or float array
Interval = tuple[float, float]

HUBER_DELTA = 1e-3
LEVEL = 0.8  # of every interval, as in the Chinchilla papers
MIN_ROWS = 6  # five coefficients and one row to contradict them
# In centred units the three terms sum to about 1: logs of A', B', E', then alpha and beta.
BOUNDS = [(-14.0, 3.0), (-14.0, 3.0), (-10.0, 1.0), (0.0, 4.0), (0.0, 4.0)]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What training costs: C = factor x N^exponent x D; 6 N D by convention, measured where FLOPs are counted.

    Attributes:
      factor: FLOPs per parameter^exponent and token.
      exponent: 1 under 6 N D; below 1 where work outside the N parameters (attention, projections) weighs in.
    """

    factor: float = 6.0
    exponent: float = 1.0

    def tokens(self, flops: Number, params: Number) -> Number:
        """Tokens D that a budget pays for at a model size."""
        return np.asarray(flops) / (self.factor * np.asarray(params) ** self.exponent)


@dataclasses.dataclass(frozen=True)
class Law:
    """Coefficients of L(N, D); each a float, or an array over bootstrap resamples."""

    A: Number
    B: Number
    E: Number
    alpha: Number
    beta: Number

    def loss(self, params: Number, tokens: Number) -> Number:
        """Predicted loss at N parameters and D tokens."""
        return self.E + self.A * np.power(params, -self.alpha) + self.B * np.power(tokens, -self.beta)

    def exponent(self, cost: Cost = Cost()) -> Number:
        """A in N_opt ~ C^a: beta / (alpha + beta) when C = 6 N D."""
        return self.beta / (self.alpha + cost.exponent * self.beta)

    def optimal_params(self, flops: Number, cost: Cost = Cost()) -> Number:
        """N_opt(C) = G (C / 6)^a, G = (alpha A / (beta B))^(1 / (alpha + beta)), for the given cost.

        Where the law has no optimum (an exponent of 0) the result is 0 or infinite, not an error.
        """
        g = cost.exponent
        with np.errstate(all="ignore"):
            ratio = self.alpha * self.A / (g * self.beta * self.B)
            scale = np.power(ratio, 1 / (self.alpha + g * self.beta))
            return scale * np.power(np.asarray(flops) / cost.factor, self.exponent(cost))

    def optimal_loss(self, flops: Number, cost: Cost = Cost()) -> Number:
        """The lowest loss that a budget can buy."""
        params = self.optimal_params(flops, cost)
        with np.errstate(all="ignore"):
            return self.loss(params, cost.tokens(flops, params))


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted law and how far to trust it.

    Attributes:
      law: the coefficients.
      cost: C as a function of N and D over the fitted rows.
      resamples: the law of every bootstrap resample (arrays of equal length).
      residuals_R: log measured - log fitted loss of each row.
      objective: summed Huber loss at the optimum.
      warnings: why the fit is ill-determined, one line each; empty when nothing is wrong.
    """

    law: Law
    cost: Cost
    resamples: Law
    residuals_R: np.ndarray
    objective: float
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Runs that the law was fitted to."""
        return len(self.residuals_R)

    def interval(self, name: str) -> Interval | None:
        """Bootstrap interval of a coefficient, or of the exponent "a"."""
        values = self.resamples.exponent(self.cost) if name == "a" else getattr(self.resamples, name)
        return central(values)

    def predict(self, params: float, tokens: float, seed: int = 0) -> tuple[float, Interval | None]:
        """Predicted loss of a run not made yet.

        Returns:
          the law's loss, and an interval that holds the uncertainty of the coefficients and the scatter of single
          runs around the law (its residuals, widened for the five coefficients that were fitted to them).
        """
        losses = np.asarray(self.resamples.loss(params, tokens))
        rng = np.random.default_rng(seed)
        scatter = rng.choice(self.residuals_R, losses.shape) * np.sqrt(self.rows / max(self.rows - 5, 1))
        return float(self.law.loss(params, tokens)), central(losses * np.exp(scatter))


def central(values: Number, level: float = LEVEL) -> Interval | None:
    """The central interval of a sample, None of an empty one."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows in log units around their means, in which the five coefficients are nearly uncorrelated."""

    x_R: np.ndarray
    y_R: np.ndarray
    z_R: np.ndarray
    means: tuple[float, float, float]

    def law(self, theta_K5: np.ndarray) -> Law:
        """Coefficients in the units of the data."""
        (x, y, z), (log_a, log_b, log_e, alpha, beta) = self.means, np.moveaxis(theta_K5, -1, 0)
        return Law(np.exp(log_a + z + alpha * x), np.exp(log_b + z + beta * y), np.exp(log_e + z), alpha, beta)

    def theta(self, law: Law) -> np.ndarray:
        """The five coefficients of one law in centred units."""
        x, y, z = self.means
        logs = np.log(law.A) - z - law.alpha * x, np.log(law.B) - z - law.beta * y, np.log(max(law.E, 1e-300)) - z
        return np.array([*logs, law.alpha, law.beta])

    def log_loss(self, theta_K5: np.ndarray) -> np.ndarray:
        """Log of the law at every row, for each of K coefficient vectors: (K, R)."""
        log_a, log_b, log_e, alpha, beta = np.moveaxis(theta_K5[:, None, :], -1, 0)
        return np.logaddexp(np.logaddexp(log_a - alpha * self.x_R, log_b - beta * self.y_R), log_e)


def centre(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray) -> Rows:
    """Runs in log units around their means."""
    x, y, z = (np.log(np.asarray(values, np.float64)) for values in (params, tokens, loss))
    means = float(x.mean()), float(y.mean()), float(z.mean())
    return Rows(x - means[0], y - means[1], z - means[2], means)


def huber(residual: np.ndarray) -> np.ndarray:
    """Huber's loss over delta: quadratic within delta of 0, linear outside."""
    size = np.abs(residual)
    return np.where(size < HUBER_DELTA, residual**2 / (2 * HUBER_DELTA), size - HUBER_DELTA / 2)


def _objective(theta_K5: np.ndarray, rows: Rows, weights_KR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sum over rows of Huber(log L_hat - log L) / delta, and its gradient over the five coefficients.

    Coefficients outside `BOUNDS` pay for it quadratically, so a fit that nothing determines still ends somewhere.
    """
    log_a, log_b, log_e, alpha, beta = np.moveaxis(theta_K5[:, None, :], -1, 0)
    # The logsumexp form; the limits matter only to steps that a line search takes back.
    a_KR = np.exp(np.clip(log_a - alpha * rows.x_R, -60, 60))
    b_KR = np.exp(np.clip(log_b - beta * rows.y_R, -60, 60))
    e_K1 = np.exp(np.clip(log_e, -60, 60))
    total_KR = a_KR + b_KR + e_K1
    residual_KR = np.log(total_KR) - rows.z_R
    value_K = (weights_KR * huber(residual_KR)).sum(-1)
    slope_KR = weights_KR * np.clip(residual_KR / HUBER_DELTA, -1, 1) / total_KR
    a_KR *= slope_KR
    b_KR *= slope_KR
    parts = (a_KR, b_KR, e_K1 * slope_KR, -a_KR * rows.x_R, -b_KR * rows.y_R)
    outside_K5 = theta_K5 - np.clip(theta_K5, *np.array(BOUNDS).T)
    return value_K + 10 * (outside_K5**2).sum(-1), np.stack([p.sum(-1) for p in parts], -1) + 20 * outside_K5


def _descend(starts_K5: np.ndarray, rows: Rows, weights_KR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and objectives after descent from each start on its own weights (one row of them serves all)."""
    found = []
    for part in range(0, len(starts_K5), 500):  # so that the arrays stay in cache
        starts = starts_K5[part : part + 500]
        weights = np.broadcast_to(weights_KR, (len(starts_K5), len(rows.z_R)))[part : part + 500]
        found.append(minimise_many(lambda theta, k: _objective(theta, rows, weights[k]), starts))  # noqa: B023
    return np.concatenate([theta for theta, _ in found]), np.concatenate([value for _, value in found])


def _starts(rows: Rows, count: int) -> np.ndarray:
    """The best `count` of a grid: shares of the loss that are irreducible and due to size, and both exponents."""
    shares = itertools.product([0.05, 0.3, 0.6, 0.85], [0.1, 0.3, 0.5, 0.7, 0.9])
    exponents = list(itertools.product([0.1, 0.25, 0.45, 0.8, 1.3], repeat=2))
    grid = np.array(
        [
            [np.log((1 - e) * share), np.log((1 - e) * (1 - share)), np.log(e), alpha, beta]
            for (e, share), (alpha, beta) in itertools.product(list(shares), exponents)
        ]
    )
    losses = huber(rows.log_loss(grid) - rows.z_R).sum(-1)
    return grid[np.argsort(losses, kind="stable")[:count]]


def fit_law(
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    *,
    flops: np.ndarray | None = None,
    bootstraps: int = 1000,
    starts: int = 40,
    seed: int = 0,
) -> Fit:
    """Fits L(N, D) to finished runs.

    Args:
      params, tokens, loss: N, D and final loss of each run, all positive.
      flops: counted training FLOPs, from which the cost C(N, D) is measured; 6 N D without them.
      bootstraps: resamples of the runs for intervals.
      starts: descents from the best points of the grid of starts.
      seed: of the resampling.

    Raises:
      UserError: if the rows cannot identify five coefficients: fewer than 6, or all of one size or token count.
    """
    params, tokens, loss = (np.asarray(values, np.float64) for values in (params, tokens, loss))
    if len(loss) < MIN_ROWS:
        raise UserError(f"{len(loss)} runs cannot fit a law of 5 coefficients; finish at least {MIN_ROWS} runs")
    for name, values in (("params", params), ("tokens", tokens)):
        if len(np.unique(values)) < 2:
            raise UserError(f"all runs have the same {name}; a law needs at least 2 different values")
    rows = centre(params, tokens, loss)
    everything = np.ones((1, len(loss)))
    ends, objectives = _descend(_starts(rows, starts), rows, everything)
    objective, theta = float(objectives.min()), ends[objectives.argmin()]
    residuals_R = rows.z_R - rows.log_loss(theta[None])[0]
    resamples_K5 = _bootstrap(rows, theta, params, tokens, bootstraps, seed)
    cost = Cost() if flops is None else measure_cost(flops, params, tokens)
    fit = Fit(rows.law(theta), cost, rows.law(resamples_K5), residuals_R, objective * HUBER_DELTA)
    return dataclasses.replace(fit, warnings=_warnings(fit, theta))


def _bootstrap(
    rows: Rows, theta: np.ndarray, params: np.ndarray, tokens: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Coefficients refitted to `count` resamples of the runs, (K, 5)."""
    weights_KR = resample(params, tokens, count, seed)
    if not len(weights_KR):
        return np.zeros((0, 5))
    return _descend(np.tile(theta, (len(weights_KR), 1)), rows, weights_KR)[0]


def resample(params: np.ndarray, tokens: np.ndarray, count: int, seed: int) -> np.ndarray:
    """How often each of R runs is drawn in `count` resamples with replacement, (K, R) float64.

    A resample that holds too few different runs, or one size only, identifies nothing and is drawn again.
    """
    rng = np.random.default_rng(seed)
    weights: list[np.ndarray] = []
    for _ in range(20 * count):
        if len(weights) == count:
            break
        picked = rng.integers(len(params), size=len(params))
        kept = np.unique(picked)
        if len(kept) >= MIN_ROWS - 1 and len(np.unique(params[kept])) > 1 and len(np.unique(tokens[kept])) > 1:
            weights.append(np.bincount(picked, minlength=len(params)).astype(np.float64))
    return np.array(weights).reshape(-1, len(params))


def leave_one_out(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, fit: Fit) -> Law:
    """The law fitted to all runs but one, for each of them (coefficients are arrays of length R)."""
    rows = centre(*(np.asarray(values, np.float64) for values in (params, tokens, loss)))
    starts = np.tile(rows.theta(fit.law), (len(loss), 1))
    return rows.law(_descend(starts, rows, 1 - np.eye(len(loss)))[0])


def measure_cost(flops: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> Cost:
    """C as factor x N^exponent x D by least squares in logs; exactly 6 N D where that holds within 1%."""
    per_token = np.log(np.asarray(flops, np.float64) / tokens)
    if np.all(np.abs(per_token - np.log(6 * params)) < 0.01):
        return Cost()
    exponent, intercept = np.polyfit(np.log(params), per_token, 1)
    return Cost(float(np.exp(intercept)), float(exponent))


def _warnings(fit: Fit, theta: np.ndarray) -> tuple[str, ...]:
    """Reasons not to trust the coefficients."""
    found = []
    if fit.rows < 15:
        found.append(f"only {fit.rows} runs for 5 coefficients: intervals from so few are themselves rough")
    log_e, alpha, beta = theta[2:]
    if log_e < np.log(0.01):
        found.append("the irreducible loss E is not resolved (fitted at or near 0): far extrapolation is unsafe")
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0.01 < value < 3.9:
            found.append(f"{name} ran to the edge of its range ({value:.3g}): the runs do not determine it")
    interval = fit.interval("a")
    if interval is not None and interval[1] - interval[0] > 0.2:
        found.append(f"a is ill-determined: its {LEVEL:.0%} interval is {interval[0]:.2f} to {interval[1]:.2f}")
    return tuple(found)
