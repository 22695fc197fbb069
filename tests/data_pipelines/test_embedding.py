"""Embeddings of clips, with random weights: what they depend on, and how they find near duplicates."""

import pathlib

import numpy as np
import pytest
from fake_source import FakeEncoder
from make_files import write_video
from random_observer import random_observer
from test_duplicates import picture

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.curation.duplicates import MAX_DIFFERENCE, SIMILAR, find_duplicates
from data_pipelines.building.curation.embedding import SIDE, WIDTH, Embedder, embedded_frames
from data_pipelines.media.hashing import BYTES, PARTS
from data_pipelines.reading.store import Dataset
from vdit.models.features import efficientnet


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_observer()
    monkeypatch.setattr(efficientnet, "load_weights", lambda: weights)
    efficientnet.load_features.cache_clear()
    yield
    efficientnet.load_features.cache_clear()


def test_frames_in_the_middle_of_the_parts() -> None:
    clip = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(8, 2).repeat(3, 3)
    frames = embedded_frames(clip)
    assert frames.shape == (PARTS, SIDE, SIDE, 3) and frames[:, 0, 0, 0].tolist() == [2, 6, 10]
    assert embedded_frames(clip[:1])[:, 5, 5, 1].tolist() == [0, 0, 0]


def test_an_embedding_depends_on_its_clip_alone(random_weights) -> None:
    clips = [embedded_frames(np.stack([np.roll(picture(seed), t, 1) for t in range(5)])) for seed in range(3)]
    embed = Embedder()
    together, alone = embed(clips), [embed([clip])[0] for clip in clips]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert together.shape == (3, WIDTH) and together.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(together.astype(float), axis=1), 1, atol=2e-3)


def unit(x_NE: np.ndarray) -> np.ndarray:
    return (x_NE / np.linalg.norm(x_NE, axis=1, keepdims=True)).astype(np.float16)


def test_near_duplicates_are_found_by_embeddings_where_hashes_are_not_too_unlike() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (600, BYTES), np.uint8)
    embedding = rng.normal(size=(600, WIDTH)) + 1.5  # of features that are never negative, all cosines are high
    for first, other, flipped, noise in ((0, 300, 0.25, 0.1), (1, 301, 0.5, 0.1), (2, 302, 0.25, 2.0)):
        hashes[other] = hashes[first] ^ np.packbits(rng.random(BYTES * 8) < flipped)
        embedding[other] = embedding[first] + noise * rng.normal(size=WIDTH)
    usable = np.ones(600, bool)
    found = find_duplicates(hashes, usable, unit(embedding))
    assert found.pairs_P2.tolist() == [[0, 300]]
    assert found.difference_P[0] > MAX_DIFFERENCE and found.similarity_P[0] >= SIMILAR
    assert len(find_duplicates(hashes, usable).pairs_P2) == 0
    usable[300] = False
    assert len(find_duplicates(hashes, usable, unit(embedding)).pairs_P2) == 0


def test_a_data_set_holds_its_embeddings(tmp_path: pathlib.Path, random_weights) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(3):
        write_video(tmp_path / "in" / f"{seed}.mp4", [np.roll(picture(seed), t, 1) for t in range(5)])
    (tmp_path / "in" / "captions.csv").write_text("file,caption,split\n2.mp4,a clip,val\n")
    build(BuildArgs(str(tmp_path / "in"), str(tmp_path / "out"), embed=True), FakeEncoder())
    dataset = Dataset(tmp_path / "out")
    for split in ("train", "val"):
        stored = np.load(tmp_path / "out" / f"embedding-{split}.npy")
        clips = [dataset.read_clip(split, i).video_TYXC for i in range(dataset.size(split))]
        np.testing.assert_array_equal(stored, Embedder()([embedded_frames(clip) for clip in clips]))
    assert dataset.meta["build"]["embed"] is True
