"""Figures of TPU chips that a plan needs, each with its source.

peak and HBM bandwidth: the pages of each version at docs.cloud.google.com/tpu/docs. HBM: what the compiler says is
available when a program does not fit. Clock: the peak over the
FLOPs of a cycle of the matrix units. Links and data-centre network: the table of "How to Scale Your Model" (Austin et
al. 2025, part 2). Prices: Google Cloud's on-demand list in US regions, a default to be overridden by --price.
"""

from __future__ import annotations

import dataclasses

from vdit.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip of a TPU version.

    Attributes:
      peak: bfloat16 FLOP/s.
      flops_per_cycle: of its matrix units.
      hbm: GiB that the compiler lets a program use.
      hbm_bandwidth: bytes/s.
      link: bytes/s in one direction of one link between neighbours; an axis of the torus has two links a chip.
      torus: axes of the torus.
      wraps: an axis closes to a ring when its length is a multiple of this.
      dcn: bytes/s of one chip into the data-centre network.
      price: dollars per chip-hour, on demand.
    """

    peak: float
    flops_per_cycle: int
    hbm: float
    hbm_bandwidth: float
    link: float
    torus: int
    wraps: int
    dcn: float
    price: float

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.peak / self.flops_per_cycle


CHIPS = {
    "v5e": Chip(197e12, 131_072, 15.75, 819e9, 45e9, 2, 16, 3.125e9, 1.20),
    "v5p": Chip(459e12, 262_144, 95.73, 2765e9, 90e9, 3, 4, 6.25e9, 4.20),
    "v6e": Chip(918e12, 524_288, 31.24, 1640e9, 90e9, 2, 16, 12.5e9, 2.70),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as "v5p:4x4x4".

    Raises:
      UserError: for a version that is not known.
    """
    version = topology.split(":")[0]
    if version not in CHIPS:
        raise UserError(f"--topology={topology} is not of a known TPU version; known: {', '.join(CHIPS)}")
    return CHIPS[version]
