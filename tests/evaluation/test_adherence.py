"""What captions say and what pixels show."""

import numpy as np
import pytest

from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.render import render
from vdit.evaluation.balls.adherence import Said, adherence, said, seen
from vdit.palette import COLOURS


def clip(balls: dict[str, tuple[float, float, float, float]], frames: int = 9) -> np.ndarray:
    """Balls of 4 pixels that start at (x, y) and move by (dx, dy) a frame."""
    start = np.array([ball[:2] for ball in balls.values()])
    move = np.array([ball[2:] for ball in balls.values()])
    centres = start + np.arange(frames)[:, None, None] * move
    return render(centres, np.full(len(balls), 4.0), np.array([COLOURS[name] for name in balls]), 40, 48)


@pytest.mark.parametrize(
    ("caption", "balls"),
    [
        ("A large red ball glides right.", [("red", (1, 0))]),
        ("A blue ball is thrown up and left and falls.", [("blue", (-1, -1))]),
        (
            "A small cyan ball moving down and a pink ball moving down and right collide.",
            [("cyan", (0, 1)), ("pink", (1, 1))],
        ),
        ("A rabbit wakes up.", []),
    ],
)
def test_captions(caption, balls):
    assert said(caption) == [Said(*ball) for ball in balls]


def test_every_caption_of_the_source_is_understood():
    for index in range(60):
        made = make_clip(0, "val", index)
        balls = said(made.captions["short"])
        names = [name for colour in made.colours for name, value in COLOURS.items() if (colour == value).all()]
        assert [ball.colour for ball in balls] == names
        for ball, velocity in zip(balls, made.velocities[0], strict=True):
            assert ball.direction @ velocity > 0.85 * np.linalg.norm(ball.direction) * np.linalg.norm(velocity)


def test_true_clips_show_what_they_say():
    found = [adherence(made.video_TYXC, made.captions["short"]) for made in (make_clip(0, "val", i) for i in range(60))]
    everything, number, colours, directions = np.mean(found, 0)
    assert number == colours == 1
    assert everything == directions >= 0.9  # some bounce within the frames looked at


CAPTION = "A red ball moving right and a blue ball moving up and left collide."
RIGHT = {"red": (10, 20, 2, 0), "blue": (38, 30, -1.4, -1.4)}


@pytest.mark.parametrize(
    ("balls", "expected"),
    [
        (RIGHT, (1, 1, 1, 1)),
        ({"red": RIGHT["red"]}, (0, 0, 0, 0)),
        ({"red": RIGHT["red"], "green": RIGHT["blue"]}, (0, 1, 0, 0)),
        ({**RIGHT, "green": (24, 8, 0, 0)}, (0, 0, 0, 1)),
        ({**RIGHT, "red": (10, 20, 0, 2)}, (0, 1, 1, 0)),
        ({**RIGHT, "red": (10, 20, 0, 0)}, (0, 1, 1, 0)),
        ({**RIGHT, "red": (10, 20, 1.6, 0.8)}, (1, 1, 1, 1)),
    ],
    ids=["right", "one missing", "another colour", "one too many", "another way", "still", "nearly that way"],
)
def test_adherence(balls, expected):
    assert tuple(map(int, adherence(clip(balls), CAPTION))) == expected


def test_places_are_those_of_the_balls():
    found = seen(clip({"green": (20.5, 12.5, 1, 2)}))
    np.testing.assert_allclose(found["green"], [[20.5, 12.5], [21.5, 14.5], [22.5, 16.5]], atol=0.3)
    assert list(found) == ["green"]
    assert not seen(np.full((5, 24, 24, 3), 255, np.uint8))
    assert not seen(np.full((5, 24, 24, 3), 128, np.uint8)), "grey is no ball's colour"


def test_a_caption_without_balls():
    with pytest.raises(ValueError, match="names no ball"):
        adherence(clip(RIGHT), "A rabbit wakes up.")
