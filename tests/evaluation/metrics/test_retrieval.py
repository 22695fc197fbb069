"""Which clip a sample is nearest to."""

import numpy as np

from vdit.evaluation.metrics.retrieval import found_alike, ranks, similarities


def clips(count, seed, frames=3):
    return list(np.random.default_rng(seed).normal(size=(count, frames, 6)))


def test_a_clip_is_most_like_itself():
    true = clips(5, 0)
    cosines = similarities(true, true)
    np.testing.assert_allclose(np.diag(cosines), 1)
    np.testing.assert_array_equal(ranks(cosines, np.arange(5)), 0)


def test_what_all_clips_share_does_not_count():
    true = clips(5, 0)
    shifted = [clip + 100 for clip in true]
    np.testing.assert_allclose(similarities(shifted, shifted), similarities(true, true), atol=1e-6)


def test_ranks_count_those_that_are_nearer_and_half_of_ties():
    cosines = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2]])
    np.testing.assert_array_equal(ranks(cosines, np.array([2, 0])), [1, 1])
    assert ranks(np.zeros((1, 127)), np.array([3]))[0] == 63, "samples that tell nothing stand in the middle"


def test_alike_are_those_nearest_to_the_true_clip():
    true = np.array([[0.9, 0.8, 0.1, 0.0], [0.0, 0.1, 0.8, 0.9]])
    samples = np.array([[0.1, 0.9, 0.2, 0.0], [0.9, 0.1, 0.0, 0.2]])
    np.testing.assert_array_equal(found_alike(samples, true, 2), [True, False])
    np.testing.assert_array_equal(found_alike(samples, true, 1), [False, False])
    np.testing.assert_array_equal(found_alike(samples, true, 4), [True, True])
