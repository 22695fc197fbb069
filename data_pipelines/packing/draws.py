"""What an epoch draws before it is packed: how often it holds each example, and which window of a long clip.

Every draw is a function of (seed, example, epoch), so an epoch can be planned without the ones before it.
"""

from __future__ import annotations

import numpy as np


def visits(count: int, weight: float, epoch: int, seed: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples of one epoch of a data set that is read at a weight.

    After e epochs every example has been visited floor(e * weight) or ceil(e * weight) times, and every epoch holds
    count * weight examples, up to rounding.

    Args:
      count: examples of the data set.
      weight: mean visits of an example in an epoch, >= 0.
      epoch: which epoch, from 0.
      seed, part: of the order in which examples take turns.

    Returns:
      examples: (E,) int64, ascending; one that is visited several times stands there as often.
      visit: (E,) int64, how often it has been visited before.
    """
    examples = np.arange(count)
    if weight == 1:
        return examples, np.full(count, epoch)
    phase_key = np.array([seed % 2**64, 2**63 + part], np.uint64)  # no epoch has this key
    rng = np.random.Generator(np.random.Philox(key=phase_key))
    phase = (rng.permutation(count) + 0.5) / count
    before, after = (np.floor(e * weight + phase).astype(np.int64) for e in (epoch, epoch + 1))
    times = after - before
    examples = np.repeat(examples, times)
    first = np.repeat(np.cumsum(times) - times, times)
    return examples, before[examples] + np.arange(len(examples)) - first


def window_starts(frames: np.ndarray, window: np.ndarray, ids: np.ndarray, visit: np.ndarray, seed: int) -> np.ndarray:
    """First frame of the window that each visit takes of its clip.

    A clip of F frames takes turns of ceil(F / W) + 1 visits. In each turn its windows lie end to end, shifted by a
    random number of frames and moved inside the clip at both ends; so a turn shows every frame, and turns differ.

    Args:
      frames: (E,) frames F of each clip.
      window: (E,) frames W of its window.
      ids: (E,) uint64 identities of the clips.
      visit: (E,) how often each has been visited before.
      seed: of the shifts.

    Returns:
      (E,) int32.
    """
    starts = np.zeros(len(frames), np.int32)
    cut = np.flatnonzero(frames > window)
    frames, window, ids, visit = (a[cut].astype(np.int64) for a in (frames, window, ids.view(np.int64), visit))
    length = -(-frames // window) + 1
    turn, place = np.divmod(visit, length)
    shift = _hash(ids, turn, seed)
    place = (place + (shift >> np.uint64(32)).astype(np.int64)) % length
    shift = (shift & np.uint64(0xFFFFFFFF)).astype(np.int64) % window
    starts[cut] = np.clip(place * window - shift, 0, frames - window)
    return starts


def chosen(ids: np.ndarray, members: np.ndarray, fraction: float) -> np.ndarray:
    """The share of some examples that a hash of their ids puts first, at least one; smaller shares are part of larger.

    Args:
      ids: (N,) uint64 identities of all examples.
      members: (M,) of them to choose from, ascending.
      fraction: share to keep.

    Returns:
      (max(1, round(M * fraction)),) of the members, ascending; none of none.
    """
    order = np.argsort(_hash(ids[members], np.zeros(len(members), np.int64), 0), kind="stable")
    return np.sort(members[order[: max(1, round(len(members) * fraction))]])


def _hash(ids: np.ndarray, turn: np.ndarray, seed: int) -> np.ndarray:
    """64 random bits for each (id, turn): the finaliser of SplitMix64 (Steele, Lea & Flood 2014), applied to each."""
    bits = np.full(len(ids), seed % 2**64, np.uint64)
    for part in (ids.view(np.uint64), turn.astype(np.uint64)):
        bits = (bits ^ part) + np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return bits
