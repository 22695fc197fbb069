"""Exact motion of balls: closed form between events, events found by solving quadratics (no integrator, no drift).

World coordinates: units of length, origin at the top left corner of the frame, x to the right, y *down*, so that
pixels are position * pixels_per_unit and gravity is positive in y.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

GRAVITY = 2.5
"""Units/s^2, downwards (Kang et al. 2025 write g = -2.5 with y up)."""
MAX_EVENTS = 500


class TooManyEvents(ArithmeticError):
    """A ball came (almost) to rest on the floor, where bounces never end."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """What moves, and in what.

    Attributes:
      radii: one per ball, units; masses are radius^2 (density 1, up to the common factor pi).
      gravity: downward acceleration of every ball, units/s^2.
      walls: (left, top, right, bottom) in units, off which balls bounce elastically; None = open space.
    """

    radii: tuple[float, ...]
    gravity: float = 0.0
    walls: tuple[float, float, float, float] | None = None


def simulate(scene: Scene, positions: np.ndarray, velocities: np.ndarray, times: np.ndarray) -> tuple:
    """Positions and velocities at given times.

    Args:
      scene: balls and walls.
      positions, velocities: (balls, 2) at time 0; balls must not overlap each other or the walls.
      times: (T,) ascending, seconds, from 0.

    Returns:
      positions (T, balls, 2), velocities (T, balls, 2), float64, and the list of events (time, ball, other ball or
      wall name). A velocity at the very time of an event is the one after it.

    Raises:
      TooManyEvents: after `MAX_EVENTS` events.
    """
    p, v = np.array(positions, np.float64), np.array(velocities, np.float64)
    accel = np.array([0.0, scene.gravity])
    out_p, out_v = np.empty((len(times), *p.shape)), np.empty((len(times), *p.shape))
    events: list[tuple[float, int, int | str]] = []
    start, frame = 0.0, 0
    while frame < len(times):
        wait, kind = _next_event(scene, p, v)
        stop = int(np.searchsorted(times, start + wait, side="left"))
        tau = (np.asarray(times[frame:stop]) - start)[:, None, None]
        out_p[frame:stop] = p + v * tau + 0.5 * accel * tau**2
        out_v[frame:stop] = v + accel * tau
        frame = stop
        if kind is None or frame == len(times):
            break
        p = p + v * wait + 0.5 * accel * wait**2
        v = v + accel * wait
        _apply(scene, p, v, *kind)
        start += wait
        events.append((start, *kind))
        if len(events) > MAX_EVENTS:
            raise TooManyEvents(f"{MAX_EVENTS} events in {start:.3f} s")
    return out_p, out_v, events


def _next_event(scene: Scene, p: np.ndarray, v: np.ndarray) -> tuple[float, tuple[int, int | str] | None]:
    """Time until the next event and what it is: (ball, other ball) or (ball, wall)."""
    best: tuple[float, tuple[int, int | str] | None] = (math.inf, None)
    ps, vs = p.tolist(), v.tolist()
    for i, r in enumerate(scene.radii):
        if scene.walls is not None:
            left, top, right, bottom = scene.walls
            (x, y), (vx, vy) = ps[i], vs[i]
            for wall, wait in (
                ("left", (left + r - x) / vx if vx < 0 else math.inf),
                ("right", (right - r - x) / vx if vx > 0 else math.inf),
                ("top", _time_up(y - top - r, vy, scene.gravity)),
                ("bottom", _time_down(bottom - r - y, vy, scene.gravity)),
            ):
                if wait < best[0]:
                    best = (max(wait, 0.0), (i, wall))
        for j in range(i):
            wait = _time_contact(ps[i], vs[i], ps[j], vs[j], r + scene.radii[j])
            if wait < best[0]:
                best = (max(wait, 0.0), (i, j))
    return best


def _time_up(gap: float, vy: float, g: float) -> float:
    """Time to rise by `gap` (first root of gap + vy t + g t^2 / 2 = 0), inf if never."""
    if vy >= 0 or vy * vy < 2 * g * gap:
        return math.inf
    return 2 * gap / (-vy + math.sqrt(vy * vy - 2 * g * gap))  # the stable form of the smaller root; right for g = 0


def _time_down(gap: float, vy: float, g: float) -> float:
    """Time to fall by `gap` >= 0, inf if never. A ball that has just bounced (gap 0, vy < 0) comes back later."""
    if g == 0:
        return gap / vy if vy > 0 else math.inf
    root = math.sqrt(max(vy * vy + 2 * g * gap, 0.0))
    return 2 * gap / (vy + root) if vy > 0 else (root - vy) / g


def _time_contact(p: list[float], v: list[float], q: list[float], w: list[float], reach: float) -> float:
    """Time until two balls touch. Gravity drops out: it is common to both, so the relative motion is straight."""
    dx, dy, du, dw = q[0] - p[0], q[1] - p[1], w[0] - v[0], w[1] - v[1]
    approach, speed2 = dx * du + dy * dw, du * du + dw * dw
    gap = dx * dx + dy * dy - reach * reach
    disc = approach * approach - speed2 * gap
    if approach >= 0 or disc <= 0:
        return math.inf
    return gap / (-approach + math.sqrt(disc))


def _apply(scene: Scene, p: np.ndarray, v: np.ndarray, ball: int, other: int | str) -> None:
    """Changes velocities in place by an elastic bounce; a bounced ball is put exactly on its wall."""
    r = scene.radii[ball]
    if isinstance(other, str):
        assert scene.walls is not None
        side = ("left", "top", "right", "bottom").index(other)
        axis, inward = side % 2, 1 if side < 2 else -1
        p[ball, axis] = scene.walls[side] + inward * r
        v[ball, axis] = inward * abs(v[ball, axis])
        return
    m, n = r**2, scene.radii[other] ** 2
    normal = p[other] - p[ball]
    normal /= np.linalg.norm(normal)
    impulse = 2 * m * n / (m + n) * float((v[other] - v[ball]) @ normal)
    v[ball] += impulse / m * normal
    v[other] -= impulse / n * normal
