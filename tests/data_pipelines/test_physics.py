"""The simulator against closed forms and conservation laws, and what every clip must satisfy."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.sources.physics import clips as physics
from data_pipelines.sources.physics.motion import GRAVITY, Scene, simulate
from data_pipelines.sources.physics.render import EDGE, coverage
from vdit.errors import UserError
from vdit.palette import COLOURS

CLIPS = {split: [physics.make_clip(3, split, i) for i in range(120)] for split in physics.SPLITS}
ALL = [(split, clip) for split, clips in CLIPS.items() for clip in clips]
SPEED = st.floats(-4, 4)
TIMES = np.arange(0, 6, 0.1)


def reach(clip):
    return clip.radii[:, None] + EDGE / clip.pixels_per_unit


def in_view(clip):
    size = np.array(clip.video_TYXC.shape[2:0:-1]) / clip.pixels_per_unit
    edge = reach(clip) - 1e-4
    return ((clip.positions >= edge) & (clip.positions <= size - edge)).all(-1)


@given(SPEED, SPEED, st.floats(1, 9), st.floats(1, 9))
def test_walls_fold_a_straight_line(vx, vy, x, y):
    p, v, _ = simulate(Scene((1.0,), 0.0, (0, 0, 10, 10)), [[x, y]], [[vx, vy]], TIMES)
    line = np.array([x, y]) + np.array([vx, vy]) * TIMES[:, None] - 1
    folded = 8 - np.abs(line % 16 - 8) + 1  # centres live in 1..9
    np.testing.assert_allclose(p[:, 0], folded, atol=1e-9)
    np.testing.assert_allclose(np.abs(v[:, 0]), np.broadcast_to(np.abs([vx, vy]), (len(TIMES), 2)), atol=1e-12)


@given(st.floats(1.0, 8.5))
def test_dropped_ball_bounces_periodically(y):
    p, _, _ = simulate(Scene((1.0,), GRAVITY, (0, 0, 10, 10)), [[5, y]], [[0, 0]], TIMES)
    fall = np.sqrt(2 * (9 - y) / GRAVITY)
    since = (TIMES + fall) % (2 * fall) - fall  # time from the top of the arc
    np.testing.assert_allclose(p[:, 0, 1], y + GRAVITY * since**2 / 2, atol=1e-7)


@given(st.tuples(SPEED, SPEED, SPEED, SPEED), st.floats(0.3, 1.5), st.floats(0.3, 1.5), st.floats(-1, 1))
def test_open_collision_conserves_momentum_and_energy(v, r, s, offset):
    start = np.array([[3.0, 5.0], [7.0, 5.0 + offset]])
    p, v, events = simulate(Scene((r, s)), start, np.reshape(v, (2, 2)), TIMES)
    mass = np.array([r, s])[:, None] ** 2
    np.testing.assert_allclose((mass * v).sum(1), np.broadcast_to((mass * v[0]).sum(0), (len(TIMES), 2)), atol=1e-11)
    np.testing.assert_allclose((mass * v**2).sum((1, 2)), (mass * v[0] ** 2).sum(), rtol=1e-11, atol=1e-11)
    assert np.linalg.norm(p[:, 0] - p[:, 1], axis=-1).min() >= r + s - 1e-9
    assert len(events) <= 1


def test_head_on_collision_of_equal_balls_swaps_velocities():
    p, v, events = simulate(Scene((1.0, 1.0)), [[0, 0], [5, 0]], [[2, 0], [-1, 0]], np.array([0.0, 0.9, 1.1, 2.0]))
    assert [event[0] for event in events] == pytest.approx([1.0])
    np.testing.assert_allclose(v[-1], [[-1, 0], [2, 0]], atol=1e-12)
    np.testing.assert_allclose(p[-1], [[1, 0], [6, 0]], atol=1e-12)


@settings(max_examples=50)
@given(st.tuples(SPEED, SPEED, SPEED, SPEED), st.booleans())
def test_two_balls_in_a_box(v, falls):
    gravity = GRAVITY if falls else 0.0
    scene = Scene((0.7, 1.2), gravity, (0, 0, 7.5, 9.0))
    start = np.array([[2.0, 2.0], [5.5, 6.0]])
    p, v, _ = simulate(scene, start, np.reshape(v, (2, 2)), TIMES)
    r = np.array(scene.radii)[:, None]
    energy = (r**2 * v**2 / 2).sum((1, 2)) - (gravity * r[:, 0] ** 2 * p[:, :, 1]).sum(1)  # y points down
    np.testing.assert_allclose(energy, energy[0], rtol=1e-10, atol=1e-10)
    assert (p >= r - 1e-9).all() and (p <= np.array([7.5, 9.0]) - r + 1e-9).all()
    assert np.linalg.norm(p[:, 0] - p[:, 1], axis=-1).min() >= 1.9 - 1e-9
    some, _, _ = simulate(scene, start, v[0], TIMES[::7])  # frames do not change the motion
    np.testing.assert_array_equal(some, p[::7])


@settings(max_examples=25)
@given(st.integers(0, 2**20 - 1), st.sampled_from(physics.SPLITS), st.integers(0, 2**40 - 1))
def test_a_clip_is_a_function_of_its_address(seed, split, index):
    one, two = physics.make_clip(seed, split, index), physics.make_clip(seed, split, index)
    np.testing.assert_array_equal(one.video_TYXC, two.video_TYXC)
    np.testing.assert_array_equal(one.positions, two.positions)
    assert one.captions == two.captions and one.id == two.id < 2**63


def test_clips_stay_what_they_are():
    clip = physics.make_clip(0, "train", 7)
    assert clip.id == 1 << 40 | 7
    text = "A large blue ball moving left and a yellow ball moving down fall and bounce inside four walls."
    assert clip.captions == {"short": text}
    assert clip.video_TYXC.shape == (21, 24, 32, 3)
    assert int(clip.video_TYXC.sum()) == pytest.approx(11644658, abs=100)  # float32 may round a pixel differently
    np.testing.assert_allclose(clip.positions[-1], [[5.8310843, 4.4766884], [3.1151497, 3.409403]], atol=1e-4)


address = st.tuples(st.integers(0, 2**20 - 1), st.sampled_from(physics.SPLITS), st.integers(0, 2**40 - 1))


@given(address, address)
def test_ids_are_unique(a, b):
    assert (physics.clip_id(*a) == physics.clip_id(*b)) == (a == b)


def test_ids_of_neighbours_are_unique():
    ids = {physics.clip_id(s, split, i) for s in range(3) for split in physics.SPLITS for i in range(50)}
    assert len(ids) == 3 * len(physics.SPLITS) * 50 and 0 not in ids


@pytest.mark.parametrize("bad", [(0, "test", 0), (-1, "train", 0), (2**20, "train", 0), (0, "val", 2**40)])
def test_bad_addresses_are_told(bad):
    with pytest.raises(UserError, match="physics"):
        physics.make_clip(*bad)


def test_shapes_and_contents():
    for _, clip in ALL:
        frames, height, width, channels = clip.video_TYXC.shape
        assert frames in physics.FULL.frames and (frames - 1) % 4 == 0 and channels == 3
        assert height % 8 == 0 and width % 8 == 0 and 24 <= min(height, width) <= max(height, width) <= 48
        assert clip.positions.shape == clip.velocities.shape == (frames, len(clip.radii), 2)
        assert clip.video_TYXC.dtype == np.uint8 and clip.positions.dtype == np.float32
        assert len({tuple(colour) for colour in clip.colours}) == len(clip.radii)
        assert len(clip.radii) == 2 if clip.kind == "collision" else len(clip.radii) in (1, 2)
        assert in_view(clip)[: physics.FULL.given].all()
    sides = {clip.video_TYXC.shape[1:3] for _, clip in ALL}
    assert len(sides) == 16 and {clip.kind for _, clip in ALL} == set(physics.FULL.kinds)
    assert np.mean([in_view(clip).mean() for _, clip in ALL]) > 0.9


def test_parameters_lie_in_their_split():
    for split, clip in ALL:
        speeds = np.linalg.norm(clip.velocities[0], axis=-1)
        collision = clip.kind == "collision"
        usual = (0.5, 1.5) if collision else (0.7, 1.4)
        small = (0.3, 0.4) if collision else (0.3, 0.6)
        within = lambda values, low, high: ((values > low - 1e-5) & (values < high + 1e-5)).all()  # noqa: E731
        fast, slow = within(speeds, 1, 4), within(speeds, 0, 0.8)
        big, tiny = within(clip.radii, *usual), within(clip.radii, *small)
        if split == "ood":
            assert (slow and (big or tiny)) or (fast and tiny)
        else:
            assert fast and big


def test_balls_collide_after_the_given_frames_and_in_view():
    for _, clip in ALL:
        if clip.kind == "collision":
            changed = np.flatnonzero(np.abs(np.diff(clip.velocities, axis=0)).max((1, 2)) > 1e-6)
            assert len(changed) == 1
            after = changed[0] + 1  # first frame after the contact
            assert physics.FULL.given <= after <= len(clip.positions) - physics.TAIL
            assert in_view(clip)[: after + 1].all()


def test_bounces_happen_in_distribution():
    bounces = [clip for split, clip in ALL if clip.kind == "bounce" and split != "ood"]
    straight = [np.abs(np.diff(clip.velocities[..., 0], axis=0)).max() < 1e-6 for clip in bounces]
    turned = [(np.diff(np.sign(clip.velocities[..., 1]), axis=0) < 0).any() for clip in bounces]  # down to up
    turned = [t or not s for t, s in zip(turned, straight, strict=True)]
    assert np.mean(turned) > 0.6
    assert all(in_view(clip).all() for clip in bounces)


def test_captions_name_what_is_seen_and_never_speeds():
    speed_words = re.compile(r"\d|speed|fast|slow|quick|rapid|swift|unit|second|veloc|brisk|gentl", re.I)
    for _, clip in ALL:
        text = clip.captions["short"]
        assert not speed_words.search(text), text
        for colour in clip.colours:
            name = next(n for n, c in COLOURS.items() if c == tuple(colour))
            assert f"{name} ball" in text
        directions = re.findall(r"(?:moving|glides|thrown) (?:(up|down)(?: and )?)?(left|right)?", text)
        assert len(directions) == len(clip.radii), text
        for (vertical, horizontal), (x, y) in zip(directions, clip.velocities[0], strict=True):
            assert (horizontal == "") == (abs(x) < np.hypot(x, y) * np.sin(np.pi / 8))
            assert (vertical == "") == (abs(y) < np.hypot(x, y) * np.sin(np.pi / 8))
            assert horizontal in ("", "right" if x > 0 else "left") and vertical in ("", "down" if y > 0 else "up")


def test_captions_do_not_depend_on_the_speed():
    scene, names = Scene((1.0, 0.5)), ["red", "blue"]
    velocity = np.array([[1.0, 0.2], [-2.0, 0.0]])
    for kind in physics.FULL.kinds:
        assert physics.caption(kind, names, scene, velocity) == physics.caption(kind, names, scene, velocity * 0.1)


@given(st.floats(4, 20), st.floats(4, 20), st.floats(0.96, 2.9))
def test_coverage_has_the_mass_and_mean_of_the_disc(x, y, radius):
    cover = coverage(np.array([[[x, y]]]), np.array([radius]), 24, 24)[0, 0]
    grid = np.arange(24) + 0.5
    mass = cover.sum()
    assert mass == pytest.approx(np.pi * (radius**2 + EDGE**2 / 7), rel=0.02)
    assert (cover.sum(0) @ grid / mass, cover.sum(1) @ grid / mass) == pytest.approx((x, y), abs=0.02)


def test_touching_balls_do_not_overflow_a_pixel():
    angles = np.linspace(0, np.pi, 50)[:, None]
    offset = np.concatenate([np.cos(angles), np.sin(angles)], -1)[:, None] * np.array([[-1.0], [2.0]])
    cover = coverage(12 + offset, np.array([1.0, 2.0]), 24, 24)
    assert cover.sum(1).max() <= 1 + 1e-5
