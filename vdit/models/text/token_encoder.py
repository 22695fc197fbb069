"""Captions to token features: tokenising, truncation and batching, whatever the network."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from absl import logging
from tokenizers import Tokenizer

from vdit.errors import UserError

BUCKET = 16  # lengths are padded to a multiple of this, so at most max_tokens / 16 shapes are ever compiled
BATCH_TOKENS = 1024  # slots of one call


class TextEncoder(Protocol):
    """What every text encoder offers.

    Attributes:
      name: as known to `text_encoders.load_text_encoder`.
      width: features of a token (E).
      hash: sha256 (hex) of the weights; data sets and checkpoints keep it.
    """

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def hash(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token features of each text: float16 (M, E) without padding; (0, E) for a text without words.

        A text's features do not depend on the texts it is encoded with.

        Raises:
          UserError: a text is not valid Unicode.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NoText:
    """The encoder of a model without captions: every text has 0 tokens (of width 1)."""

    name: str = "none"
    width: int = 1
    hash: str = ""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.zeros((0, 1), np.float16) for _ in texts]


@dataclasses.dataclass(frozen=True)
class TokenEncoder:
    """A TextEncoder from a tokenizer and a network.

    Attributes:
      name, width, hash: see `TextEncoder`.
      max_tokens: longer texts are cut (special tokens are kept), with a warning.
      tokenizer: adds the special tokens.
      features: (ids_BM int32, lengths_B int32) -> (B, M, E), compiled per shape; must ignore slots from length on.
      encode_empty: a text without words has the features of the special tokens that the tokenizer adds, as in published
        pipelines, instead of none.
    """

    name: str
    width: int
    hash: str
    max_tokens: int
    tokenizer: Tokenizer
    features: Callable[[np.ndarray, np.ndarray], Any]
    encode_empty: bool = False

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See `TextEncoder.encode`."""
        encoded: dict[str, np.ndarray] = {}
        buckets: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
        for text in dict.fromkeys(texts):  # repeated captions are encoded once
            ids = self._tokenize(text)
            encoded[text] = np.zeros((0, self.width), np.float16)
            if ids:
                buckets[-(-len(ids) // BUCKET) * BUCKET].append((text, ids))
        for length, members in sorted(buckets.items()):
            # Both sizes of a call follow from the text's own length, so its features are a function of the text alone.
            rows = max(1, BATCH_TOKENS // length)
            for start in range(0, len(members), rows):
                batch = members[start : start + rows]
                for (text, _), features_ME in zip(batch, self._run(batch, rows, length), strict=True):
                    encoded[text] = features_ME
        return [encoded[text] for text in texts]

    def _tokenize(self, text: str) -> list[int]:
        """Token ids, cut to max_tokens; none if there are only special tokens, unless `encode_empty`."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"the text {_start(text)!a} is not valid Unicode; write it as UTF-8") from error
        encoding = self.tokenizer.encode(text)
        if all(encoding.special_tokens_mask) and not self.encode_empty:
            return []
        if encoding.overflowing:
            special = sum(encoding.special_tokens_mask)
            total = sum(len(part) - special for part in [encoding, *encoding.overflowing]) + special
            end = max(end for _, end in encoding.offsets)
            logging.warning(
                "the text %r has %d tokens and %s takes %d: cut at character %d, after %r",
                *(_start(text), total, self.name, self.max_tokens, end, text[max(0, end - 24) : end]),
            )
        return encoding.ids

    def _run(self, batch: Sequence[tuple[str, list[int]]], rows: int, length: int) -> list[np.ndarray]:
        ids_BM = np.zeros((rows, length), np.int32)
        lengths_B = np.ones(rows, np.int32)  # unused rows attend to one slot, which keeps them finite
        for row, (_, ids) in enumerate(batch):
            ids_BM[row, : len(ids)] = ids
            lengths_B[row] = len(ids)
        features_BME = np.asarray(self.features(ids_BM, lengths_B)).astype(np.float16)
        return [features_BME[row, : len(ids)].copy() for row, (_, ids) in enumerate(batch)]


def _start(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
