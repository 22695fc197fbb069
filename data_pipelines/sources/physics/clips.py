"""Source `physics`: clips of gliding, falling, colliding and bouncing balls with known positions and velocities.

The motions are those of Kang et al., "How Far is Video Generation from World Model: A Physical Law Perspective"
(ICML 2025), with frames of varied height, width and duration at one fixed scale, and a fourth kind with walls. A clip
is a pure function of (world, seed, split, index).

    split        speed (units/s)            radius (units)
    train, val   1..4                       .7..1.4 (collision .5..1.5)
    ood          slow 0..0.8, fast 4.5..6   small .3..0.6 (collision .3..0.4), as `World.odd` says
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from data_pipelines.sources.physics.motion import GRAVITY, Scene, TooManyEvents, simulate
from data_pipelines.sources.physics.render import draw_frame, render
from data_pipelines.sources.physics.world import ODD, SPEEDS, World
from vdit.errors import UserError
from vdit.palette import COLOURS

SPLITS = ("train", "val", "ood")
TAIL = 3
"""Frames left after a collision."""
FULL = World()

STARTS = 8
"""Starts tried for one drawn scene. After so many, a clip of kind bounce may be one in which nothing bounces."""

SEED_BITS, SPLIT_BITS, INDEX_BITS = 20, 3, 40


@dataclasses.dataclass(frozen=True)
class PhysicsClip:
    """A clip and the truth about it.

    Attributes:
      id: 63 bits, another for every (seed, split, index).
      video_TYXC: uint8.
      captions: by kind of caption; never tells a speed.
      kind: one of `world.KINDS`.
      colours: uint8 (balls, 3), all different.
      radii: float32 (balls,), units.
      positions, velocities: float32 (T, balls, 2), units and units/s, (x to the right, y down) from the top left.
      pixels_per_unit, fps: scales of space and time.
      odd: what is out of distribution, of `world.ODD`; empty = nothing.
      border: pixels of drawn wall along every edge.
    """

    id: int
    video_TYXC: np.ndarray
    captions: dict[str, str]
    kind: str
    colours: np.ndarray
    radii: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    pixels_per_unit: float
    fps: float
    odd: str = ""
    border: int = 0

    def truth(self) -> dict[str, np.ndarray | str]:
        """What `vdit.evaluation.balls.physics` needs to know, to be stored beside the video.

        Every array is flat (or a scalar), because a stored feature may have one unknown dimension only; shapes follow
        from "colours", which has 3 entries per ball.
        """
        return {
            "kind": self.kind,
            "odd": self.odd,
            "border": np.array(self.border, np.int32),
            "colours": self.colours.reshape(-1),
            "radii": self.radii,
            "positions": self.positions.reshape(-1),
            "velocities": self.velocities.reshape(-1),
            "pixels_per_unit": np.array(self.pixels_per_unit, np.float32),
            "fps": np.array(self.fps, np.float32),
        }


def clip_id(seed: int, split: str, index: int) -> int:
    """The identity of a clip, 63 bits; no two (seed, split, index) share one.

    Raises:
      UserError: if the split is unknown or a number does not fit its bits.
    """
    if split not in SPLITS:
        raise UserError(f"physics has no split {split!r}; choose one of {', '.join(SPLITS)}")
    for name, value, bits in (("seed", seed, SEED_BITS), ("index", index, INDEX_BITS)):
        if not 0 <= value < 1 << bits:
            raise UserError(f"physics {name}={value} is out of range; choose 0 <= {name} < 2**{bits}")
    return ((seed << SPLIT_BITS | SPLITS.index(split) + 1) << INDEX_BITS) | index


def make_clip(seed: int, split: str, index: int, world: World = FULL) -> PhysicsClip:
    """Makes one clip of a world.

    Args:
      seed: of the data set.
      split: "train" and "val" are in distribution, "ood" is not.
      index: position in the split; an unlimited number can be made.
      world: what it is drawn from.

    Raises:
      UserError: see `clip_id`.
    """
    identity = clip_id(seed, split, index)
    rng = np.random.default_rng(identity)
    kind = str(rng.choice(list(world.kinds), p=world.chances))
    names = [str(name) for name in rng.permutation(list(world.colours))]
    odd = str(rng.choice(list(world.odd))) if split == "ood" else ""
    return compose(identity, rng, kind, names, odd, world)


def compose(
    identity: int, rng: np.random.Generator, kind: str, names: list[str], odd: str = "", world: World = FULL
) -> PhysicsClip:
    """Draws a clip of a kind whose balls take the first of these colours.

    Args:
      identity: of the clip.
      rng: of all draws.
      kind: one of `world.KINDS`.
      names: colours, at least as many as balls.
      odd: what is out of distribution, of `world.ODD`; empty = nothing.
      world: sizes, lengths, scales.
    """
    while (
        drawn := _draw(rng, kind, odd, world)
    ) is None:  # the balls did not fit the frame (some collisions, few others)
        pass
    (height, width), scene, start, (positions, velocities) = drawn
    radii = np.array(scene.radii)
    names = names[: len(radii)]
    colours = np.array([COLOURS[name] for name in names], np.uint8)
    video_TYXC = render(positions * world.scale, radii * world.scale, colours, height, width)
    border = int(world.walls and scene.walls is not None)
    if border:
        draw_frame(video_TYXC, border)
    return PhysicsClip(
        id=identity,
        video_TYXC=video_TYXC,
        captions={"short": caption(kind, names, scene, start[1])} if world.captions else {},
        kind=kind,
        colours=colours,
        radii=radii.astype(np.float32),
        positions=positions.astype(np.float32),
        velocities=velocities.astype(np.float32),
        pixels_per_unit=world.scale,
        fps=world.fps,
        odd=odd,
        border=border,
    )


Start = tuple[np.ndarray, np.ndarray]


def _draw(
    rng: np.random.Generator, kind: str, odd: str, world: World
) -> tuple[tuple[int, int], Scene, Start, tuple[np.ndarray, np.ndarray]] | None:
    """Draws one clip: (height, width) in pixels, scene, start and motion; None where no start fits.

    Args:
      odd: what is out of distribution, of `world.ODD`; empty = nothing.
    """
    frames, sides = int(rng.choice(world.frames)), (int(rng.choice(world.sides)), int(rng.choice(world.sides)))
    height, width = (side / world.scale for side in sides)
    balls = {"collision": 2, "bounce": int(rng.integers(1, world.balls + 1))}.get(kind, 1)
    speeds = rng.uniform(*(ODD.get(odd) or SPEEDS), balls)
    usual, small = ((0.5, 1.5), (world.small[0], 0.4)) if kind == "collision" else ((0.7, 1.4), world.small)
    low, high = small if odd in ("radius", "small", "both") else usual
    radii = rng.uniform(low, high, balls)
    falls = kind == "parabola" or (kind == "bounce" and rng.random() < world.falling)
    margin = world.margin
    walls = (margin, margin, width - margin, height - margin) if kind == "bounce" else None
    scene = Scene(tuple(radii.tolist()), GRAVITY if falls else 0.0, walls)
    drawn = None
    for _ in range(STARTS):
        start = _start(rng, kind, scene, speeds, frames, np.array([width, height]), world)
        if start is None:
            continue
        try:
            positions, velocities, events = simulate(scene, *start, np.arange(frames) / world.fps)
        except TooManyEvents:
            continue
        drawn = sides, scene, start, (positions, velocities)
        if kind != "bounce" or events:
            break
    return drawn


def _start(
    rng: np.random.Generator,
    kind: str,
    scene: Scene,
    speeds: np.ndarray,
    frames: int,
    size: np.ndarray,
    world: World,
) -> Start | None:
    radii = np.array(scene.radii)
    if kind == "collision":
        return _start_collision(rng, radii, speeds, frames, size, world)
    if kind == "bounce":
        return _start_bounce(rng, radii, speeds, size, world.margin)
    return _start_open(rng, radii, speeds, frames, size, scene.gravity, world)


def _direction(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _place(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, size: np.ndarray) -> np.ndarray | None:
    """A point to which a shape reaching from `low` to `high` about it can be moved so that it lies within the frame."""
    return None if np.any(high - low > size) else rng.uniform(-low, size - high)


def _start_open(
    rng: np.random.Generator,
    radii: np.ndarray,
    speeds: np.ndarray,
    frames: int,
    size: np.ndarray,
    gravity: float,
    world: World,
) -> Start | None:
    """One ball, wholly in view for the first 60% or more of the frames if that fits, at least for those given."""
    if gravity:  # thrown sideways, from slightly down to steeply up
        velocity = _direction(rng.uniform(-np.pi / 3, np.pi / 12, 1)) * speeds[:, None]
        velocity[:, 0] *= rng.choice([-1, 1])
    else:
        velocity = _direction(rng.uniform(0, 2 * np.pi, 1)) * speeds[:, None]
    t = np.arange(frames)[:, None] / world.fps
    path = velocity * t + 0.5 * np.array([0.0, gravity]) * t**2
    reach = radii[0] + world.margin
    for seen in range(int(rng.integers(max(world.given, math.ceil(0.6 * frames)), frames + 1)), world.given - 1, -1):
        place = _place(rng, path[:seen].min(0) - reach, path[:seen].max(0) + reach, size)
        if place is not None:
            return place[None], velocity
    return None


def _start_collision(
    rng: np.random.Generator, radii: np.ndarray, speeds: np.ndarray, frames: int, size: np.ndarray, world: World
) -> Start | None:
    """Two balls that meet after the given frames and before the last `TAIL`, wholly in view until two frames later.

    Built backwards from the contact: each velocity points within 60 degrees of the other ball.
    """
    when = rng.uniform(world.given - 0.5, frames - TAIL - 0.5) / world.fps
    normal = rng.uniform(0, 2 * np.pi)
    velocity = _direction(normal + np.array([0, np.pi]) + rng.uniform(-np.pi / 3, np.pi / 3, 2)) * speeds[:, None]
    contact = _direction(np.array([normal, normal + np.pi])) * -radii[:, None]
    begin = contact - velocity * when
    times = np.arange(math.ceil(when * world.fps) + 2) / world.fps
    path, _, _ = simulate(Scene(tuple(radii)), begin, velocity, times)
    reach = radii[:, None] + world.margin
    place = _place(rng, (path - reach).min((0, 1)), (path + reach).max((0, 1)), size)
    return None if place is None else (begin + place, velocity)


def _start_bounce(
    rng: np.random.Generator, radii: np.ndarray, speeds: np.ndarray, size: np.ndarray, margin: float
) -> Start | None:
    """Balls anywhere between the walls, apart from each other so that they do not touch in the given frames."""
    reach = radii[:, None] + margin
    place = rng.uniform(reach, size - reach)
    if len(radii) == 2 and np.linalg.norm(place[0] - place[1]) < radii.sum() + 0.2:
        return None
    return place, _direction(rng.uniform(0, 2 * np.pi, len(radii))) * speeds[:, None]


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _size_word(radius: float) -> str:
    return "small " if radius < 0.8 else "large " if radius > 1.1 else ""


def direction_words(velocity: np.ndarray) -> str:
    """One of eight directions in words; y points down."""
    octant = round(math.atan2(-velocity[1], velocity[0]) / (math.pi / 4)) % 8
    return ("right", "up and right", "up", "up and left", "left", "down and left", "down", "down and right")[octant]


def caption(kind: str, names: list[str], scene: Scene, velocities: np.ndarray) -> str:
    """Describes kind, colours, sizes and directions of a clip, never speeds (which the evaluation measures)."""
    balls = [_article(f"{_size_word(r)}{name} ball") for r, name in zip(scene.radii, names, strict=True)]
    ways = [direction_words(v) for v in velocities]
    if kind == "uniform":
        text = f"{balls[0]} glides {ways[0]}"
    elif kind == "parabola":
        text = f"{balls[0]} is thrown {ways[0]} and falls"
    elif kind == "collision":
        text = f"{balls[0]} moving {ways[0]} and {balls[1]} moving {ways[1]} collide"
    else:
        moving = " and ".join(f"{ball} moving {way}" for ball, way in zip(balls, ways, strict=True))
        verb = (
            ("fall and bounce" if scene.gravity else "bounce")
            if len(balls) == 2
            else ("falls and bounces" if scene.gravity else "bounces")
        )
        text = f"{moving} {verb} inside four walls"
    return text[0].upper() + text[1:] + "."
