"""Near duplicates among all clips of a data set, by their hashes, and by their embeddings where there are any.

Candidates share all bits of a draw, in at least one of `TABLES` random draws of k bits, where 2^k is about the number
of clips; they are then compared in full. Two hashes that differ in a share x of their bits become candidates with
probability 1 - (1 - (1 - x) ** k) ** TABLES: among a million, 0.997 for a tenth. Embeddings are found in the same way,
by the signs of random projections (Charikar 2002). All that this takes is sorting and counting bits, which NumPy does:
an index of nearest neighbours would add a library, threads, and an order of its own.
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

SIMILAR, MAX_SIMILAR_DIFFERENCE = 0.975, 0.3
"""Two clips are near duplicates, too, if the cosine of their embeddings is at least that, and so small a share of bits
differs: fewer than unlike pictures ever do. At 0.97 some pairs of the film are of one set only."""

SIGNS = 768
"""Random projections of an embedding whose signs are its bits."""

KEY_BITS, TABLES = (10, 20), 48
"""Fewest and most bits of a draw, and how many are drawn."""

NEIGHBOURS = 4
"""Clips of one key are compared with so many that follow: those that are alike hang together all the same."""

PLAIN = 0.02
"""Contrast below which a clip shows too little to be compared with others."""

COLUMN = "duplicate"
_HEADER = "split,number,id,other_split,other_number,other_id,difference,mirrored,similarity"


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
      pairs_P2: numbers of clips, the first smaller than the second.
      difference_P: share of bits in which they differ.
      similarity_P: cosine of their embeddings; NaN if there are none.
      mirrored_P: whether one is like the other mirrored.
      group_N: number of the group of clips that hang together by pairs, for each clip.
    """

    pairs_P2: np.ndarray
    difference_P: np.ndarray
    similarity_P: np.ndarray
    mirrored_P: np.ndarray
    group_N: np.ndarray


def find_duplicates(hash_NB: np.ndarray, usable_N: np.ndarray, embedding_NE: np.ndarray | None = None) -> Duplicates:
    """Pairs and groups of near duplicates.

    Args:
      hash_NB: uint8, of each clip.
      usable_N: whether a clip's hash says anything; that of an empty picture does not.
      embedding_NE: of length 1, of each clip.
    """
    clips = np.flatnonzero(usable_N)
    hashes = hash_NB[clips]
    both = np.concatenate([hashes, mirrored(hashes)])
    found = [_compared(both, embedding_NE, clips, *pair) for pair in _candidates(both)]
    if embedding_NE is not None:
        pairs = _candidates(_signs(embedding_NE[clips]))
        found += [_compared(both, embedding_NE, clips, a, b + n * len(clips)) for a, b in pairs for n in (0, 1)]
    rows = np.concatenate([np.zeros((0, 4), np.int64), *found])
    rows = rows[np.lexsort((rows[:, 3], rows[:, 2], rows[:, 1], rows[:, 0]))]
    rows = rows[np.unique(rows[:, :2], axis=0, return_index=True)[1]]  # of each pair the nearer way
    pairs_P2 = clips[rows[:, :2]]
    shape = (len(hash_NB), len(hash_NB))
    graph = coo_array((np.ones(len(rows), bool), (pairs_P2[:, 0], pairs_P2[:, 1])), shape=shape)
    group = connected_components(graph, directed=False)[1] if len(hash_NB) else np.zeros(0, np.int32)
    difference_P = rows[:, 2] / (hash_NB.shape[1] * 8)
    return Duplicates(pairs_P2, difference_P, _cosines(embedding_NE, pairs_P2), rows[:, 3].astype(bool), group)


def _compared(
    both: np.ndarray, embedding_NE: np.ndarray | None, clips: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Of candidates those that are near: rows (first, second, bits that differ, whether mirrored), numbers of `clips`.

    Args:
      both: hashes of the clips, then those of the clips mirrored.
      embedding_NE: of all clips, or None.
      clips: numbers of those that are hashed.
      a, b: entries of `both`.
    """
    count, most = len(clips), int(MAX_DIFFERENCE * both.shape[1] * 8)
    a, b = np.where(a < count, a, b), np.where(a < count, b, a)
    keep = (a < count) & (a != b % count)  # two mirrored ones are there unmirrored, too
    a, b = a[keep], b[keep]
    bits = np.bitwise_count(_words(both, a) ^ _words(both, b)).sum(1, dtype=np.int64)
    near = bits <= most
    if embedding_NE is not None:
        maybe = np.flatnonzero(~near & (bits <= MAX_SIMILAR_DIFFERENCE * both.shape[1] * 8))
        cosine = _cosines(embedding_NE, clips[np.stack([a[maybe], b[maybe] % count], 1)])
        near[maybe] = cosine >= SIMILAR
    first, second = a[near], b[near] % count
    rows = np.stack([np.minimum(first, second), np.maximum(first, second), bits[near], b[near] >= count], 1)
    return np.unique(rows, axis=0)


def _cosines(embedding_NE: np.ndarray | None, pairs_P2: np.ndarray) -> np.ndarray:
    """Of the embeddings of pairs; NaN if there are none."""
    if embedding_NE is None:
        return np.full(len(pairs_P2), np.nan)
    ends = (embedding_NE[pairs_P2[:, end]].astype(np.float32) for end in (0, 1))
    return np.einsum("pe,pe->p", *ends)


def _signs(embedding_NE: np.ndarray) -> np.ndarray:
    """Bits of embeddings, (N, SIGNS / 8) uint8: on which side of random planes through their mean they lie."""
    rng = np.random.Generator(np.random.Philox(key=1))
    planes_EB = rng.standard_normal((embedding_NE.shape[1], SIGNS), np.float32)
    centre_E = embedding_NE.mean(0, dtype=np.float32) if len(embedding_NE) else np.float32(0)
    parts = np.array_split(embedding_NE, max(1, len(embedding_NE) >> 14))
    return np.concatenate([np.packbits((part - centre_E) @ planes_EB > 0, axis=1) for part in parts])


def mark_duplicates(
    indexes: dict[str, Index], hashes: dict[str, np.ndarray], embeddings: dict[str, np.ndarray]
) -> tuple[str, dict[str, Index]]:
    """Finds near duplicates over all splits.

    Args:
      indexes: of the splits, with the measure `contrast`.
      hashes: of their clips, (N, BYTES) uint8.
      embeddings: of their clips, (N, E); empty if there are none.

    Returns:
      the pairs as CSV, and the indexes with the measure `duplicate`, see `mark`.
    """
    names = list(indexes)
    split_N = np.repeat(np.arange(len(names)), [len(indexes[name]) for name in names])
    number_N = np.concatenate([np.arange(len(indexes[name])) for name in names])
    id_N = np.concatenate([indexes[name].id for name in names])
    usable_N = np.concatenate([indexes[name].measures["contrast"] for name in names]) >= PLAIN
    embedding_NE = np.concatenate([embeddings[name] for name in names]) if embeddings else None
    found = find_duplicates(np.concatenate([hashes[name] for name in names]), usable_N, embedding_NE)
    lines = [_HEADER]
    for (a, b), *about in zip(found.pairs_P2, found.difference_P, found.mirrored_P, found.similarity_P, strict=True):
        difference, is_mirrored, similarity = about
        ends = [f"{names[split_N[i]]},{number_N[i]},{id_N[i]}" for i in (a, b)]
        shown = "" if np.isnan(similarity) else f"{similarity:.3f}"
        lines.append(f"{ends[0]},{ends[1]},{difference:.3f},{int(is_mirrored)},{shown}")
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
