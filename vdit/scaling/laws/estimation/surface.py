"""The law over runs in centred logs, in which its five coefficients are nearly uncorrelated, and where to start."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from vdit.scaling.laws.estimation.robust import Model, huber
from vdit.scaling.laws.law import Law

# In centred units the three terms sum to about 1: logs of A', B', E', then alpha and beta.
BOUNDS = [(-14.0, 3.0), (-14.0, 3.0), (-10.0, 1.0), (0.0, 4.0), (0.0, 4.0)]
_EXPONENTS = np.concatenate([np.linspace(0.05, 1.0, 20), np.geomspace(1.15, 3.5, 6)])  # the grid of projections


@dataclasses.dataclass(frozen=True)
class Surface:
    """Runs in log units around their means."""

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
        """Log of the law at every run, for each of K coefficient vectors: (K, R)."""
        log_a, log_b, log_e, alpha, beta = np.moveaxis(theta_K5[:, None, :], -1, 0)
        return np.logaddexp(np.logaddexp(log_a - alpha * self.x_R, log_b - beta * self.y_R), log_e)

    def model(self, logs: bool) -> Model:
        """What is fitted to `target`: the log of the loss (Hoffmann et al.), or the loss over its mean."""

        def log_model(theta_K5: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_a, log_b, log_e, alpha, beta = np.moveaxis(theta_K5[:, None, :], -1, 0)
            # The limits matter only to steps that are taken back.
            a_KR = np.exp(np.clip(log_a - alpha * self.x_R, -60, 60))
            b_KR = np.exp(np.clip(log_b - beta * self.y_R, -60, 60))
            e_KR = np.broadcast_to(np.exp(np.clip(log_e, -60, 60)), a_KR.shape)
            total_KR = a_KR + b_KR + e_KR
            scale_KR = 1 / total_KR if logs else np.ones_like(total_KR)
            a_KR, b_KR = a_KR * scale_KR, b_KR * scale_KR
            slopes_K5R = np.stack([a_KR, b_KR, e_KR * scale_KR, -a_KR * self.x_R, -b_KR * self.y_R], 1)
            return np.log(total_KR) if logs else total_KR, slopes_K5R

        return log_model

    def target(self, logs: bool) -> np.ndarray:
        return self.z_R if logs else np.exp(self.z_R)

    def grid_starts(self, count: int, delta: float) -> np.ndarray:
        """The best `count` of a grid over the irreducible share of the loss, that due to size, and both exponents."""
        shares = itertools.product([0.05, 0.3, 0.6, 0.85], [0.1, 0.3, 0.5, 0.7, 0.9])
        exponents = list(itertools.product([0.1, 0.25, 0.45, 0.8, 1.3], repeat=2))
        grid = np.array(
            [
                [np.log((1 - e) * share), np.log((1 - e) * (1 - share)), np.log(e), alpha, beta]
                for (e, share), (alpha, beta) in itertools.product(list(shares), exponents)
            ]
        )
        losses = huber(self.log_loss(grid) - self.z_R, delta).sum(-1)
        return grid[np.argsort(losses, kind="stable")[:count]]

    def projections(self, count: int, floor: float | None = None, tied: bool = False) -> np.ndarray:
        """The best `count` of a grid over alpha and beta, with the E, A and B >= 0 that are best for each of them.

        For given exponents the law is linear in E, A and B, so the search has two dimensions instead of five
        (variable projection; arXiv 2603.22339, section 6).

        Args:
          count: how many.
          floor: E if it is known.
          tied: only alpha = beta.
        """
        pairs = [(p, q) for p, q in itertools.product(_EXPONENTS, repeat=2) if p == q or not tied]
        alpha_G, beta_G = np.array(pairs).T
        a_GR, b_GR = np.exp(-alpha_G[:, None] * self.x_R), np.exp(-beta_G[:, None] * self.y_R)
        known = None if floor is None else floor / np.exp(self.means[2])
        terms_G3R = np.stack([a_GR, b_GR, np.full_like(a_GR, 1.0 if known is None else 0.0)], 1)
        found_G3, left_G = nonnegative(terms_G3R, np.exp(self.z_R) - (known or 0.0))
        if known is not None:
            found_G3[:, 2] = known
        best = np.argsort(left_G, kind="stable")[:count]
        with np.errstate(divide="ignore"):
            logs = np.clip(np.log(found_G3[best]), [-12, -12, -9], [2.9, 2.9, 0.9])
        return np.column_stack([logs, alpha_G[best], beta_G[best]])


def nonnegative(terms_GTR: np.ndarray, target_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative least squares with few terms, for G problems at once, by trying every set of terms that are not 0.

    Returns:
      (coefficients_GT, sum of squares_G).
    """
    count, terms, _ = terms_GTR.shape
    moments_GTT = terms_GTR @ terms_GTR.transpose(0, 2, 1)
    right_GT = terms_GTR @ target_R
    best_GT, least_G = np.zeros((count, terms)), np.full(count, target_R @ target_R)
    for size in range(1, terms + 1):
        for kept in map(list, itertools.combinations(range(terms), size)):
            inner = moments_GTT[:, kept][:, :, kept]
            inner = (
                inner + 1e-12 * np.trace(inner, axis1=1, axis2=2)[:, None, None] * np.eye(size) + 1e-300 * np.eye(size)
            )
            found = np.linalg.solve(inner, right_GT[:, kept][..., None])[..., 0]
            left = target_R @ target_R - np.einsum("gt,gt->g", found, right_GT[:, kept])
            better = (found >= 0).all(-1) & (left < least_G)
            best_GT[better] = 0
            best_GT[np.ix_(better, kept)] = found[better]
            least_G[better] = left[better]
    return best_GT, least_G


def surface(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray) -> Surface:
    """Runs in log units around their means."""
    x, y, z = (np.log(np.asarray(values, np.float64)) for values in (params, tokens, loss))
    means = float(x.mean()), float(y.mean()), float(z.mean())
    return Surface(x - means[0], y - means[1], z - means[2], means)
