"""Distances between sets of clips, on features whose distances are known."""

import numpy as np
import pytest

from vdit.evaluation.metrics.distances import (
    ClipKernels,
    clip_features,
    distances,
    frechet,
    paired_kernel,
    polynomial_kernel,
)

FEATURES = 6


def clips(seed: int, count: int, mean: float = 0.0, std: float = 1.0, frames: int = 4) -> list[np.ndarray]:
    """Frames that are alike within a clip."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(count, 1, FEATURES)) * std + mean
    return list(own + 0.1 * rng.normal(size=(count, frames, FEATURES)))


def test_frechet_of_gaussians():
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), which for diagonal C is a sum over features."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 60_000, FEATURES)) * [[[1.0]], [[2.0]]] + [[[0.0]], [[0.5]]]
    assert frechet(a, b) == pytest.approx(FEATURES * (0.25 + 1.0), rel=0.02)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_against_the_matrix_root():
    scipy_linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, FEATURES)), rng.normal(size=(50, FEATURES)) @ rng.normal(size=(FEATURES, FEATURES))
    c1, c2 = np.cov(a.T), np.cov(b.T)
    root = scipy_linalg.sqrtm(c1 @ c2).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet(a[:3], b[:3]) > 0, "fewer frames than features"


def test_the_kernel_distance_by_hand():
    """Means over pairs of different clips, and over all pairs between the sets."""
    a, b = clips(0, 3), clips(1, 4, mean=0.5)
    kernel = lambda x, y: polynomial_kernel(x, y).mean()  # noqa: E731
    within = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    across = np.mean([kernel(x, y) for x in a for y in b])
    found = ClipKernels(a, b).distance(np.ones(3), np.ones(4))
    assert found == pytest.approx(sum(within) - 2 * across)
    assert polynomial_kernel(np.full((1, 4), 2.0), np.full((1, 4), 1.0)).item() == 27


def test_counts_stand_for_repeated_clips():
    a, b = clips(0, 3), clips(1, 3)
    kernels = ClipKernels(a, b)
    np.testing.assert_allclose(
        kernels.distance(np.array([2, 0, 2]), np.ones(3)), ClipKernels([a[0], a[2]], b).distance(np.ones(2), np.ones(3))
    )


def test_the_kernel_distance_is_unbiased_and_the_interval_covers():
    """Between sets of one distribution it is 0 on average, however few clips and however alike their frames."""
    found = [distances(clips(2 * i, 12), clips(2 * i + 1, 12), i)["kernel"] for i in range(40)]
    values = np.array([f["value"] for f in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert np.mean([f["interval"][0] <= 0 <= f["interval"][1] for f in found]) >= 0.8


@pytest.mark.parametrize("kind", ["kernel", "frechet"])
def test_distances_grow_with_the_difference(kind):
    real = clips(0, 40)
    found = [distances(clips(1, 40, mean), real)[kind] for mean in (0.0, 0.5, 1.0)]
    values = [f["value"] for f in found]
    assert values[0] < values[1] < values[2]
    assert all(f["interval"][0] < f["value"] < f["interval"][1] for f in found)
    assert found[2]["interval"][0] > found[0]["interval"][1]


def test_a_distance_needs_two_clips():
    with pytest.raises(ValueError, match="two clips"):
        distances(clips(0, 1), clips(1, 5))


def test_features_of_clips_of_different_sizes():
    videos = [np.full((t, y, 8, 3), t, np.uint8) for t, y in ((9, 8), (5, 16), (1, 8), (13, 16))]
    asked = []

    def features(frames: np.ndarray) -> np.ndarray:
        asked.append(frames.shape)
        return frames.reshape(len(frames), -1).mean(1, keepdims=True)

    found = clip_features(videos, 4, features)
    assert [len(f) for f in found] == [3, 2, 1, 4]
    assert [f[0, 0] for f in found] == [9, 5, 1, 13]
    assert asked == [(4, 8, 8, 3), (6, 16, 8, 3)], "one call for each size"


def test_the_distance_of_pairs_by_hand():
    """Over i != j: k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)."""
    a, b = clips(0, 3), clips(1, 3, mean=0.5)
    kernel = lambda x, y: polynomial_kernel(x, y).mean()  # noqa: E731
    terms = [
        kernel(a[i], a[j]) + kernel(b[i], b[j]) - kernel(a[i], b[j]) - kernel(a[j], b[i])
        for i in range(3)
        for j in range(3)
        if i != j
    ]
    found = paired_kernel(a, b)
    assert found["value"] == pytest.approx(np.mean(terms))
    assert found["interval"][0] <= found["value"] <= found["interval"][1]
    assert paired_kernel(a, a)["value"] == pytest.approx(0, abs=1e-12)
    for wrong in (b[:1], b[:2]):
        with pytest.raises(ValueError, match="two at least"):
            paired_kernel(a[: len(wrong)] if len(wrong) == 1 else a, wrong)
