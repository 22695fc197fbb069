"""A small data set on disk, written without any text encoder."""

import numpy as np
from etils import epath

from data_pipelines.building.dataset_writer import DatasetWriter
from data_pipelines.reading.records import Record
from vdit.patches import Patch

PATCH = Patch(4, 8, 8)
KINDS = ("short", "detailed")
TEXT_WIDTH = 6


def write_dataset(directory, examples: int = 40, long_clips: int = 4, seed: int = 0) -> None:
    """Writes random clips of varied size to `train` and an eighth as many to `val`; `long_clips` have 29 frames."""
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    writer = DatasetWriter(epath.Path(directory), "small", PATCH, shard_bytes=100_000)
    for split, count in (("train", examples), ("val", max(1, examples // 8))):
        for i in range(count):
            frames = 29 if i < long_clips else 1 + 4 * int(rng.integers(0, 3))
            height, width = 8 * rng.integers(1, 4, 2)
            video = rng.integers(0, 256, (frames, height, width, 3), np.uint8)
            text = {
                kind: rng.normal(size=(tokens, TEXT_WIDTH)).astype(np.float16)
                for kind, tokens in zip(KINDS, rng.integers(1, (4, 12)), strict=True)
            }
            identity = int(rng.integers(2**63)) * 2 + i % 2
            captions = {kind: f"{split} clip {i}, {kind} caption" for kind in KINDS}
            writer.add(split, Record(identity, video, 12.0, captions, text, {}))
    writer.finish(
        {
            "source": "small",
            "licence": "none",
            "autoencoder": {"name": "pixels"},
            "text_encoder": {"name": "random", "width": TEXT_WIDTH, "hash": ""},
            "build": {},
        }
    )
