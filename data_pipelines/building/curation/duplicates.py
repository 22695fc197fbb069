"""Near duplicates among all clips of a data set, by their hashes.

Candidates share all bits of a draw, in at least one of `TABLES` random draws of k bits, where 2^k is about the number
of clips; they are then compared in full. Two hashes that differ in a share x of their bits become candidates with
probability 1 - (1 - (1 - x) ** k) ** TABLES: among a million, 0.997 for a tenth. All that this takes is sorting and
counting bits, which NumPy does: an index of nearest neighbours would add a library, threads, and an order of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_pipelines.media.hashing import mirrored
from data_pipelines.packing.index import DUPLICATES_FILE, Index

MAX_DIFFERENCE = 0.14
"""Share of differing bits up to which two clips are near duplicates; benchmarks.duplicates shows what that finds."""

KEY_BITS, TABLES = (10, 20), 48
"""Fewest and most bits of a draw, and how many are drawn."""

NEIGHBOURS = 4
"""Clips of one key are compared with so many that follow: those that are alike hang together all the same."""


PLAIN = 0.02
"""Contrast below which a clip shows too little to be compared with others."""

COLUMN = "duplicate"
_HEADER = "split,number,id,other_split,other_number,other_id,difference,mirrored"


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
      pairs_P2: numbers of clips, the first smaller than the second.
      difference_P: share of bits in which they differ.
      mirrored_P: whether one is like the other mirrored.
      group_N: number of the group of clips that hang together by pairs, for each clip.
    """

    pairs_P2: np.ndarray
    difference_P: np.ndarray
    mirrored_P: np.ndarray
    group_N: np.ndarray


def find_duplicates(hash_NB: np.ndarray, usable_N: np.ndarray) -> Duplicates:
    """Pairs and groups of near duplicates.

    Args:
      hash_NB: uint8, of each clip.
      usable_N: whether a clip's hash says anything; that of an empty picture does not.
    """
    clips = np.flatnonzero(usable_N)
    hashes = hash_NB[clips]
    both = np.concatenate([hashes, mirrored(hashes)])
    most = int(MAX_DIFFERENCE * hashes.shape[1] * 8) if len(clips) else 0
    found: list[np.ndarray] = []
    for a, b in _candidates(both):
        count = len(clips)
        a, b = np.where(a < count, a, b), np.where(a < count, b, a)
        keep = (a < count) & (a != b % count)  # two mirrored ones are there unmirrored, too
        a, b = a[keep], b[keep]
        bits = np.bitwise_count(_words(both, a) ^ _words(both, b)).sum(1, dtype=np.int64)
        near = bits <= most
        first, second = a[near], b[near] % count
        rows = np.stack([np.minimum(first, second), np.maximum(first, second), bits[near], b[near] >= count], 1)
        found.append(np.unique(rows, axis=0))
    rows = np.concatenate(found) if found else np.zeros((0, 4), np.int64)
    rows = rows[np.lexsort((rows[:, 3], rows[:, 2], rows[:, 1], rows[:, 0]))]
    rows = rows[np.unique(rows[:, :2], axis=0, return_index=True)[1]]  # of each pair the nearer way
    pairs = clips[rows[:, :2]]
    shape = (len(hash_NB), len(hash_NB))
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=shape)
    group = connected_components(graph, directed=False)[1] if len(hash_NB) else np.zeros(0, np.int32)
    return Duplicates(pairs, rows[:, 2] / (hash_NB.shape[1] * 8), rows[:, 3].astype(bool), group)


def mark_duplicates(indexes: dict[str, Index], hashes: dict[str, np.ndarray]) -> tuple[str, dict[str, Index]]:
    """Finds near duplicates over all splits.

    Args:
      indexes: of the splits, with the measure `contrast`.
      hashes: of their clips, (N, BYTES) uint8.

    Returns:
      the pairs as CSV, and the indexes with the measure `duplicate`, see `mark`.
    """
    names = list(indexes)
    split_N = np.repeat(np.arange(len(names)), [len(indexes[name]) for name in names])
    number_N = np.concatenate([np.arange(len(indexes[name])) for name in names])
    id_N = np.concatenate([indexes[name].id for name in names])
    usable_N = np.concatenate([indexes[name].measures["contrast"] for name in names]) >= PLAIN
    found = find_duplicates(np.concatenate([hashes[name] for name in names]), usable_N)
    lines = [_HEADER]
    for (a, b), difference, is_mirrored in zip(found.pairs_P2, found.difference_P, found.mirrored_P, strict=True):
        ends = [f"{names[split_N[i]]},{number_N[i]},{id_N[i]}" for i in (a, b)]
        lines.append(f"{ends[0]},{ends[1]},{difference:.3f},{int(is_mirrored)}")
    marks = np.split(mark(found.group_N, split_N), np.cumsum([len(indexes[name]) for name in names])[:-1])
    marked = {
        name: dataclasses.replace(index, measures={**index.measures, COLUMN: column})
        for (name, index), column in zip(indexes.items(), marks, strict=True)
    }
    return "\n".join(lines) + "\n", marked


def describe_duplicates(indexes: dict[str, Index]) -> str:
    """What the column says of all splits, in words; empty if of no clip."""
    marks = np.concatenate([index.measures.get(COLUMN, np.zeros(0)) for index in indexes.values()])
    repeated, leaking = int((marks == 1).sum()), int((marks == 2).sum())
    if not repeated + leaking:
        return ""
    return (
        f"near duplicates: {repeated} clips of one before them, {leaking} of clips of another split (a leak); "
        f"{DUPLICATES_FILE} has the pairs, data.filter='{COLUMN} == 0' leaves them out"
    )


def mark(group_N: np.ndarray, split_N: np.ndarray) -> np.ndarray:
    """What the column `duplicate` says of each clip, (N,) float32.

    0: it is alone, or the first of its group; 1: a clip of its split comes before it; 2: clips of another split are in
    its group, so that one of them leaks what the other tests.
    """
    marks = np.zeros(len(group_N), np.float32)
    order = np.lexsort((np.arange(len(group_N)), split_N, group_N))
    same = (group_N[order][1:] == group_N[order][:-1]) & (split_N[order][1:] == split_N[order][:-1])
    marks[order[1:][same]] = 1
    low, high = (np.full(group_N.max(initial=-1) + 1, start) for start in (np.iinfo(np.int64).max, -1))
    np.minimum.at(low, group_N, split_N)
    np.maximum.at(high, group_N, split_N)
    marks[low[group_N] != high[group_N]] = 2
    return marks


def _candidates(hash_NB: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows that share the bits of a draw."""
    rng = np.random.default_rng(0)
    width = int(np.clip(len(hash_NB).bit_length(), *KEY_BITS))
    for _ in range(TABLES if len(hash_NB) else 0):
        bits = rng.choice(hash_NB.shape[1] * 8, width, replace=False)
        key_N = np.zeros(len(hash_NB), np.uint32)
        for place, bit in enumerate(bits.tolist()):
            key_N |= ((hash_NB[:, bit // 8] >> (7 - bit % 8)) & 1).astype(np.uint32) << np.uint32(place)
        order = np.argsort(key_N, kind="stable")
        key_N = key_N[order]
        for step in range(1, NEIGHBOURS + 1):
            same = np.flatnonzero(key_N[step:] == key_N[:-step])
            yield order[same], order[same + step]


def _words(hash_NB: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return hash_NB[rows].view(np.uint64)
