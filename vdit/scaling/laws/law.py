"""The law L(N, D) = E + A / N^alpha + B / D^beta, what training costs, and the optimum that follows from both.

Hoffmann et al. 2022 (arXiv 2203.15556), section 3.3.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

Number = Any  # float or float array
Interval = tuple[float, float]

LEVEL = 0.8  # of every interval, as in the Chinchilla papers
NAMES = ("A", "B", "E", "alpha", "beta")


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
        """Tokens D that a budget pays for at a model size; infinite at a size of 0, a law's best without an optimum."""
        with np.errstate(all="ignore"):
            return np.asarray(flops) / (self.factor * np.asarray(params) ** self.exponent)

    def flops(self, params: Number, tokens: Number) -> Number:
        """C of N and D."""
        return self.factor * np.asarray(params) ** self.exponent * tokens


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
        """A in N_opt ~ C^a: beta / (alpha + beta) when C = 6 N D; 0 of a law that neither size nor data improve."""
        total = np.asarray(self.alpha + cost.exponent * self.beta, np.float64)
        return np.divide(self.beta, total, out=np.zeros_like(total), where=total != 0)[()]

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

    def at(self, place: Any) -> Law:
        """The coefficients of some of the resamples."""
        return Law(*(np.asarray(getattr(self, name))[place] for name in NAMES))


def central(values: Number, level: float = LEVEL) -> Interval | None:
    """The central interval of a sample, None of an empty one."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def measure_cost(flops: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> Cost | None:
    """C as factor x N^exponent x D by least squares in logs; exactly 6 N D where that holds within 1%.

    Returns:
      None if the runs show no such law: a cost of a token that does not grow with N, or faster than its square, as
      happens where sizes hardly differ.
    """
    per_token = np.log(np.asarray(flops, np.float64) / tokens)
    if np.all(np.abs(per_token - np.log(6 * params)) < 0.01):
        return Cost()
    exponent, intercept = np.polyfit(np.log(params), per_token, 1)
    if not 0 < exponent < 2:
        return None
    return Cost(float(np.exp(intercept)), float(exponent))
