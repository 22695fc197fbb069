"""The weights that are shipped do what their cards say, on clips that no data set holds."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.world import parse_world
from vdit.evaluation.balls.adherence import adherence
from vdit.evaluation.balls.baselines import frozen_error
from vdit.evaluation.balls.physics import velocity_error
from vdit.generation import Request
from vdit.generation.restore import generator_of, load_run
from vdit.models.text.text_encoders import load_text_encoder

WEIGHTS = Path("weights")


@functools.cache
def balls():
    """(clips, text of each, generator)."""
    clips = [make_clip(1, "val", i, parse_world("captioned")) for i in range(24)]
    run = load_run(WEIGHTS / "balls")
    texts = load_text_encoder("minilm").encode([clip.captions["short"] for clip in clips])
    return clips, texts, generator_of(run)


def requests(given: int) -> list[Request]:
    clips, texts, _ = balls()
    return [
        Request(text_ME, *clip.video_TYXC.shape[:3], clip.fps, i, clip.video_TYXC[:given] if given else None)
        for i, (clip, text_ME) in enumerate(zip(clips, texts, strict=True))
    ]


def test_balls_go_on_as_they_were_going():
    clips, _, generator = balls()
    with tiny.two_devices():
        videos = generator.generate(requests(3), steps=4)
    found = [velocity_error(video, clip.truth(), 3) for video, clip in zip(videos, clips, strict=True)]
    frozen = [frozen_error(clip.video_TYXC, clip.truth(), 3) for clip in clips]
    assert np.mean([each.lost for each in found]) < 0.05
    assert np.mean([each.error for each in found]) < 0.5 * np.mean([each.error for each in frozen])
    for video, clip in zip(videos, clips, strict=True):
        np.testing.assert_array_equal(video[:3], clip.video_TYXC[:3])


def test_captions_are_followed():
    clips, _, generator = balls()
    with tiny.two_devices():
        videos = generator.generate(requests(0), steps=20, sampler="dpm++", guidance=3.0)
    found = [adherence(video, clip.captions["short"]) for video, clip in zip(videos, clips, strict=True)]
    assert np.mean([each.colours for each in found]) > 0.7
    assert np.mean([each.directions for each in found]) > 0.35, "an eighth by chance, three if neighbours count"


@pytest.mark.parametrize("folder", sorted(WEIGHTS.iterdir()), ids=lambda folder: folder.name)
def test_every_folder_has_a_card_and_names_no_machine(folder):
    card = (folder / "README.md").read_text()
    assert all(word in card for word in ("python -m vdit.train --config=", "Licence"))
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8 * 2**20
    for file in folder.glob("*.json"):
        assert not any(part in file.read_text() for part in ('"/work', '"/home', '"/tmp', '"/root'))
        json.loads(file.read_text())


def test_the_film_model_opens_with_its_autoencoder():
    with tiny.two_devices():
        run = load_run(WEIGHTS / "film")
        generator = generator_of(run)
    assert (generator.patch.time, generator.patch.height, generator.patch.width) == (4, 16, 16)
    assert run.meta["size"] == [8, 14] and run.config.data.max_frames == 5
