"""Packing integers: which examples share a row, decided from their lengths alone.

Best-fit-decreasing, row by row, with two changes. After its longest example a row first takes examples at random, so
that every row holds the mix of sizes of the data (like costs, and no step of long clips only); and as soon as two
lengths fill a row exactly, they end it. The lengths in stock are a bit set in one Python integer, so "which pairs add
up to what is left" is a shift and an AND.
"""

from __future__ import annotations

import numpy as np

from vdit.batch import RowShape

MIX = 3.0
"""Examples are drawn at random while a row has room for more than this many of mean length."""


def pack(
    lengths_N: np.ndarray, text_N: np.ndarray, shape: RowShape, window: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Packs every example once.

    Args:
      lengths_N: slots each example takes (caption and patches), at most shape.tokens.
      text_N: caption tokens among them, at most shape.text.
      shape: what a row can hold.
      window: number of examples packed together; worse-filled rows of a window are packed again with the next one.
      rng: shuffles the examples.

    Returns:
      order_N: int64 examples, row after row.
      offsets: int64, (rows + 1,); row k is order_N[offsets[k]:offsets[k + 1]].
    """
    count = len(lengths_N)
    if not count:
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    parts = np.array_split(rng.permutation(count), max(1, round(count / window)))
    orders, sizes, carried = [], [], np.zeros(0, np.int64)
    for number, part in enumerate(parts):
        pool = rng.permutation(np.concatenate([part, carried]))
        picked, size, waste = _pack_pool(lengths_N[pool], text_N[pool], shape)
        again = _poor(size, waste, window // 4 if number < len(parts) - 1 else 0)
        member = np.repeat(again, size)
        carried = pool[picked[member]]
        orders.append(pool[picked[~member]])
        sizes.append(size[~again])
    return np.concatenate(orders), np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)


def _poor(size: np.ndarray, waste: np.ndarray, limit: int) -> np.ndarray:
    """Marks the rows with most waste, as far as they hold `limit` examples together."""
    worst = np.argsort(-waste, kind="stable")
    mark = np.zeros(len(size), bool)
    mark[worst[(np.cumsum(size[worst]) <= limit) & (waste[worst] > 0)]] = True
    return mark


def _pack_pool(lengths: np.ndarray, text: np.ndarray, shape: RowShape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packs a shuffled pool; returns positions in it row after row, the rows' numbers of examples, and unused slots."""
    total = shape.tokens
    mix = min(MIX * float(lengths.mean()), 0.6 * total)
    stacks, stock, mirror = _stock(lengths, total)
    drawn = iter(lengths.tolist())
    text_list = text.tolist()
    picked: list[int] = []
    sizes, wastes = [], []
    while stock:
        room, text_room, first = total, shape.text, len(picked)
        shortest, longest = _lowest(stock), stock.bit_length() - 1
        take: tuple[int, ...] = (longest,)
        while take:
            for length in take:
                stack = stacks[length]
                if text_list[stack[-1]] > text_room or len(picked) - first >= shape.examples:
                    take = ()
                    break
                text_room -= text_list[stack[-1]]
                picked.append(stack.pop())
                room -= length
                if not stack:
                    stock ^= 1 << length
                    mirror ^= 1 << (total - length)
            if not take or not stock:
                break
            if room > mix:
                length = next((n for n in drawn if stacks[n]), 0)
                # Draw only what leaves room for a whole number of further examples.
                if 0 < length <= room and -((length - room) // longest) * shortest <= room - length:
                    take = (length,)
                    continue
            take = _finish(stock, mirror >> (total - room), room, stacks)
        sizes.append(len(picked) - first)
        wastes.append(room)
    return np.array(picked, np.int64), np.array(sizes, np.int64), np.array(wastes, np.int64)


def _stock(lengths: np.ndarray, total: int) -> tuple[dict[int, list[int]], int, int]:
    """Positions by length in stock, the set of these lengths, and the set of (total - length)."""
    members = np.argsort(lengths, kind="stable").tolist()
    counts = np.bincount(lengths, minlength=total + 1)
    present = np.flatnonzero(counts)
    ends = np.cumsum(counts[present]).tolist()
    stacks = {n: members[start:end] for n, start, end in zip(present.tolist(), [0, *ends], ends, strict=False)}
    stock, mirror = (
        int.from_bytes(np.packbits(present, bitorder="little").tobytes(), "little")
        for present in (counts > 0, counts[::-1] > 0)
    )
    return stacks, stock, mirror


def _lowest(bits: int) -> int:
    """The smallest member of a set."""
    return (bits & -bits).bit_length() - 1


def _finish(stock: int, complement: int, room: int, stacks: dict[int, list[int]]) -> tuple[int, ...]:
    """Lengths to take next: one or a pair that fills `room` exactly, else the longest that fits; () if none does.

    Args:
      stock: set of lengths in stock.
      complement: set of (room - length) of those.
    """
    fits = stock & ((2 << room) - 1)
    if not fits:
        return ()
    longest = fits.bit_length() - 1
    return (longest,) if longest == room else _pair(fits & complement, room, stacks) or (longest,)


def _pair(halves: int, room: int, stacks: dict[int, list[int]]) -> tuple[int, ...]:
    """The most even pair of lengths in stock that fills `room` exactly; () if there is none.

    Args:
      halves: set of lengths whose complement to `room` is in stock too.
    """
    upper = halves >> ((room + 1) // 2)
    if not room & 1 and upper & 1 and len(stacks[room // 2]) < 2:
        upper ^= 1  # twice the same length, but only one example of it
    if not upper:
        return ()
    longer = _lowest(upper) + (room + 1) // 2
    return longer, room - longer
