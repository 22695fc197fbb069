"""Designs of runs whose law is known: what `benchmarks.laws` simulates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vdit.scaling.laws.law import Law
from vdit.scaling.runs import Table

BESIROGLU = Law(482.0, 2085.0, 1.82, 0.3478, 0.3658)
CHINCHILLA = Law(406.4, 410.7, 1.69, 0.34, 0.28)
SYMMETRIC = Law(406.4, 410.7, 1.69, 0.31, 0.31)
ASYMMETRIC = Law(406.4, 410.7, 1.69, 0.465, 0.155)


@dataclasses.dataclass(frozen=True)
class Design:
    """Runs of a known law, before noise.

    Attributes:
      name: as printed.
      law: the truth.
      params, tokens: of each run; C = 6 N D.
    """

    name: str
    law: Law
    params: np.ndarray
    tokens: np.ndarray

    def table(self, noise: float, seed: int) -> Table:
        """The runs with noise of the log loss; designs of other sizes have other noise."""
        loss = self.law.loss(self.params, self.tokens)
        loss = loss * np.exp(np.random.default_rng((len(loss), seed)).normal(0, noise, len(loss)))
        names = tuple(map(str, range(len(loss))))
        unknown = np.full(len(loss), np.nan)  # budgets are found from the FLOPs, as of most tables
        return Table(6 * self.params * self.tokens, self.params, self.tokens, loss, unknown, names)


def isoflop(name: str, law: Law, budgets: np.ndarray, sizes: int, width: float, drift: float = 1.0) -> Design:
    """Sizes within a factor `width` of the best at each budget; their middle drifts to `drift` times the best."""
    along = np.linspace(0, 1, len(budgets))
    n = law.optimal_params(budgets) * drift**along
    params = (n[:, None] * np.geomspace(1 / width, width, sizes)).ravel()
    return Design(name, law, params, np.repeat(budgets, sizes) / (6 * params))


def rectangle(name: str, law: Law, params: np.ndarray, tokens: np.ndarray) -> Design:
    """Every size at every number of tokens, as branches off one trunk a size give."""
    n, d = (grid.ravel() for grid in np.meshgrid(params, tokens))
    return Design(name, law, n, d)


def ladder(name: str, law: Law, params: np.ndarray, ratios: tuple[float, ...]) -> Design:
    """Every size at some ratios of tokens to parameters."""
    n = np.repeat(params, len(ratios))
    return Design(name, law, n, n * np.tile(ratios, len(params)))


def designs() -> list[Design]:
    """Six designs, from 20 runs to 72."""
    sizes = np.geomspace(1e7, 2e9, 8)
    return [
        isoflop("4 budgets x 5 sizes, 1/4 to 4", BESIROGLU, np.geomspace(1e17, 1e19, 4), 5, 4),
        isoflop("6 budgets x 7 sizes, 1/4 to 4", BESIROGLU, np.geomspace(1e18, 3e20, 6), 7, 4),
        isoflop("8 budgets x 9 sizes, 1/8 to 8", CHINCHILLA, np.geomspace(1e17, 1e21, 8), 9, 8),
        isoflop("asymmetric, drifting to 1/3", ASYMMETRIC, np.geomspace(1e17, 1e21, 5), 9, 8, 1 / 3),
        rectangle("8 sizes x 8 lengths", BESIROGLU, np.geomspace(1e7, 2e9, 8), np.geomspace(2e8, 5e10, 8)),
        ladder("8 sizes at D/N of 5, 20, 80", BESIROGLU, sizes, (5.0, 20.0, 80.0)),
    ]


def noisy_designs(repeats: int) -> Iterator[tuple[float, int, int, np.ndarray, np.ndarray, np.ndarray]]:
    """The noisy designs of arXiv 2603.22339 with its seeds: (noise, budgets, sizes, N, D, losses_KR)."""
    for noise in (0.05, 0.1, 0.2):
        for budgets in (2, 3, 4):
            rngs = [np.random.default_rng(42 + repeat) for repeat in range(repeats)]
            for sizes in (4, 8, 16, 32):
                design = isoflop("", ASYMMETRIC, np.geomspace(1e17, 1e21, budgets), sizes, 8, 1 / 3)
                exact = ASYMMETRIC.loss(design.params, design.tokens)
                losses = [exact + np.concatenate([rng.normal(0, noise, sizes) for _ in range(budgets)]) for rng in rngs]
                yield noise, budgets, sizes, design.params, design.tokens, np.array(losses)
