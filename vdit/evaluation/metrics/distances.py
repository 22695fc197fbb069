"""Distances between two sets of clips by features of their frames: a kernel distance (KID) and a Frechet distance.

Frames of one clip are alike, so clips, not frames, are what is counted and resampled: the kernel of two clips is the
mean over pairs of their frames, and the kernel distance is the unbiased estimate over clips. The Frechet distance is
biased upwards as long as there are not many times more frames than features. Both are therefore printed with the same
distance between two sets of real clips, the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

DRAWS = 200


def frechet(a_NF: np.ndarray, b_NF: np.ndarray) -> float:
    """Frechet distance of two Gaussians with the sets' means and covariances (Heusel et al. 2017, equation 6).

    Of covariances A'A and B'B the trace of the root of their product is the sum of the singular values of A B'; A and B
    may be replaced by their triangular factors for that.
    """
    a_NF, b_NF = np.asarray(a_NF, np.float64), np.asarray(b_NF, np.float64)
    means = [x.mean(0) for x in (a_NF, b_NF)]
    a, b = ((x - mean) / np.sqrt(max(len(x) - 1, 1)) for x, mean in zip((a_NF, b_NF), means, strict=True))
    small = [np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x for x in (a, b)]
    shared = np.linalg.svd(small[0] @ small[1].T, compute_uv=False).sum()
    return float(((means[0] - means[1]) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared)


def polynomial_kernel(a_NF: np.ndarray, b_NF: np.ndarray) -> np.ndarray:
    """(a b' / F + 1)^3 (Binkowski et al. 2018), float64."""
    a_NF, b_NF = np.asarray(a_NF, np.float64), np.asarray(b_NF, np.float64)
    return (a_NF @ b_NF.T / a_NF.shape[1] + 1) ** 3


class ClipKernels:
    """Mean kernels between the clips of two sets.

    Args:
      a, b: features_NF of the frames of each clip.
    """

    def __init__(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]):
        self._aa, self._bb, self._ab = (_clip_means(x, y) for x, y in ((a, a), (b, b), (a, b)))

    def distance(self, a: np.ndarray, b: np.ndarray) -> float:
        """The unbiased squared maximum mean discrepancy with clips taken as often as counts a and b say."""
        total = -2 * a @ self._ab @ b / (a.sum() * b.sum())
        for counts, kernel in ((a, self._aa), (b, self._bb)):
            pairs = np.outer(counts, counts)
            np.fill_diagonal(pairs, 0)  # a clip is no pair with itself, nor with its copies
            total += (pairs * kernel).sum() / max(pairs.sum(), 1)
        return float(total)


def paired_kernel(a: Sequence[np.ndarray], b: Sequence[np.ndarray], seed: int = 0) -> dict[str, Any]:
    """The kernel distance between clips and what was made of each, with a 95% interval by bootstrap over clips.

    A clip is like its own copy, so such pairs are left out: the U-statistic of Gretton et al. 2012, equation 3. Equal
    sets have distance 0.

    Args:
      a, b: features_NF of the frames of each clip, in the same order, two clips at least.
      seed: of the draws.

    Raises:
      ValueError: with fewer clips, or another number of either.
    """
    if len(a) < 2 or len(a) != len(b):
        raise ValueError(f"a distance of pairs needs two at least, not {len(a)} and {len(b)} clips")
    between = _clip_means(a, b)
    kernel = _clip_means(a, a) + _clip_means(b, b) - between - between.T

    def distance(counts: np.ndarray) -> float:
        pairs = np.outer(counts, counts)
        np.fill_diagonal(pairs, 0)
        return float((pairs * kernel).sum() / max(pairs.sum(), 1))

    rng = np.random.default_rng(seed)
    draws = [np.bincount(rng.integers(0, len(a), len(a)), minlength=len(a)) for _ in range(DRAWS)]
    return _with_interval(distance(np.ones(len(a))), [distance(counts) for counts in draws])


def _clip_means(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    kernel = polynomial_kernel(np.concatenate(a), np.concatenate(b))
    edges = [np.cumsum([0, *map(len, x)]) for x in (a, b)]
    sums = np.add.reduceat(np.add.reduceat(kernel, edges[0][:-1], 0), edges[1][:-1], 1)
    return sums / np.outer(*(np.diff(edge) for edge in edges))


def distances(a: Sequence[np.ndarray], b: Sequence[np.ndarray], seed: int = 0) -> dict[str, Any]:
    """Both distances between two sets of clips, with 95% intervals by bootstrap over clips.

    Args:
      a, b: features_NF of the frames of each clip, two clips at least in each.
      seed: of the draws.

    Raises:
      ValueError: with fewer clips.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a distance needs two clips of each kind at least")
    kernels = ClipKernels(a, b)
    rng = np.random.default_rng(seed)

    def drawn(count: int) -> np.ndarray:
        return np.bincount(rng.integers(0, count, count), minlength=count)

    draws = [(drawn(len(a)), drawn(len(b))) for _ in range(DRAWS)]
    repeat = lambda clips, counts: np.concatenate([clips[i] for i in np.repeat(np.arange(len(clips)), counts)])  # noqa: E731
    return {
        "kernel": _with_interval(
            kernels.distance(np.ones(len(a)), np.ones(len(b))), [kernels.distance(i, j) for i, j in draws]
        ),
        "frechet": _with_interval(
            frechet(np.concatenate(a), np.concatenate(b)), [frechet(repeat(a, i), repeat(b, j)) for i, j in draws]
        ),
    }


def _with_interval(value: float, drawn: Sequence[float]) -> dict[str, Any]:
    """The spread of the drawn values about the value itself: repeated clips bias a drawn distance upwards."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    middle = float(np.median(drawn))
    return {"value": value, "interval": [value - (middle - float(low)), value + (float(high) - middle)]}


def clip_features(
    videos: Sequence[np.ndarray], frame_interval: int, features: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """features_NF of every `frame_interval`-th frame of each video_TYXC."""
    chosen = [video[::frame_interval] for video in videos]
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, frames in enumerate(chosen):
        by_size.setdefault(frames.shape[1:], []).append(i)
    out: list[np.ndarray] = [np.empty(0)] * len(videos)
    for members in by_size.values():
        found = features(np.concatenate([chosen[i] for i in members]))
        edges = np.cumsum([len(chosen[i]) for i in members])[:-1]
        for i, own in zip(members, np.split(found, edges), strict=True):
            out[i] = own
    return out
