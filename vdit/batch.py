"""PackedBatch, the one structure that flows from data to loss, and how examples become a row of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vdit.patches import Grid, Patch, patch_positions

Array = Any  # np.ndarray or jax.Array

PER_TOKEN = {"per_token": True}
"""Marks an array with one entry for every slot: its second dimension is L, which may be sharded over `context`."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One clip (or a window of it) as the model sees it.

    Attributes:
      id: 64-bit identity; the noise of training is a function of it.
      patches_LP: patch vectors, uint8 pixels or latents.
      grid: their arrangement; grid.tokens == L, but for `positions_L3`.
      fps: frames per second of the stored clip.
      text_ME: caption features, one row per caption token; M may be 0.
      positions_L3: where the patches stand, if not on the grid; L may then be larger than grid.tokens.
    """

    id: int
    patches_LP: np.ndarray
    grid: Grid
    fps: float
    text_ME: np.ndarray
    positions_L3: np.ndarray | None = None

    @property
    def tokens(self) -> int:
        """Slots the example takes in a row: its caption, then its patches."""
        return len(self.text_ME) + len(self.patches_LP)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedBatch:
    """Rows of whole examples, each its caption tokens followed by its patches.

    Attributes:
      patches_BLP: patch vectors as stored (uint8 pixels or latents); 0 in caption and padding slots.
      positions_BL3: float32 (time, row, column), see `patches.patch_positions`; caption token i stands at (-1-i, 0, 0).
      segments_BL: int32; examples count 1, 2, ... along the row, padding is 0.
      token_BL: int32; index of the patch within its example, or of the token within its caption.
      text_BME: caption features of the row's examples one after another.
      text_index_BL: int32; which row of text_BME a slot holds, -1 for patches and padding.
      grid_BN3: int32 patch grid of each example, 0 where there is none.
      ids_BN2: uint32 (high, low) halves of each example's id.
    """

    patches_BLP: Array = dataclasses.field(metadata=PER_TOKEN)
    positions_BL3: Array = dataclasses.field(metadata=PER_TOKEN)
    segments_BL: Array = dataclasses.field(metadata=PER_TOKEN)
    token_BL: Array = dataclasses.field(metadata=PER_TOKEN)
    text_BME: Array
    text_index_BL: Array = dataclasses.field(metadata=PER_TOKEN)
    grid_BN3: Array
    ids_BN2: Array

    @property
    def is_patch_BL(self) -> Array:
        """True where a slot holds a patch (neither caption nor padding)."""
        return (self.segments_BL > 0) & (self.text_index_BL < 0)

    def map(self, function: Any) -> PackedBatch:
        """Applies `function` to every array."""
        return PackedBatch(**{f.name: function(getattr(self, f.name)) for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class RowShape:
    """The static sizes of a row: slots L, examples N and caption tokens M it can hold."""

    tokens: int = 2048
    examples: int = 64
    text: int = 1024


def pack_row(examples: Sequence[Example], shape: RowShape, patch: Patch) -> PackedBatch:
    """Lays examples one after another into one row (no leading B).

    Args:
      examples: at least one; all of one patch length, dtype and text width.
      shape: sizes of the row.
      patch: extent of a patch, for positions.

    Raises:
      ValueError: if the examples do not fit the row.
    """
    used = sum(e.tokens for e in examples)
    text = sum(len(e.text_ME) for e in examples)
    for name, need, limit in (
        ("tokens", used, shape.tokens),
        ("examples", len(examples), shape.examples),
        ("text", text, shape.text),
    ):
        if need > limit:
            raise ValueError(f"the examples need {need} {name} of a row that holds {limit}; raise data.row_{name}")
    first = examples[0]
    row = PackedBatch(
        patches_BLP=np.zeros((shape.tokens, first.patches_LP.shape[1]), first.patches_LP.dtype),
        positions_BL3=np.zeros((shape.tokens, 3), np.float32),
        segments_BL=np.zeros(shape.tokens, np.int32),
        token_BL=np.zeros(shape.tokens, np.int32),
        text_BME=np.zeros((shape.text, first.text_ME.shape[1]), np.float32),
        text_index_BL=np.full(shape.tokens, -1, np.int32),
        grid_BN3=np.zeros((shape.examples, 3), np.int32),
        ids_BN2=np.zeros((shape.examples, 2), np.uint32),
    )
    slot = caption = 0
    for n, example in enumerate(examples):
        m, length = len(example.text_ME), len(example.patches_LP)
        words, patches = slice(slot, slot + m), slice(slot + m, slot + m + length)
        row.patches_BLP[patches] = example.patches_LP
        row.positions_BL3[words, 0] = -1 - np.arange(m)
        own = example.positions_L3
        row.positions_BL3[patches] = patch_positions(example.grid, patch, example.fps) if own is None else own
        row.segments_BL[slot : slot + m + length] = n + 1
        row.token_BL[words] = np.arange(m)
        row.token_BL[patches] = np.arange(length)
        row.text_BME[caption : caption + m] = example.text_ME
        row.text_index_BL[words] = caption + np.arange(m)
        row.grid_BN3[n] = example.grid
        row.ids_BN2[n] = (example.id >> 32) & 0xFFFFFFFF, example.id & 0xFFFFFFFF
        slot, caption = slot + m + length, caption + m
    return row


def generated_part(batch: PackedBatch, condition: int) -> PackedBatch:
    """The batch without the last `condition` numbers of its patch vectors, see `ModelConfig.condition`."""
    return dataclasses.replace(batch, patches_BLP=batch.patches_BLP[..., :-condition]) if condition else batch


def empty_row(like: PackedBatch) -> PackedBatch:
    """A row, or rows, of nothing but padding."""
    empty = like.map(np.zeros_like)
    return dataclasses.replace(empty, text_index_BL=np.full_like(like.text_index_BL, -1))


def alone_rows(row: PackedBatch) -> list[PackedBatch]:
    """The examples of one row (no leading B), each alone in a row of the same sizes."""
    out = []
    for n in range(int((row.grid_BN3[:, 0] > 0).sum())):
        alone, slots = empty_row(row), np.flatnonzero(row.segments_BL == n + 1)
        words = row.text_index_BL[slots[row.text_index_BL[slots] >= 0]]
        for name in ("patches_BLP", "positions_BL3", "token_BL"):
            getattr(alone, name)[: len(slots)] = getattr(row, name)[slots]
        alone.segments_BL[: len(slots)] = 1
        alone.text_BME[: len(words)] = row.text_BME[words]
        alone.text_index_BL[: len(words)] = np.arange(len(words))
        alone.grid_BN3[0], alone.ids_BN2[0] = row.grid_BN3[n], row.ids_BN2[n]
        out.append(alone)
    return out


def stack_rows(rows: Sequence[PackedBatch]) -> PackedBatch:
    """Stacks rows into a batch with a leading B."""
    return PackedBatch(
        **{f.name: np.stack([getattr(row, f.name) for row in rows]) for f in dataclasses.fields(PackedBatch)}
    )


def unpack_row(values_LP: np.ndarray, row: PackedBatch) -> list[np.ndarray]:
    """The patch vectors of each example of one row (no leading B), in order."""
    count = int((row.grid_BN3.prod(-1) > 0).sum())
    return [np.asarray(values_LP)[np.asarray(row.is_patch_BL & (row.segments_BL == n + 1))] for n in range(count)]
