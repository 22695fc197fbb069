"""Measures of clips that were given back, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from data_pipelines.reading.store import Dataset
from vdit.errors import UserError
from vdit.evaluation.metrics.likeness import psnr, ssim
from vdit.evaluation.reconstruction import compare, reconstruction

RNG = np.random.default_rng(0)


def features(frames_NYXC):
    return frames_NYXC.reshape(len(frames_NYXC), -1)[:, :6] / np.float32(255)


def pairs():
    shapes = [(9, 16, 16), (1, 16, 16), (5, 16, 24)]
    true = [RNG.integers(60, 190, (*shape, 3)).astype(np.uint8) for shape in shapes]
    noise = [np.float64(level) for level in (20, 4, 9)]
    return [
        ((clip + RNG.normal(0, level, clip.shape)).clip(0, 255).astype(np.uint8), clip)
        for level, clip in zip(noise, true, strict=True)
    ]


def test_every_measure_by_hand():
    clips = pairs()
    found = compare(clips, features)
    per_frame = [psnr(video, true) for video, true in clips]
    error = np.concatenate([((video.astype(float) - true) ** 2).mean((1, 2, 3)) for video, true in clips]).mean()
    assert (found["clips"], found["frames"]) == (3, 15)
    assert found["psnr"] == pytest.approx(np.concatenate(per_frame).mean())
    assert found["clip_psnr"] == pytest.approx(np.mean([values.mean() for values in per_frame]))
    assert found["total_psnr"] == pytest.approx(10 * np.log10(255**2 / error), rel=1e-6)
    assert found["squared_error"] == pytest.approx(error / 127.5**2, rel=1e-6)
    assert found["ssim"] == pytest.approx(np.mean([ssim(*pair).mean() for pair in clips]))
    low, high = found["clip_psnr_interval"]
    assert low <= found["clip_psnr"] <= high
    assert set(found["by_size"]) == {"16x16", "24x16"}
    small, wide = found["by_size"]["16x16"], found["by_size"]["24x16"]
    assert small["psnr"] == pytest.approx(np.concatenate(per_frame[:2]).mean()) and wide["frames"] == 5
    assert "kernel_distance" in small and "kernel_distance" not in wide, "one clip has no distance"
    assert "kernel_distance" not in compare(clips)


def test_equal_clips_have_no_distance_and_worse_ones_a_larger_one():
    true = [pair[1] for pair in pairs()]
    assert compare(zip(true, true, strict=True), features)["kernel_distance"]["value"] == pytest.approx(0, abs=1e-12)
    values = []
    for shade in (5, 50):
        darker = [np.clip(clip.astype(int) - shade, 0, 255).astype(np.uint8) for clip in true]
        values.append(compare(zip(darker, true, strict=True), features)["kernel_distance"]["value"])
    assert 0 < values[0] < values[1]


def test_latents_are_not_measured(tmp_path):
    data = tiny.write_dataset(tmp_path / "latents", 6, autoencoder={"name": "causal_vae:x"})
    with pytest.raises(UserError, match="holds latents"):
        reconstruction(None, Dataset(data), "train")
