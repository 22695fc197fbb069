"""Fits L(N, D) = E + A / N^alpha + B / D^beta to finished runs (Chinchilla's approach 3), with intervals.

Hoffmann et al. 2022 (arXiv 2203.15556), appendix D.3, with the correction of Besiroglu et al. 2024 (arXiv 2404.10102):
the Huber loss is summed over runs, not averaged, or the optimiser stops before it has converged. Least squares of the
loss itself (variable projection, arXiv 2603.22339) is the other estimator: more exact where noise is normal.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.estimation import robust
from vdit.scaling.laws.estimation.calibrate import calibrated
from vdit.scaling.laws.estimation.redraw import redraw
from vdit.scaling.laws.estimation.robust import Model
from vdit.scaling.laws.estimation.surface import BOUNDS, Surface, surface
from vdit.scaling.laws.law import LEVEL, NAMES, Cost, Interval, Law, central, measure_cost

HUBER_DELTA = 1e-3
LEAST_SQUARES = 1e3  # a delta that no residual reaches
MIN_ROWS = 6  # five coefficients and one row to contradict them
ESTIMATORS = ("auto", "huber", "squares")
EXPONENTS = (0.01, 3.9)  # of a law whose alpha and beta did not run to the edge of their range
_DEPENDENT = 1e-5  # smallest over largest singular value, from which on derivatives by the coefficients are dependent
_INVOLVED = 0.01  # share of a coefficient in a direction that the runs do not determine
_PART = 250  # resamples at a time, so that their arrays stay small
_AT_EDGE = 0.1  # share of draws at the edge of a coefficient's range from which on it has no interval


@dataclasses.dataclass(frozen=True)
class Form:
    """What is fitted and how.

    Attributes:
      estimator: "huber" (of log L, with `delta`), "squares" (of L), or "auto": Huber's where residuals have heavier
        tails than normal ones, least squares where not.
      delta: of Huber's loss.
      tied: alpha = beta.
      floor: E, where the irreducible loss is known.
    """

    estimator: str = "auto"
    delta: float = HUBER_DELTA
    tied: bool = False
    floor: float | None = None

    @property
    def free(self) -> int:
        """Coefficients that are fitted."""
        return 5 - self.tied - (self.floor is not None)

    def reduction(self, rows: Surface) -> tuple[np.ndarray, np.ndarray]:
        """(matrix_F5, offset_5): the five coefficients in centred units are free_F @ matrix + offset."""
        matrix, offset = np.eye(5), np.zeros(5)
        if self.tied:
            matrix = np.vstack([matrix[:3], matrix[3] + matrix[4]])
        if self.floor is not None:
            matrix = np.delete(matrix, 2, axis=0)
            offset[2] = np.log(self.floor) - rows.means[2]
        return matrix, offset


NO_COST = "the runs show no cost law C = k N^g D, so 6 N D is taken: give sizes that differ more"


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted law and how far to trust it.

    Attributes:
      law: the coefficients.
      cost: C as a function of N and D over the fitted rows.
      resamples: the law of every draw for intervals (arrays of equal length): of resampled runs for Huber's loss, of
        losses drawn anew around the law for least squares.
      residuals_R: log measured - log fitted loss of each row.
      objective: summed Huber loss at the optimum (half the sum of squares over the mean loss for least squares).
      warnings: why the fit is ill-determined, one line each; empty when nothing is wrong.
      form: what was fitted; its estimator is never "auto".
      undetermined: coefficients without an interval: many draws end at the edge of their range, or others make up for
        any change of theirs.
    """

    law: Law
    cost: Cost
    resamples: Law
    residuals_R: np.ndarray
    objective: float
    warnings: tuple[str, ...] = ()
    form: Form = Form("huber")
    undetermined: frozenset[str] = frozenset()

    @property
    def free_exponents(self) -> bool:
        """Whether the runs do not determine alpha or beta, and so neither a."""
        return bool({"alpha", "beta"} & self.undetermined)

    @property
    def rows(self) -> int:
        """Runs that the law was fitted to."""
        return len(self.residuals_R)

    @property
    def scatter(self) -> float:
        """Standard deviation of log losses around the law, from the median residual, less what was fitted to them."""
        widened = np.sqrt(self.rows / max(self.rows - self.form.free, 1))
        return float(1.4826 * np.median(np.abs(self.residuals_R)) * widened)

    def interval(self, name: str) -> Interval | None:
        """Bootstrap interval of a coefficient, or of the exponent "a"; None where the runs do not determine it."""
        if name in self.undetermined or (name == "a" and self.free_exponents):
            return None
        values = self.resamples.exponent(self.cost) if name == "a" else getattr(self.resamples, name)
        return central(values)

    def predict(self, params: float, tokens: float, seed: int = 0) -> tuple[float, Interval | None]:
        """Predicted loss of a run not made yet.

        Returns:
          the law's loss, and an interval that holds the uncertainty of the coefficients and the scatter of single
          runs around the law (its residuals, widened for the coefficients that were fitted to them).
        """
        losses = np.asarray(self.resamples.loss(params, tokens))
        rng = np.random.default_rng(seed)
        scatter = rng.choice(self.residuals_R, losses.shape) * np.sqrt(self.rows / max(self.rows - self.form.free, 1))
        return float(self.law.loss(params, tokens)), central(losses * np.exp(scatter))


def fit_law(
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    *,
    flops: np.ndarray | None = None,
    bootstraps: int = 1000,
    starts: int = 40,
    seed: int = 0,
    form: Form = Form(),
) -> Fit:
    """Fits L(N, D) to finished runs.

    The search starts both from the best points of a grid over all five coefficients and from the best projections on
    a grid over the two exponents; the lower minimum counts, and it is said when they end apart.

    Args:
      params, tokens, loss: N, D and final loss of each run, all positive.
      flops: counted training FLOPs, from which the cost C(N, D) is measured; 6 N D without them.
      bootstraps: draws for intervals.
      starts: descents from the best points of the grid of starts.
      seed: of the draws.
      form: what is fitted.

    Raises:
      UserError: if the rows cannot identify five coefficients: fewer than 6, or all of one size or token count.
    """
    params, tokens, loss = (np.asarray(values, np.float64) for values in (params, tokens, loss))
    _check(params, tokens, loss, form)
    rows = surface(params, tokens, loss)
    if form.estimator == "auto":
        squares = dataclasses.replace(form, estimator="squares")
        theta, _, _ = _search(rows, squares, starts)
        heavy = heavy_tails(np.exp(rows.z_R) - np.exp(rows.log_loss(theta[None])[0]))
        form = dataclasses.replace(form, estimator="huber" if heavy else "squares")
    theta, objective, apart = _search(rows, form, starts)
    cost = Cost() if flops is None else measure_cost(flops, params, tokens)
    resamples_K5, at_edge = _draws(rows, form, theta, bootstraps, seed)
    dependent = _dependent(rows, form, theta)
    fit = Fit(
        law=rows.law(theta),
        cost=cost or Cost(),
        resamples=rows.law(resamples_K5),
        residuals_R=rows.z_R - rows.log_loss(theta[None])[0],
        objective=objective * (form.delta if form.estimator == "huber" else LEAST_SQUARES),
        form=form,
        undetermined=at_edge | dependent,
    )
    found = [*_warnings(fit, theta, apart), *([NO_COST] if cost is None else [])]
    if dependent:
        names = ", ".join(name for name in NAMES if name in dependent)
        found.append(
            f"{names} make up for each other in these runs, which do not determine them: more sizes and lengths would"
        )
    return dataclasses.replace(fit, warnings=tuple(found))


def heavy_tails(residuals_R: np.ndarray) -> bool:
    """Whether residuals have heavier tails than normal ones: Geary's ratio of mean size to root mean square.

    Of normal residuals it is sqrt(2/pi) = .798 with a standard deviation of .212 / sqrt(R) (Geary 1935); 3 of them
    below that, which normal residuals reach once in 700 times, are taken for heavy tails.
    """
    size = np.abs(residuals_R)
    spread = float(np.sqrt((size**2).mean()))
    return spread > 0 and float(size.mean()) / spread < np.sqrt(2 / np.pi) - 3 * 0.2123 / np.sqrt(len(size))


def _check(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, form: Form) -> None:
    if len(loss) < MIN_ROWS:
        raise UserError(f"{len(loss)} runs cannot fit a law of 5 coefficients; finish at least {MIN_ROWS} runs")
    for name, values in (("params", params), ("tokens", tokens)):
        if len(np.unique(values)) < 2:
            raise UserError(f"all runs have the same {name}; a law needs at least 2 different values")
    if loss.max() <= loss.min() * (1 + 1e-9):
        raise UserError(f"all runs have the same loss, {loss.min():g}; there is no law to fit")
    if form.floor is not None and not 0 < form.floor < loss.min():
        raise UserError(
            f"an irreducible loss of {form.floor:g} must be above 0 and below the lowest loss, {loss.min():g}"
        )


def _problem(rows: Surface, form: Form) -> tuple[Model, np.ndarray, float, np.ndarray, np.ndarray, np.ndarray]:
    """Model and target, delta, bounds, matrix and offset of the free coefficients."""
    logs = form.estimator == "huber"
    matrix, offset = form.reduction(rows)
    whole = rows.model(logs)

    def model(free_KF: np.ndarray, lanes_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        predicted_KR, slopes_K5R = whole(free_KF @ matrix + offset, lanes_K)
        return predicted_KR, matrix @ slopes_K5R

    bounds = np.array(BOUNDS)[(matrix != 0).argmax(1)]
    return model, rows.target(logs), form.delta if logs else LEAST_SQUARES, bounds, matrix, offset


def _descend(rows: Surface, form: Form, starts_K5: np.ndarray, weights_KR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (K, 5) and objectives after descent from each start on its own weights (one row serves all)."""
    model, target, delta, bounds, matrix, offset = _problem(rows, form)
    starts_KF = _free(starts_K5, matrix, offset)
    free_KF, value_K = robust.minimise(model, target, starts_KF, weights_KR, delta=delta, bounds_P2=bounds)
    return free_KF @ matrix + offset, value_K


def _free(theta_K5: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The coefficients that are fitted, of all five."""
    return (theta_K5 - offset) @ matrix.T / (matrix**2).sum(1)


def _search(rows: Surface, form: Form, starts: int) -> tuple[np.ndarray, float, float]:
    """The coefficients of the lowest minimum, its objective, and by what share the two searches end apart."""
    grids = rows.grid_starts(starts, form.delta), rows.projections(8, form.floor, form.tied)
    found_K5, values_K = _descend(rows, form, np.concatenate(grids), np.ones((1, len(rows.z_R))))
    least = [float(values.min()) for values in np.split(values_K, [len(grids[0])])]
    return found_K5[values_K.argmin()], min(least), abs(least[0] - least[1]) / max(min(least), 1e-9)


def _refit(rows: Surface, form: Form, theta: np.ndarray, weights_KR: np.ndarray) -> np.ndarray:
    """Coefficients (K, 5) fitted to weighted runs, from where the whole fit ended."""
    return _descend(rows, form, np.tile(theta, (len(weights_KR), 1)), weights_KR)[0]


def _draws(rows: Surface, form: Form, theta: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, frozenset[str]]:
    """Coefficients (K, 5) of what else the runs could have been, and those that many draws do not determine.

    Of resampled runs for Huber's loss, of redrawn losses for squares.
    """
    model, target, delta, bounds, matrix, offset = _problem(rows, form)
    best_F = _free(theta, matrix, offset)
    if form.estimator == "squares":
        drawn_KF = redraw(model, target, best_F, count=count, seed=seed, delta=delta, bounds_F2=bounds)
        drawn_K5 = drawn_KF @ matrix + offset
        return drawn_K5, _undetermined(drawn_K5)

    def weights(count: int, seed: int) -> np.ndarray:
        return resample(rows.x_R, rows.y_R, count, seed)

    raw_K5 = _refit(rows, form, theta, weights(count, seed))
    raw_KF = _free(raw_K5, matrix, offset)
    drawn_KF = calibrated(raw_KF, model, target, best_F, weights, delta=delta, bounds_F2=bounds, seed=seed + 1)
    return drawn_KF @ matrix + offset, _undetermined(raw_K5)


def resample(params: np.ndarray, tokens: np.ndarray, count: int, seed: int) -> np.ndarray:
    """How often each of R runs is drawn in `count` resamples with replacement, (K, R) float64.

    A resample that holds too few different runs, or one size only, identifies nothing and is drawn again.
    """
    rng, rows = np.random.default_rng(seed), len(params)
    found_KR = np.zeros((0, rows))
    for _ in range(20 * -(-count // _PART)):
        if len(found_KR) >= count:
            break
        picked_KR = rng.integers(rows, size=(_PART, rows)) + rows * np.arange(_PART)[:, None]
        times_KR = np.bincount(picked_KR.ravel(), minlength=_PART * rows).reshape(_PART, rows)
        there_KR = times_KR > 0
        enough_K = there_KR.sum(1) >= MIN_ROWS - 1
        for values_R in (params, tokens):
            enough_K &= np.where(there_KR, values_R, -np.inf).max(1) > np.where(there_KR, values_R, np.inf).min(1)
        found_KR = np.concatenate([found_KR, times_KR[enough_K]])
    return found_KR[:count]


def leave_one_out(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, fit: Fit, left_out: np.ndarray) -> Law:
    """The law fitted to all runs but one, for each of those `left_out` (coefficients are arrays of that length)."""
    rows = surface(params, tokens, loss)
    weights_KR = np.ones((len(left_out), len(loss)))
    weights_KR[np.arange(len(left_out)), left_out] = 0
    return rows.law(_refit(rows, fit.form, rows.theta(fit.law), weights_KR))


def leverage(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, fit: Fit) -> np.ndarray:
    """Roughly how far each run pulls the exponent: one Newton step without it, (R,)."""
    rows = surface(params, tokens, loss)
    theta = rows.theta(fit.law)
    logs = fit.form.estimator == "huber"
    predicted, slopes_5R = (found[0] for found in rows.model(logs)(theta[None], np.zeros(1, int)))
    residual = rows.target(logs) - predicted
    pull = residual / np.maximum(np.abs(residual), fit.form.delta if logs else LEAST_SQUARES)
    curvature = (slopes_5R / np.maximum(np.abs(residual), fit.form.delta if logs else LEAST_SQUARES)) @ slopes_5R.T
    moved_5R = np.linalg.lstsq(curvature, slopes_5R * pull, rcond=1e-10)[0]
    alpha, beta = float(fit.law.alpha), float(fit.law.beta)
    return (alpha * moved_5R[4] - beta * moved_5R[3]) / (alpha + fit.cost.exponent * beta) ** 2


def _dependent(rows: Surface, form: Form, theta: np.ndarray) -> frozenset[str]:
    """Coefficients that others make up for: with two sizes any alpha fits, draws or not."""
    model, _, _, _, matrix, offset = _problem(rows, form)
    slopes_FR = model(_free(theta, matrix, offset)[None], np.zeros(1, int))[1][0]
    length_F = np.linalg.norm(slopes_FR, axis=1)
    felt = length_F > 0  # a term that has vanished is at the edge of its range, and says so
    _, values, directions = np.linalg.svd((slopes_FR[felt] / length_F[felt, None]).T, full_matrices=False)
    involved = (np.abs(directions[values < _DEPENDENT * values[0]]) > _INVOLVED).any(0)
    names = np.array(NAMES)[(matrix[felt][involved] != 0).any(0)]
    return frozenset(names.tolist())


def _undetermined(resamples_K5: np.ndarray) -> frozenset[str]:
    """Coefficients of which many draws are at the edge of their range: theirs would be intervals of the range."""
    if not len(resamples_K5):
        return frozenset()
    low, high = np.array(BOUNDS).T
    edge_K5 = (resamples_K5 < low + [2, 2, 5, 0.01, 0.01]) | (resamples_K5 > high - [0.05, 0.05, 0.0, 0.05, 0.05])
    share = edge_K5.mean(0)
    return frozenset(name for name, part in zip(NAMES, share, strict=True) if part > _AT_EDGE)


def _warnings(fit: Fit, theta: np.ndarray, apart: float) -> tuple[str, ...]:
    """Reasons not to trust the coefficients."""
    found = []
    if fit.rows < 15:
        found.append(
            f"only {fit.rows} runs for {fit.form.free} coefficients: intervals from so few are themselves rough"
        )
    if apart > 0.01:
        found.append(f"two searches end in minima that differ by {apart:.0%}: the lower one is reported")
    log_e, alpha, beta = theta[2:]
    if log_e < np.log(0.01):
        found.append("the irreducible loss E is not resolved (fitted at or near 0): far extrapolation is unsafe")
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not EXPONENTS[0] < value < EXPONENTS[1]:
            found.append(f"{name} ran to the edge of its range ({value:.3g}): the runs do not determine it")
    interval = fit.interval("a")
    if interval is not None and interval[1] - interval[0] > 0.2:
        found.append(f"a is ill-determined: its {LEVEL:.0%} interval is {interval[0]:.2f} to {interval[1]:.2f}")
    return tuple(found)
