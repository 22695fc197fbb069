"""From finished chunks, in order, to shards: captions encoded, records written, what is not needed any more removed."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from data_pipelines.building.ledger import Entry
from data_pipelines.building.staged import Chunk, Staged
from data_pipelines.building.writer import PartWriter
from data_pipelines.media.clip import Clip, Cut, Outcome, Rejection
from data_pipelines.reading.records import Record
from vdit.models.text.token_encoder import TextEncoder

if TYPE_CHECKING:  # see data_pipelines.build
    from vdit.models.autoencoders.autoencoder import Autoencoder
    from vdit.models.autoencoders.clip_encoding import ClipEncoder

LATENTS = np.dtype(ml_dtypes.bfloat16)
"""How latents are stored."""

CHUNK_CLIPS, CHUNK_BYTES = 4096, 128 << 20
"""Clips that wait on disk until their captions are encoded in large batches."""

CACHE_BYTES = 256 << 20
"""Caption features that are kept, so that a text that comes again is not encoded again."""


class Assembler:
    """Writes the clips of chunks to a part.

    Args:
      writer: of the part.
      encoder: of captions.
      autoencoder: what turns pixels into the latents that are stored, on all devices; None keeps pixels.
    """

    def __init__(self, writer: PartWriter, encoder: TextEncoder, autoencoder: Autoencoder | None = None) -> None:
        self._writer, self._encoder, self._autoencoder = writer, encoder, autoencoder
        self._latents: ClipEncoder | None = None
        if autoencoder:
            from vdit.models.autoencoders.clip_encoding import ClipEncoder

            self._latents = ClipEncoder(autoencoder)
        self._waiting: list[Staged] = []
        self._bytes = 0
        self._features: dict[str, np.ndarray] = {}
        self._seen: collections.Counter[str] = collections.Counter()
        self._kept: dict[Chunk, dict[str, int]] = {}  # on disk -> last example of each split in them

    def take(self, chunk: Chunk) -> None:
        """Takes the outcomes of the next chunk."""
        last: dict[str, int] = {}
        for entry in chunk.read():
            if not entry.is_clip:
                continue
            split = entry.entry["split"]
            self._seen[split] += 1
            last[split] = self._seen[split]
            if self._writer.skip(split):
                self._writer.describe(self._record(entry.outcome(pixels=False), None, None))
            else:
                self._waiting.append(entry)
                self._bytes += entry.bytes
        self._kept[chunk] = last
        if len(self._waiting) >= CHUNK_CLIPS or self._bytes >= CHUNK_BYTES:
            self.flush()
        self._release()

    def flush(self) -> None:
        """Writes the clips that wait."""
        texts = dict.fromkeys(text for entry in self._waiting for text in entry.entry["captions"].values())
        new = [text for text in texts if text not in self._features]
        self._features.update(zip(new, self._encoder.encode(new), strict=True))
        for entry, clip, latents_TYXC in self._encoded():
            self._writer.add(entry.entry["split"], self._record(clip, self._features, latents_TYXC))
        self._waiting, self._bytes = [], 0
        size = sum(text_ME.nbytes for text_ME in self._features.values())
        while size > CACHE_BYTES:
            size -= self._features.pop(next(iter(self._features))).nbytes

    def usage(self) -> str:
        """What encoding pixels took, in words; empty if they are kept."""
        return f"{self._latents.devices} device(s) encoded {self._latents.usage}" if self._latents else ""

    def _encoded(self) -> Iterator[tuple[Staged, Outcome, np.ndarray | None]]:
        """The clips that wait, with their latents."""
        if self._latents is None:
            yield from ((entry, entry.outcome(), None) for entry in self._waiting)
            return
        clips = [entry.outcome() for entry in self._waiting]
        videos = [clip.video_TYXC for clip in clips if isinstance(clip, Clip)]
        yield from zip(self._waiting, clips, self._latents(videos), strict=True)

    def _record(self, clip: Outcome, features: dict[str, np.ndarray] | None, latents_TYXC: np.ndarray | None) -> Record:
        """Of a clip; without features and latents only what the examples are like is asked for."""
        assert isinstance(clip, Clip)
        none = np.zeros((0, self._encoder.width), np.float16)
        text = {kind: none if features is None else features[caption] for kind, caption in clip.captions.items()}
        if self._autoencoder is None:
            return Record(clip.id, clip.video_TYXC, clip.fps, clip.captions, text, clip.extra)
        if latents_TYXC is None:
            latents_TYXC = np.zeros((0, 0, 0, self._autoencoder.channels))
        fps = clip.fps / self._autoencoder.strides[0]
        return Record(clip.id, latents_TYXC.astype(LATENTS), fps, clip.captions, text, clip.extra)

    def _release(self) -> None:
        """Removes arrays of which every clip lies in a closed shard."""
        for chunk, last in list(self._kept.items()):
            if all(number <= self._writer.written(split) for split, number in last.items()):
                chunk.give_back()
                del self._kept[chunk]


def ledger_entry(staged_outcome: Staged) -> Entry:
    """What the ledger says of an outcome."""
    outcome = staged_outcome.outcome(pixels=False)
    if isinstance(outcome, Rejection):
        status, after = "rejected", None
    elif isinstance(outcome, Cut):
        status, after = "split", None
    else:
        after = staged_outcome.shape
        assert after is not None
        before = outcome.shape_before or after
        return Entry(
            outcome.item,
            outcome.split,
            "scaled" if before[1:] != after[1:] else "accepted",
            "; ".join(outcome.notes),
            before,
            after,
            outcome.fps_before or outcome.fps,
            outcome.fps,
        )
    return Entry(outcome.item, outcome.split, status, outcome.reason, outcome.shape_before, after, outcome.fps_before)
