"""Configuration of LoRA, and the matrices at which adapters can stand."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase

from vdit.errors import UserError

BASES = ("float32", "bfloat16", "int8")

BLOCK_MATRICES = {
    "spacetime": {"qkv": ("d", "d", 3), "out": ("d", "d", 1), "up": ("d", "f", 1), "down": ("f", "d", 1)},
    "wan": {
        "qkv": ("d", "d", 3),
        "out": ("d", "d", 1),
        "text_q": ("d", "d", 1),
        "text_kv": ("d", "d", 2),
        "text_out": ("d", "d", 1),
        "up": ("d", "f", 1),
        "down": ("f", "d", 1),
    },
}
"""Matrices of a block by model.family: their inputs and outputs (d: width, f: that of the feed-forward), and how many
of that size lie apart in one."""

OF_CAPTIONS = "text_kv"
"""The one that is multiplied by caption tokens alone, where captions are not in the stream."""


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021) that are trained in place of the weights of init_from, which stay as they are.

    Attributes:
      rank: of every adapter.
      alpha: adapters are multiplied by alpha / rank; 0 takes the rank, so by 1.
      matrices: patterns of names of the matrices that have one, such as "blocks.qkv".
      dropout: share of the inputs of every adapter that a step leaves out, the same for all its tokens.
      base: number format of the frozen matrices: "bfloat16", "float32", or "int8" for those that have an adapter.
    """

    rank: int = 16
    alpha: float = 0.0
    matrices: tuple[str, ...] = ("blocks.*",)
    dropout: float = 0.0
    base: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"lora.rank={self.rank} must be at least 1; without config.lora all weights are trained")
        if self.alpha < 0:
            raise UserError(f"lora.alpha={self.alpha:g} must not be negative; 0 takes the rank")
        if not self.matrices:
            raise UserError("lora.matrices is empty; name some, such as 'blocks.*'")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout={self.dropout:g} is not a share from 0 to below 1")
        if self.base not in BASES:
            raise UserError(f"lora.base={self.base!r} is not one of {', '.join(BASES)}")

    @property
    def scale(self) -> float:
        """What adapters are multiplied by."""
        return (self.alpha or self.rank) / self.rank

    def chosen(self, family: str) -> tuple[str, ...]:
        """The matrices of a block that have an adapter.

        Raises:
          UserError: if a pattern matches none.
        """
        names = BLOCK_MATRICES[family]
        for pattern in self.matrices:
            if not any(fnmatchcase(f"blocks.{name}", pattern) for name in names):
                known = ", ".join(f"blocks.{name}" for name in names)
                raise UserError(
                    f"lora.matrices: {pattern!r} matches no matrix of model.family={family}; known: {known}"
                )
        return tuple(name for name in names if any(fnmatchcase(f"blocks.{name}", pattern) for pattern in self.matrices))
