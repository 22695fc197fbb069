"""Worlds of balls: how much a model has to learn at once, from one gliding ball to many kinds, sizes and colours.

A world is named, or a named one with changes: `--world="uniform; colours=red,blue; frames=9,17"`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from data_pipelines.sources.physics.render import EDGE
from vdit.errors import UserError
from vdit.palette import COLOURS

KINDS = ("uniform", "parabola", "collision", "bounce")
ODD = {"speed": (0.0, 0.8), "slow": (0.0, 0.8), "fast": (4.5, 6.0), "radius": None, "small": None, "both": (0.0, 0.8)}
"""What can be out of distribution, with the speeds of it (units/s); None = the usual ones. "radius", "small" and "both"
have small balls."""
SPEEDS = (1.0, 4.0)
"""Speeds in distribution, units/s (Kang et al. 2025)."""


@dataclasses.dataclass(frozen=True)
class World:
    """What the clips of a data set are drawn from.

    Attributes:
      kinds: kinds of motion, of `KINDS`.
      shares: how often each is drawn; empty = equally.
      colours: names of colours that balls may have, of `render.COLOURS`.
      balls: most balls of a clip of kind "bounce"; the others have one, "collision" two.
      falling: share of bounces under gravity.
      walls: whether the walls that balls bounce off are drawn, as a black frame one pixel wide.
      sides: heights and widths, pixels.
      frames: lengths.
      fps: frames per second.
      scale: pixels per unit; 10 units are a side of Kang et al.'s world.
      given: frames a model may be given: balls are wholly in view in them, collisions happen later.
      odd: what is out of distribution in split "ood", of `ODD`; each clip has one of them.
      small: radii of small balls, units, where they are out of distribution (collisions: up to 0.4).
      captions: whether clips have captions.
    """

    kinds: tuple[str, ...] = KINDS
    shares: tuple[float, ...] = (0.25, 0.25, 0.2, 0.3)
    colours: tuple[str, ...] = tuple(COLOURS)
    balls: int = 2
    falling: float = 0.5
    walls: bool = False
    sides: tuple[int, ...] = (24, 32, 40, 48)
    frames: tuple[int, ...] = (9, 13, 17, 21, 25)
    fps: float = 10.0
    scale: float = 3.2
    given: int = 5
    odd: tuple[str, ...] = ("speed", "radius", "both")
    small: tuple[float, ...] = (0.3, 0.6)
    captions: bool = True

    def __post_init__(self) -> None:
        for field, known in (("kinds", KINDS), ("colours", tuple(COLOURS)), ("odd", tuple(ODD))):
            for name in getattr(self, field):
                if name not in known:
                    raise UserError(f"--world: {field}={name} is not one of {', '.join(known)}")
            if not getattr(self, field):
                raise UserError(f"--world: {field} names none of {', '.join(known)}")
        if self.shares and len(self.shares) != len(self.kinds):
            raise UserError(f"--world: shares={self.shares} should have one number for each of kinds={self.kinds}")
        if not 1 <= self.balls <= 2:
            raise UserError(f"--world: balls={self.balls} should be 1 or 2")
        needed = 2 if "collision" in self.kinds or ("bounce" in self.kinds and self.balls > 1) else 1
        if len(self.colours) < needed:
            raise UserError(f"--world: {needed} balls need {needed} colours, not {', '.join(self.colours)} alone")
        if min(self.frames) <= self.given or min(*self.sides, self.scale, self.fps) <= 0:
            raise UserError("--world: frames must exceed the frames given; sides, scale and fps must be positive")

    @property
    def margin(self) -> float:
        """Width in units of the soft rim outside a ball's radius: walls stand this far inside the frame."""
        return (EDGE + (1 if self.walls else 0)) / self.scale

    @property
    def chances(self) -> list[float]:
        """How often each kind is drawn."""
        shares = self.shares or (1.0,) * len(self.kinds)
        return [share / sum(shares) for share in shares]


_SMALL = World(
    kinds=("uniform",),
    shares=(),
    colours=("red",),
    balls=1,
    falling=0.0,
    sides=(16, 20),
    frames=(7, 9, 11),
    fps=5.0,
    scale=1.6,
    given=3,
    odd=("slow", "fast", "small"),
    small=(0.4, 0.6),
    captions=False,
)
"""One red ball in 16 or 20 pixels a side, 10 units or more as in Kang et al. (2025): small enough to learn on a CPU."""

WORLDS = {
    "uniform": _SMALL,
    "captioned": dataclasses.replace(_SMALL, colours=("red", "green", "blue"), captions=True),
    "bounce": dataclasses.replace(_SMALL, kinds=("bounce",)),
    "parabola": dataclasses.replace(_SMALL, kinds=("parabola",)),
    "mixed": dataclasses.replace(_SMALL, kinds=("uniform", "bounce", "parabola"), walls=True, captions=True),
    "coloured": dataclasses.replace(
        _SMALL, kinds=("uniform", "bounce"), colours=("red", "green", "blue"), balls=2, walls=True, captions=True
    ),
    "full": World(),
}
"""The ladder, each harder than the one before: one motion; three colours, with captions; walls; gravity; all three
motions, told apart by drawn walls and captions; two balls in three colours; and every kind, six colours and 32 pixels,
as in the first studies."""


def parse_world(text: str) -> World:
    """The world that a flag describes: a name of `WORLDS` and changes, "; "-separated.

    Raises:
      UserError: for an unknown name or field, or a value that does not fit it.
    """
    name, *changes = [part.strip() for part in (text or "full").split(";") if part.strip()]
    if name not in WORLDS:
        raise UserError(f"--world={name!r} is not one of {', '.join(WORLDS)} (then, after semicolons, field=value)")
    values: dict[str, Any] = {}
    fields = {field.name: getattr(WORLDS[name], field.name) for field in dataclasses.fields(World)}
    for change in changes:
        field, equals, value = (part.strip() for part in change.partition("="))
        if field not in fields or not equals:
            raise UserError(f"--world: {change!r} should be FIELD=VALUE, FIELD one of {', '.join(fields)}")
        values[field] = _read(field, value, fields[field])
    if "kinds" in values:
        values.setdefault("shares", ())
    return dataclasses.replace(WORLDS[name], **values)


def _read(field: str, text: str, like: Any) -> Any:
    """A field's value from text, of the type of `like`."""
    kinds = {"sides": int, "frames": int, "shares": float, "small": float}
    try:
        if isinstance(like, tuple):
            return tuple(kinds.get(field, str)(part.strip()) for part in text.split(",") if part.strip())
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(like)(text)
    except (ValueError, KeyError):
        wanted = "numbers, separated by commas" if isinstance(like, tuple) else f"of type {type(like).__name__}"
        raise UserError(f"--world: {field}={text} should be {wanted}") from None
