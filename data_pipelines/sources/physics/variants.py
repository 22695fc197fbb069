"""Variants of the balls for single experiments: colours that never met, a ball behind a wall, two kinds of caption.

    source               train, val                                          ood
    physics-templatesN   two balls of one of N pairs of colours collide      pairs of colours never seen together
    physics-described    the clips of world "coloured", with captions "short" (which colours move) and "detailed"
    physics-hidden       a ball passes behind a green wall, or no wall        faster balls, always a wall

They have the scale of the small worlds, 1.6 pixels a unit and 5 frames a second.

A clip is a pure function of (seed, split, index), as in `physics`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.sources.physics.clips import PhysicsClip, clip_id, compose, make_clip
from data_pipelines.sources.physics.motion import Scene, simulate
from data_pipelines.sources.physics.render import render
from data_pipelines.sources.physics.world import WORLDS
from vdit.palette import COLOURS

TEMPLATES = (3, 6, 10)
"""Numbers of pairs of colours that may meet in training. Of the 15 pairs the last 5 of `pairs()` never do."""
TEMPLATE_SOURCES = tuple(f"physics-templates{count}" for count in TEMPLATES)
DESCRIBED = "physics-described"
PHYSICS_VARIANTS = (*TEMPLATE_SOURCES, DESCRIBED)
"""Sources whose clips are balls with known velocities, all of them in view."""
HIDDEN = "physics-hidden"

_SALT = {**{name: 1 + i for i, name in enumerate(TEMPLATE_SOURCES)}, HIDDEN: 16}
WALL = "green"
"""Colour of the wall: no ball behind it has it, and mixtures of the other colours do not explain it."""
WALL_WIDTH = (2.8, 3.6)
SMALL = dataclasses.replace(
    WORLDS["uniform"], kinds=("collision",), colours=tuple(COLOURS), frames=(9, 11, 13), captions=True
)
HIDDEN_SIZE = (16, 24)
HIDDEN_FRAMES = 13
HIDDEN_SPEED = {"train": (3.6, 5.0), "val": (3.6, 5.0), "ood": (5.4, 6.4)}
SEEN_AFTER = 2
"""Frames at least in which the ball is wholly in view after the wall."""


@dataclasses.dataclass(frozen=True)
class VariantClip:
    """A clip with further features to store beside its truth."""

    clip: PhysicsClip
    extra: dict[str, Any]


def pairs() -> list[tuple[str, str]]:
    """All 15 pairs of colours: three that hold each colour once, then the others in a fixed random order."""
    names = list(COLOURS)
    first = [(names[0], names[1]), (names[2], names[3]), (names[4], names[5])]
    others = [pair for pair in itertools.combinations(names, 2) if pair not in first]
    order = np.random.default_rng(0).permutation(len(others))
    return first + [others[i] for i in order]


def template_clip(count: int, seed: int, split: str, index: int) -> PhysicsClip:
    """Two balls of one of the first `count` pairs (split ood: of one of the last five) that collide."""
    identity = clip_id(seed, split, index)
    rng = np.random.default_rng([_SALT[f"physics-templates{count}"], identity])
    known = pairs()[-5:] if split == "ood" else pairs()[:count]
    pair = list(known[rng.integers(len(known))])
    return compose(identity, rng, "collision", [pair[i] for i in rng.permutation(2)], world=SMALL)


def described_clip(seed: int, split: str, index: int) -> PhysicsClip:
    """The clip of world "coloured" with two captions; "detailed" is that world's."""
    clip = make_clip(seed, split, index, WORLDS["coloured"])
    names = [next(name for name, rgb in COLOURS.items() if tuple(colour) == rgb) for colour in clip.colours]
    balls = " and ".join(f"a {name} ball" for name in names)
    short = f"{balls[0].upper()}{balls[1:]} move{'s' if len(names) == 1 else ''}."
    return dataclasses.replace(clip, captions={"short": short, "detailed": clip.captions["short"]})


def hidden_clip(seed: int, split: str, index: int) -> VariantClip:
    """A ball that glides behind a wall and comes out; "wall" holds its left and right edge in units, or nothing."""
    identity = clip_id(seed, split, index)
    rng = np.random.default_rng([_SALT[HIDDEN], identity])
    height, width = (side / SMALL.scale for side in HIDDEN_SIZE)
    times = np.arange(HIDDEN_FRAMES) / SMALL.fps
    while True:
        radius, thick = float(rng.uniform(0.7, 1.0)), float(rng.uniform(*WALL_WIDTH))
        speed, angle = rng.uniform(*HIDDEN_SPEED[split]), rng.uniform(-0.12, 0.12)
        velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        reach = radius + SMALL.margin
        start = np.array([reach + rng.uniform(0, 1.0), rng.uniform(reach, height - reach)])
        left = start[0] + velocity[0] * 0.4 + reach + rng.uniform(0, 0.8)  # wholly in view in the given frames
        place_TB2, speed_TB2, _ = simulate(Scene((radius,)), start[None], velocity[None], times)
        x_T, y_T = place_TB2[:, 0, 0], place_TB2[:, 0, 1]
        seen_T = (x_T - reach > left + thick) & (x_T + reach < width)
        hidden_T = (x_T - reach > left) & (x_T + reach < left + thick)
        if hidden_T.any() and seen_T.sum() >= SEEN_AFTER and reach < y_T.min() and y_T.max() < height - reach:
            break
    wall = np.array([left, left + thick])
    if rng.random() < 0.5:  # from the right to the left
        place_TB2[..., 0], speed_TB2[..., 0], wall = width - place_TB2[..., 0], -speed_TB2[..., 0], width - wall[::-1]
    name = str(rng.choice([colour for colour in COLOURS if colour != WALL]))
    there = split == "ood" or bool(rng.random() < 0.6)
    video = _draw(place_TB2, radius, name, wall if there else None)
    way = "right" if speed_TB2[0, 0, 0] > 0 else "left"
    caption = f"A {name} ball glides {way}{f' behind a {WALL} wall' if there else ''}."
    radii, colours = np.array([radius], np.float32), np.array([COLOURS[name]], np.uint8)
    truth = place_TB2.astype(np.float32), speed_TB2.astype(np.float32)
    clip = PhysicsClip(identity, video, {"short": caption}, "hidden", colours, radii, *truth, SMALL.scale, SMALL.fps)
    return VariantClip(clip, {"wall": (wall if there else wall[:0]).astype(np.float32)})


def _draw(place_TB2: np.ndarray, radius: float, name: str, wall: np.ndarray | None) -> np.ndarray:
    """The ball, and over it the wall from top to bottom."""
    colour_13 = np.array([COLOURS[name]], np.uint8)
    radii = np.array([radius]) * SMALL.scale
    video_TYXC = render(place_TB2 * SMALL.scale, radii, colour_13, *HIDDEN_SIZE)
    if wall is not None:
        edges = np.arange(HIDDEN_SIZE[1] + 1)
        low, high = wall * SMALL.scale
        cover_X = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, 1)[None, None, :, None]
        mixed = video_TYXC * (1 - cover_X) + np.array(COLOURS[WALL]) * cover_X
        video_TYXC = np.round(mixed).astype(np.uint8)
    return video_TYXC


VARIANTS: dict[str, Callable[[int, str, int], PhysicsClip | VariantClip]] = {
    **{f"physics-templates{count}": functools.partial(template_clip, count) for count in TEMPLATES},
    DESCRIBED: described_clip,
    HIDDEN: hidden_clip,
}
