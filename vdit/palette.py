"""Colours of the simulated balls: the simulator draws with them, evaluation looks for them."""

from __future__ import annotations

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 30, 30),
    "green": (30, 170, 50),
    "blue": (40, 60, 230),
    "yellow": (250, 215, 20),
    "cyan": (30, 210, 240),
    "pink": (250, 60, 220),
}
"""Far apart as differences from white (cosine at most .8), so that any two can be told apart in a mixed pixel."""
