import numpy as np
import pytest

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.clip import Options
from data_pipelines.reading.store import Dataset
from data_pipelines.sources.physics import variants
from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.world import WORLDS
from vdit.evaluation.balls.adherence import adherence, said, seen
from vdit.evaluation.balls.physics import velocity_error
from vdit.palette import COLOURS
from vdit.patches import Patch


def colours_of(clip):
    return frozenset(name for name, rgb in COLOURS.items() if any(tuple(c) == rgb for c in clip.colours))


def test_pairs_of_the_unseen_split_never_met_but_their_colours_did():
    everything = [frozenset(pair) for pair in variants.pairs()]
    assert len(set(everything)) == 15 and frozenset.union(*everything[:3]) == set(COLOURS)
    for count in variants.TEMPLATES:
        met = {colours_of(variants.template_clip(count, 0, "train", i)) for i in range(60)}
        assert met == set(everything[:count])
        unseen = {colours_of(variants.template_clip(count, 0, "ood", i)) for i in range(30)}
        assert unseen == set(everything[-5:]) and not unseen & met
    clip = variants.template_clip(3, 0, "val", 0)
    assert clip.kind == "collision" and velocity_error(clip.video_TYXC, clip.truth()).error < 0.1


def test_captions_of_two_kinds_of_the_same_clips():
    for i in range(8):
        clip, plain = variants.described_clip(0, "train", i), make_clip(0, "train", i, WORLDS["coloured"])
        np.testing.assert_array_equal(clip.video_TYXC, plain.video_TYXC)
        assert clip.captions["detailed"] == plain.captions["short"]
        assert all(ball.colour in clip.captions["short"].lower() for ball in said(clip.captions["detailed"]))
        assert "left" not in clip.captions["short"] and len(clip.captions["short"]) < len(clip.captions["detailed"])


@pytest.mark.parametrize("split", ["train", "ood"])
def test_a_ball_is_seen_before_its_wall_hidden_behind_it_and_seen_after(split):
    with_wall = 0
    for i in range(12):
        made = variants.hidden_clip(0, split, i)
        clip, wall = made.clip, made.extra["wall"]
        (name,) = colours_of(clip)
        cover_T = (np.linalg.norm(clip.video_TYXC.astype(float) - COLOURS[name], axis=-1) < 40).sum((1, 2))
        x_T = clip.positions[:, 0, 0]
        assert (cover_T[: variants.SMALL.given] > 0).all() and name in seen(clip.video_TYXC)
        if wall.size:
            with_wall += 1
            reach = clip.radii[0] + variants.SMALL.margin - 1e-3
            inside = (x_T - reach > wall[0]) & (x_T + reach < wall[1])
            assert inside.any() and not cover_T[inside].any()
            assert (cover_T[-4:] > 0).any() and adherence(clip.video_TYXC, clip.captions["short"]).directions
            assert "behind a green wall" in clip.captions["short"]
        else:
            assert (cover_T[:7] > 0).all()
    assert with_wall == 12 if split == "ood" else 3 < with_wall < 12
    first, again = (variants.hidden_clip(0, split, 3).clip.video_TYXC for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", ["physics-templates3", "physics-described", "physics-hidden"])
def test_they_are_sources(tmp_path, name):
    build(BuildArgs(name, str(tmp_path / "d"), Options(limit=8, patch=Patch(2, 4, 4)), text_encoder="none"))
    data = Dataset(tmp_path / "d")
    assert data.splits == ("train", "val", "ood") and data.size("train") == 8
    example = data.example("val", 0)
    assert ("wall" in example) == (name == "physics-hidden") and example["positions"].size
