"""Rows of padding and bucketing, to compare packing with."""

from __future__ import annotations

import numpy as np

from vdit.batch import RowShape


def pack_buckets(
    lengths_N: np.ndarray, text_N: np.ndarray, shape: RowShape, buckets: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Packs every example once, with examples of one bucket of length only in a row.

    A row holds as many as would fit were they all padded to the longest of their bucket, as in a batch of one shape.
    What padding wastes are thus slots at the end of the row.

    Args:
      lengths_N, text_N, shape, rng: as of `best_fit.pack`.
      buckets: so many buckets with about the same number of examples each; 1 pads to the longest of all.

    Returns:
      as `best_fit.pack`.
    """
    if not len(lengths_N):
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    shuffled = rng.permutation(len(lengths_N))
    sorted_N = shuffled[np.argsort(lengths_N[shuffled], kind="stable")]
    orders, sizes = [], []
    for bucket in np.array_split(sorted_N, min(buckets, len(sorted_N))):
        words = max(1, int(text_N[bucket].max()))
        most = min(shape.examples, shape.tokens // int(lengths_N[bucket].max()), shape.text // words)
        orders.append(rng.permutation(bucket))
        full, rest = divmod(len(bucket), most)
        sizes += [most] * full + [rest] * bool(rest)
    return np.concatenate(orders), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
