"""Weights that the repository ships are of this version: their configs and tensors are those that it reads."""

from pathlib import Path

import tiny

from vdit.generation.restore import generator_of, load_run

WEIGHTS = Path(__file__).parents[2] / "weights"


def test_the_film_model_opens_with_its_autoencoder(monkeypatch):
    monkeypatch.chdir(WEIGHTS.parent)
    with tiny.two_devices():
        run = load_run(WEIGHTS / "film")
        generator = generator_of(run)
    assert (generator.patch.time, generator.patch.height, generator.patch.width) == (4, 16, 16)
    assert run.meta["size"] == [8, 14] and run.config.data.max_frames == 5
