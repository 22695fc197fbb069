"""Worlds of balls: what a name and its changes draw, what is odd about them, and what cannot be had."""

import numpy as np
import pytest

from data_pipelines.media.clip import Input, Options
from data_pipelines.sources.physics import physics_source
from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.world import ODD, WORLDS, parse_world
from vdit.errors import UserError
from vdit.evaluation.balls.physics import velocity_error
from vdit.palette import COLOURS
from vdit.patches import Patch


@pytest.mark.parametrize("name", WORLDS)
def test_clips_are_of_their_world(name):
    world = WORLDS[name]
    for i in range(12):
        clip = make_clip(1, "train", i, world)
        frames, height, width, _ = clip.video_TYXC.shape
        assert (frames in world.frames, height in world.sides, width in world.sides) == (True,) * 3
        assert clip.kind in world.kinds and clip.fps == world.fps and clip.pixels_per_unit == world.scale
        assert {tuple(colour) for colour in clip.colours} <= {COLOURS[colour] for colour in world.colours}
        assert bool(clip.captions) == world.captions and not clip.odd
        speed_B = np.linalg.norm(clip.velocities[0], axis=-1)
        assert clip.kind in ("parabola", "bounce") or ((speed_B >= 1) & (speed_B <= 4)).all()
        reach_B = (clip.radii + world.margin)[:, None] - 1e-3
        size = np.array([width, height]) / world.scale
        seen = clip.positions[: world.given]
        assert (seen >= reach_B).all() and (seen <= size - reach_B).all()


@pytest.mark.parametrize("name", ["uniform", "bounce", "mixed"])
def test_what_is_out_of_distribution_is_named_and_is_so(name):
    clips = [make_clip(0, "ood", i, WORLDS[name]) for i in range(24)]
    assert {clip.odd for clip in clips} == {"slow", "fast", "small"}
    for clip in clips:
        speed = np.linalg.norm(clip.velocities[0], axis=-1)
        low, high = ODD[clip.odd] or (1.0, 4.0)
        assert clip.kind == "parabola" or ((speed >= low - 1e-5) & (speed <= high + 1e-5)).all()
        assert (clip.radii < 0.65).all() == (clip.odd == "small")
        assert clip.truth()["odd"] == clip.odd


def test_walls_are_drawn_where_balls_bounce_and_measured_around():
    """True clips with drawn walls score as well as those without: the black edge is no ball."""
    world = parse_world("bounce; walls=true; colours=red,green,blue; balls=2; sides=24")
    for i in range(8):
        clip = make_clip(3, "val", i, world)
        assert not clip.video_TYXC[:, [0, -1]].any() and not clip.video_TYXC[:, :, [0, -1]].any()
        assert velocity_error(clip.video_TYXC, clip.truth(), world.given).error < 0.15
    glides = make_clip(3, "val", 0, parse_world("uniform; walls=true"))
    assert (glides.video_TYXC[:, 0] == 255).all()


def test_changes_follow_a_name():
    world = parse_world(" uniform ; colours=red, blue;frames=9; fps=4; captions=true")
    assert (world.colours, world.frames, world.fps, world.captions) == (("red", "blue"), (9,), 4.0, True)
    assert world.kinds == WORLDS["uniform"].kinds and parse_world("") == WORLDS["full"]
    assert parse_world("full; kinds=uniform,bounce").chances == [0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("moon", "--world='moon' is not one of uniform, captioned, bounce"),
        ("uniform; colour=red", "'colour=red' should be FIELD=VALUE, FIELD one of kinds"),
        ("uniform; sides=big", "sides=big should be numbers, separated by commas"),
        ("uniform; kinds=orbit", "kinds=orbit is not one of uniform"),
        ("uniform; colours=", "colours names none of red"),
        ("uniform; kinds=collision", "2 balls need 2 colours, not red alone"),
        ("full; shares=1,2", "should have one number for each of kinds"),
        ("bounce; balls=3", "balls=3 should be 1 or 2"),
        ("uniform; frames=3", "frames must exceed the frames given"),
    ],
)
def test_what_no_world_has_is_one_line(text, message):
    with pytest.raises(UserError, match="^[^\n]*$") as error:
        parse_world(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(Patch(4, 8, 8), world="uniform"), "does not divide the physics clips"),
        (Options(Patch(2, 4, 4), world="uniform; given=2"), "two groups are 3 frames, but only 2 are sure to show"),
        (Options(Patch(2, 4, 4), world="uniform", fps=10.0), "this world has 5 frames/s"),
        (Options(Patch(2, 4, 4), world="uniform", max_tokens=9), "have up to 25 and are not scaled"),
    ],
)
def test_options_that_do_not_fit_a_world(options, message):
    with pytest.raises(UserError, match=message):
        physics_source.inputs(options)


def test_the_source_makes_clips_of_its_world():
    (clip,) = physics_source.clips(Options(Patch(2, 4, 4), world="uniform"), Input("val 000000", "val", data=0))
    assert clip.fps == 5 and clip.captions == {} and clip.extra["odd"] == ""
