"""What a law is for: the best N, D and loss at a budget, the price of a wrong size, of serving, and lines of loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from vdit.scaling.laws.approaches.parametric import EXPONENTS, Fit
from vdit.scaling.laws.law import Interval, Law, Number, central

_FACTORS = (0.25, 0.5, 2.0, 4.0)  # sizes beside the best whose price is said
_GRID = 4001  # sizes that an optimum without a closed form is sought among


def has_optimum(fit: Fit, flops: float) -> bool:
    """Whether the law has a best size at a budget that means something: none where an exponent ran to its edge."""
    if not all(EXPONENTS[0] < value < EXPONENTS[1] for value in (fit.law.alpha, fit.law.beta)):
        return False
    params = fit.law.optimal_params(flops, fit.cost)
    return bool(0 < params < np.inf and 0 < fit.cost.tokens(flops, params) < np.inf)


def at_budget(fit: Fit, flops: float, seed: int = 0) -> dict[str, Any]:
    """N_opt, D_opt, their ratio and the loss of one run there, with intervals, and what other sizes would cost.

    Intervals of N, D and their ratio hold the uncertainty of the law; that of the loss also the scatter of a single
    run. The law must have an optimum there.
    """
    params = float(fit.law.optimal_params(flops, fit.cost))
    tokens = float(fit.cost.tokens(flops, params))
    sizes = fit.resamples.optimal_params(flops, fit.cost)
    loss, span = fit.predict(params, tokens, seed)
    return {
        "flops": flops,
        "params": params,
        "params_interval": _span(fit, sizes),
        "tokens": tokens,
        "tokens_interval": _span(fit, fit.cost.tokens(flops, sizes)),
        "tokens_per_param": tokens / params,
        "tokens_per_param_interval": _span(fit, fit.cost.tokens(flops, sizes) / sizes),
        "loss": loss,
        "loss_interval": span,
        "mis_sized": [mis_sized(fit, flops, factor) for factor in _FACTORS],
    }


def _span(fit: Fit, values: Number) -> Interval | None:
    """The interval of what follows from the law's resamples; none where an exponent is undetermined."""
    return None if fit.free_exponents else central(values)


def mis_sized(fit: Fit, flops: float, factor: float) -> dict[str, Any]:
    """What a model `factor` times the best size costs at the same budget.

    Returns:
      the loss that is lost, and the share of the budget that is wasted: what the best size would have needed less of
      to reach the loss of the wrong one. Both with intervals that hold the uncertainty of the law alone.
    """
    params = float(fit.law.optimal_params(flops, fit.cost)) * factor
    tokens = float(fit.cost.tokens(flops, params))
    drawn = fit.resamples

    def lost(law: Law) -> Number:
        return law.loss(params, tokens) - law.optimal_loss(flops, fit.cost)

    def wasted(law: Law) -> Number:
        return 1 - budget_for(law, law.loss(params, tokens), fit) / flops

    return {
        "factor": factor,
        "params": params,
        "tokens": tokens,
        "loss_lost": float(lost(fit.law)),
        "loss_lost_interval": central(lost(drawn)),
        "compute_wasted": float(wasted(fit.law)),
        "compute_wasted_interval": central(wasted(drawn)),
    }


def budget_for(law: Law, loss: Number, fit: Fit) -> Number:
    """The least FLOPs with which a law reaches a loss; infinite at or below E.

    Along the optimum both terms fall as C^-s, s = alpha beta / (alpha + g beta), so it has a closed form.
    """
    g = fit.cost.exponent
    slope = law.alpha * law.beta / (law.alpha + g * law.beta)
    with np.errstate(all="ignore"):
        share = (np.asarray(loss) - law.E) / (law.optimal_loss(1.0, fit.cost) - law.E)
        return np.where(share > 0, np.power(share, -1 / slope), np.inf)


def with_inference(fit: Fit, flops: float, served: float) -> dict[str, Any]:
    """The cheapest model of equal quality when it also serves tokens (Sardana et al. 2024, arXiv 2401.00448).

    Keeps the loss that `flops` of training buy at the best size, and minimises training plus inference, C(N, D) +
    C(N, T) / 3: a forward pass is a third of a step.

    Args:
      fit: the law.
      flops: of training, if nothing were served.
      served: T, tokens served over the model's life.

    Returns:
      {"served_tokens", "params", "tokens", "flops", "saved"}: N and D to train, FLOPs in all, and the share that is
      saved of what the training optimum would cost in all; each but the first with an interval.
    """

    def best(law: Law) -> np.ndarray:
        params, tokens = cheapest(law, fit, flops, served)
        total = fit.cost.flops(params, tokens) + fit.cost.flops(params, served) / 3
        usual = law.optimal_params(flops, fit.cost)
        return np.array([params, tokens, total, 1 - total / (flops + fit.cost.flops(usual, served) / 3)])

    count = min(len(np.atleast_1d(fit.resamples.alpha)), 400)
    drawn = np.array([best(fit.resamples.at(place)) for place in range(count)]).reshape(-1, 4)
    names = ("params", "tokens", "flops", "saved")
    found: dict[str, Any] = {"served_tokens": served}
    for name, value, values in zip(names, best(fit.law), drawn.T, strict=True):
        found |= {name: float(value), f"{name}_interval": central(values)}
    return found


def cheapest(law: Law, fit: Fit, flops: float, served: float) -> tuple[float, float]:
    """(N, D) that reach the loss of the optimum at `flops` and cost least with the tokens served; nan without one."""
    loss = float(law.optimal_loss(flops, fit.cost))
    best = float(law.optimal_params(flops, fit.cost))
    params = best * np.geomspace(1e-3, 10, _GRID)
    with np.errstate(all="ignore"):  # a draw's law may have no optimum
        tokens = iso_loss(law, loss, params)
        cost = fit.cost.flops(params, tokens) + fit.cost.flops(params, served) / 3
    if not np.isfinite(cost).any():
        return np.nan, np.nan
    place = int(np.nanargmin(np.where(np.isfinite(tokens), cost, np.inf)))
    return float(params[place]), float(tokens[place])


def iso_loss(law: Law, loss: float, params: np.ndarray) -> np.ndarray:
    """Tokens with which each size reaches a loss; infinite for sizes that are too small ever to reach it."""
    left = loss - law.E - law.A * np.power(params, -law.alpha)
    with np.errstate(all="ignore"):
        return np.where(left > 0, np.power(law.B / left, 1 / law.beta), np.inf)
