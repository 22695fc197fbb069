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
from vdit.scaling.laws.laws import (
    BOUNDS,
    HUBER_DELTA,
    Interval,
    Law,
    Number,
    Rows,
    central,
    centre,
    fit_law,
    huber,
    resample,
)
from vdit.scaling.laws.minimise import minimise_many

REPEATED = 1.01  # epochs from which on a run counts as one that repeats
_LOG_R = (float(np.log(0.05)), float(np.log(5000.0)))  # where R* is sought
_STARTS = ((1.0, 4.0, 15.0, 60.0), (1.0, 6.0, 40.0))  # of R_D*, R_N*
_STEP = 1e-20  # of the complex steps, which have no rounding error (Squire & Trapp 1998)


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
      resamples: those of every bootstrap resample.
      residuals_R: log measured - log fitted loss.
      repeated: runs that repeat their data.
      warnings: what the runs do not determine.
    """

    law: RepetitionLaw
    resamples: RepetitionLaw
    residuals_R: np.ndarray
    repeated: int
    warnings: tuple[str, ...]

    def interval(self, name: str) -> Interval | None:
        """Bootstrap interval of "repeats", "excess" or a coefficient of the law."""
        return central(getattr(self.resamples if name in ("repeats", "excess") else self.resamples.law, name))


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

    rows: Rows
    params_R: np.ndarray
    tokens_R: np.ndarray
    unique_R: np.ndarray

    def law(self, theta_K7: np.ndarray) -> RepetitionLaw:
        parts = [part[:, None] for part in theta_K7.T]
        law = self.rows.law(theta_K7[:, :5])
        fields = {name: getattr(law, name)[:, None] for name in ("A", "B", "E", "alpha", "beta")}
        return RepetitionLaw(Law(**fields), np.exp(parts[5]), np.exp(parts[6]))

    def log_loss(self, theta_K7: np.ndarray) -> np.ndarray:
        """Log of the predicted loss, centred as rows.z_R, (K, R); complex coefficients give complex losses."""
        law = self.law(theta_K7)
        tokens = self.unique_R * _saturating(self.tokens_R / self.unique_R, law.repeats)
        best = np.exp(_log_best_params(law.law, np.log(self.unique_R)))
        base = np.where(best.real < self.params_R, best, self.params_R)
        params = base * _saturating(self.params_R / base, law.excess)
        return np.log(law.law.loss(params, tokens)) - self.rows.means[2]


def _objective(theta_K7: np.ndarray, data: _Data, weights_KR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sum of Huber(log L_hat - log L) / delta and its gradient by complex steps."""
    bounds = np.array([*BOUNDS[:3], (0.02, 4.0), (0.02, 4.0), _LOG_R, _LOG_R])
    inside_K7 = np.clip(theta_K7, *bounds.T)
    outside_K7 = theta_K7 - inside_K7
    with np.errstate(all="ignore"):
        residual_KR = data.log_loss(inside_K7) - data.rows.z_R
        slope_KR = weights_KR * np.clip(residual_KR / HUBER_DELTA, -1, 1)
        gradient_K7 = np.empty_like(theta_K7)
        for i in range(7):
            moved = inside_K7.astype(np.complex128)
            moved[:, i] += 1j * _STEP
            gradient_K7[:, i] = (slope_KR * data.log_loss(moved).imag / _STEP).sum(-1)
        value_K = (weights_KR * huber(residual_KR)).sum(-1) + 10 * (outside_K7**2).sum(-1)
    gradient_K7[outside_K7 != 0] = 0
    bad = ~np.isfinite(value_K)
    value_K[bad], gradient_K7[bad] = 1e12, 0
    return value_K, np.nan_to_num(gradient_K7) + 20 * outside_K7


def fit_repetition(
    params: np.ndarray,
    tokens: np.ndarray,
    unique: np.ndarray,
    loss: np.ndarray,
    *,
    bootstraps: int = 200,
    seed: int = 0,
) -> RepetitionFit:
    """Fits all seven coefficients together; intervals resample the runs.

    Args:
      params, tokens, loss: N, D and final loss of each run.
      unique: different tokens that a run could see: those of one epoch of its data.
      bootstraps: resamples.
      seed: of the resampling.

    Raises:
      UserError: if fewer than 8 runs, or fewer than 2 that repeat their data, or the law itself cannot be fitted.
    """
    params, tokens, unique, loss = (np.asarray(v, np.float64) for v in (params, tokens, unique, loss))
    repeated = int((tokens > REPEATED * unique).sum())
    if len(loss) < 8:
        raise UserError(f"{len(loss)} runs cannot fit a law of 7 coefficients; finish at least 8 runs")
    if repeated < 2:
        raise UserError(f"{repeated} runs repeat their data; the worth of repetition needs at least 2")
    data = _Data(centre(params, tokens, loss), params, tokens, np.minimum(tokens, unique))
    base = fit_law(params, np.minimum(tokens, 4 * unique), loss, bootstraps=0)  # roughly D': a place to start from
    starts = np.array([[*data.rows.theta(base.law), np.log(r), np.log(x)] for r in _STARTS[0] for x in _STARTS[1]])
    everything = np.ones(len(loss))
    ends, values = minimise_many(lambda theta, k: _objective(theta, data, everything), starts)
    theta = ends[values.argmin()]
    weights_KR = resample(params, tokens, bootstraps, seed)
    drawn = np.zeros((0, 7))
    if len(weights_KR):
        first = np.tile(theta, (len(weights_KR), 1))
        drawn = minimise_many(lambda t, k: _objective(t, data, weights_KR[k]), first)[0]
    residuals_R = data.rows.z_R - data.log_loss(theta[None])[0]
    law, resamples = (_flat(data.law(t)) for t in (theta[None], drawn))
    fit = RepetitionFit(_single(law), resamples, residuals_R, repeated, ())
    return dataclasses.replace(fit, warnings=_warnings(fit, params, data.unique_R, tokens / unique))


def _flat(law: RepetitionLaw) -> RepetitionLaw:
    fields = {name: getattr(law.law, name)[:, 0] for name in ("A", "B", "E", "alpha", "beta")}
    return RepetitionLaw(Law(**fields), law.repeats[:, 0], law.excess[:, 0])


def _single(law: RepetitionLaw) -> RepetitionLaw:
    fields = {name: float(getattr(law.law, name)[0]) for name in ("A", "B", "E", "alpha", "beta")}
    return RepetitionLaw(Law(**fields), float(law.repeats[0]), float(law.excess[0]))


def _warnings(fit: RepetitionFit, params: np.ndarray, unique: np.ndarray, epochs: np.ndarray) -> tuple[str, ...]:
    found = []
    best = np.exp(_log_best_params(fit.law.law, np.log(unique)))
    if not (params > 1.2 * best).any():
        found.append("no run has more parameters than its unique data asks for: R_N* is not determined")
    interval = fit.interval("repeats")
    if interval is not None and interval[1] > 10 * interval[0]:
        found.append(f"R_D* is ill-determined: its interval is {interval[0]:.3g} to {interval[1]:.3g}")
    if epochs.max() < 1 + fit.law.repeats:
        found.append(
            f"the longest run has {epochs.max():.3g} epochs, fewer than 1 + R_D*: where repeats stop helping is"
            " extrapolated"
        )
    return tuple(found)
