"""The order of examples within a row, in which they touch few pairs of attention blocks.

Attention kernels on accelerators work on blocks of the row, and a segment that touches k blocks costs k^2 pairs of
them. How many it touches beyond n / BLOCK depends on where it begins: it reaches into one more if a border lies within
its rest. A border between two examples costs nothing, so examples that fill whole blocks together come together, if
there are such; of the others long ones begin where they fit, and short ones, for which it matters least, lie across the
borders.
"""

from __future__ import annotations

import itertools

import numpy as np

from vdit.config import ATTENTION_BLOCKS

BLOCK = ATTENTION_BLOCKS["splash"]
"""Tokens of a block of the TPU kernel. Its divisors gain too."""

MIN_SLOTS = 8 * BLOCK
"""Shorter rows are left as they are: few blocks, little to gain."""

COUNTS = (1, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64)
"""Rows are worked on together with those that hold about as many examples. With more than the last, all are short."""

PAIRS = 1 << 18
"""Pairs of examples at a time, which bounds the memory."""

GROUPS, SEARCHED = 4, 24
"""Most groups of a row that are looked for, among how many examples."""


def order_segments(lengths: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Orders the examples of each row so that they touch few pairs of blocks; no row touches more than before.

    Args:
      lengths: tokens of the examples, row after row.
      offsets: (rows + 1,) where each row begins.

    Returns:
      int64 permutation of the examples, which stay in their rows.
    """
    out = np.arange(len(lengths))
    counts = np.diff(offsets)
    for least, most in itertools.pairwise(COUNTS):
        rows = np.flatnonzero((counts > least) & (counts <= most))
        for part in np.array_split(rows, -(-len(rows) * most**2 // PAIRS)) if len(rows) else []:
            place = offsets[part][:, None] + np.arange(most)
            real = np.arange(most) < counts[part][:, None]
            padded = np.where(real, lengths[np.minimum(place, len(lengths) - 1)], 0).astype(np.int32)
            chosen = _fitted(padded, _groups(padded))
            better = block_pairs(np.take_along_axis(padded, chosen, 1)) < block_pairs(padded)
            real &= better[:, None]
            out[place[real]] = (offsets[part][:, None] + chosen)[real]
    return out


def block_pairs(lengths_RN: np.ndarray) -> np.ndarray:
    """Pairs of blocks of each row that share a segment, pairs_R; lengths of 0 are not there."""
    ends = np.cumsum(lengths_RN, axis=1)
    first, last = (ends - lengths_RN) // BLOCK, (ends - 1) // BLOCK
    touched = np.where(lengths_RN > 0, last - first + 1, 0)
    shared = (first[:, 1:] == last[:, :-1]) & (lengths_RN[:, 1:] > 0)  # a block's pair with itself counts once
    return (touched.astype(np.int64) ** 2).sum(1) - shared.sum(1)


def _groups(lengths_RN: np.ndarray) -> np.ndarray:
    """Groups of up to four examples that fill whole blocks: their numbers, group_RN from 0, GROUPS for those in none.

    Two examples, or one and nothing, are a pair, whose members are bits. What a pair lacks of whole blocks is looked up
    in a table of their sums, which holds one pair of each sum, so not every group is found. Each pass takes one a row.
    """
    few_RM = lengths_RN[:, :SEARCHED]
    nothing = few_RM.shape[1]
    bits = np.append(np.uint64(1) << np.arange(nothing, dtype=np.uint64), np.uint64(0))
    left, right = np.triu_indices(nothing + 1, 1)
    pairs = bits[left] | bits[right]
    rest = np.pad(few_RM, ((0, 0), (0, 1)))
    sums = (rest[:, left] + rest[:, right]) % BLOCK
    gone = np.where(few_RM > 0, 0, bits[:-1]).sum(1, dtype=np.uint64)
    group_RN, row = np.full(lengths_RN.shape, GROUPS), np.arange(len(lengths_RN))
    for number in range(GROUPS):
        start, nowhere = np.arange(0, len(row) * BLOCK, BLOCK)[:, None], len(row) * BLOCK
        away = pairs & gone[:, None] != 0
        table = np.zeros(nowhere + 1, np.uint64)
        table[np.where(away, nowhere, start + sums)] = pairs
        table[nowhere] = 0
        other = table[np.where(away, nowhere, start + -sums % BLOCK)]
        found = (other != 0) & (other & pairs == 0)
        first = found.argmax(1)
        at = np.flatnonzero(found[np.arange(len(row)), first])
        members = pairs[first[at]] | other[at, first[at]]
        row, sums, gone = row[at], sums[at], gone[at] | members
        where, column = np.nonzero(members[:, None] & bits)
        group_RN[row[where], column] = number
    return group_RN


def _fitted(lengths_RN: np.ndarray, group_RN: np.ndarray) -> np.ndarray:
    """An order of every row, group by group, chosen from its start: columns_RN, those of length 0 last.

    An example of q whole blocks and a rest touches q + 1 if the rest fits into what is left of the current block, else
    q + 2. Next comes what ends with the block; then the longest that fits, q weighed with the rest; then a short one,
    such that as little as possible of a block is used behind it; a long one that does not fit only at the end.
    """
    rows, count = lengths_RN.shape
    row, used = np.arange(rows), np.zeros(rows, np.int32)
    left = lengths_RN > 0
    whole, rest = (lengths_RN - 1) // BLOCK, (lengths_RN - 1) % BLOCK + 1
    rank = 1 << 20  # more than any number of blocks or tokens
    early = 8 * rank * (GROUPS - group_RN)
    fitting = 2 * rank + 50 * whole + rest
    taken = np.where(left, -3 * rank, -2 * rank)  # less than nothing, so that rows end with columns of length 0
    out = np.empty((rows, count), np.int64)
    for n in range(count):
        end = used[:, None] + rest
        after = np.where(end >= BLOCK, end - BLOCK, end)
        worth = np.where(whole > 0, np.where(end <= BLOCK, fitting, -BLOCK * whole - after), rank - after)
        worth = np.where(end == BLOCK, 3 * rank + whole, worth)
        out[:, n] = chosen = np.where(left, worth + early, taken).argmax(1)
        used = np.where(left[row, chosen], after[row, chosen], used)
        left[row, chosen] = False
    return out
