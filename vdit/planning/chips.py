"""Figures of TPU chips that a plan needs, each with its source, and the slices there are.

Peak, HBM bandwidth, data-centre network and slices: the pages of each version at docs.cloud.google.com/tpu/docs. HBM:
what the compiler says is available when a program does not fit. Clock: the peak over the FLOPs of a cycle of the matrix
units. Links: the table of "How to Scale Your Model" (Austin et al. 2025, part 2); tpu7x has as much a chip as v5p, by
its page. Prices: Google Cloud's on-demand list in US regions, a default to be overridden by --price; tpu7x has none.
"""

from __future__ import annotations

import dataclasses
import math
import re

from vdit.errors import UserError
from vdit.parallel.peak import PUBLISHED

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
"""Slices of versions whose torus has two axes."""

SMALL = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
"""Slices of versions of three axes that are no larger than a cube of 64 chips; others are made of whole cubes."""

CUBE = 4


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device of a TPU version: a chip, or half of one where JAX sees two (tpu7x).

    Attributes:
      peak: bfloat16 FLOP/s.
      flops_per_cycle: of its matrix units.
      hbm: GiB that the compiler lets a program use.
      hbm_bandwidth: bytes/s.
      link: bytes/s in one direction of one link between neighbours; an axis of the torus has two links a chip.
      torus: axes of the torus.
      wraps: an axis closes to a ring when its length is a multiple of this.
      dcn: bytes/s into the data-centre network.
      price: dollars per hour of a whole chip, on demand; None where no list names one.
      most_chips: of the largest slice.
      devices: that JAX sees on a chip.
    """

    peak: float
    flops_per_cycle: int
    hbm: float
    hbm_bandwidth: float
    link: float
    torus: int
    wraps: int
    dcn: float
    price: float | None
    most_chips: int
    devices: int = 1

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.peak / self.flops_per_cycle

    @property
    def slices(self) -> str:
        """The slices there are, in words."""
        if self.torus == 2:
            return ", ".join(FLAT)
        return f"{', '.join(SMALL)}, and AxBxC of multiples of {CUBE} with up to {self.most_chips:,} chips"

    def has(self, shape: tuple[int, ...]) -> bool:
        """Whether there is such a slice; the order of its axes does not matter."""
        if len(shape) != self.torus:
            return False
        small = {tuple(sorted(map(int, text.split("x")))) for text in (FLAT if self.torus == 2 else SMALL)}
        cubes = self.torus == 3 and not any(side % CUBE for side in shape) and 0 < math.prod(shape) <= self.most_chips
        return tuple(sorted(shape)) in small or cubes


CHIPS = {
    "v5e": Chip(PUBLISHED["TPU v5e"], 131_072, 15.75, 819e9, 45e9, 2, 16, 3.125e9, 1.20, 256),
    "v5p": Chip(PUBLISHED["TPU v5p"], 262_144, 95.73, 2765e9, 90e9, 3, 4, 6.25e9, 4.20, 6144),
    "v6e": Chip(PUBLISHED["TPU v6e"], 524_288, 31.24, 1640e9, 90e9, 2, 16, 12.5e9, 2.70, 256),
    "tpu7x": Chip(PUBLISHED["TPU7x"], 524_288, 94.75, 7380e9 / 2, 45e9, 3, 4, 6.25e9, None, 9216, devices=2),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as "v5p:4x4x4".

    Raises:
      UserError: for a malformed topology, a version that is not known, or a slice that there is not.
    """
    version, _, shape = topology.partition(":")
    if version not in CHIPS:
        raise UserError(f"--topology={topology} is not of a known TPU version; known: {', '.join(CHIPS)}")
    chip = CHIPS[version]
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})*", shape):
        example = SMALL[0] if chip.torus == 3 else FLAT[3]
        raise UserError(f"--topology={topology} is not VERSION:SHAPE, such as {version}:{example}")
    if not chip.has(tuple(map(int, shape.split("x")))):
        raise UserError(f"--topology={topology}: there is no such slice of {version}; there are {chip.slices}")
    return chip
