"""Fine-tunes Wan 2.1 text to video (the sizes are those of 1.3B; those of init_from count) on images and 480-row clips.

Build the data with the autoencoder and text encoder of the pipeline and start from its transformer: see docs/wan.md.
Compiled for TPUs, not trained: there was none.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import vdit_sizes


def finetuning(width: int, depth: int, feed_forward: int, **sizes: Any) -> ConfigDict:
    """Fine-tuning of a published model of Wan: its sizes, and what `vdit_sizes.config` takes."""
    config = vdit_sizes.config(width, depth, 128, feed_forward=feed_forward / width, words=128, **sizes)
    config.init_from = ""
    config.model.family = "wan"
    config.model.prediction = "v"
    config.model.base_width = width  # the learning rate is stated at the width of the weights
    config.diffusion = ConfigDict({"size_shift": False, "shift": 3.0, "mean": (0.0,)})
    config.diffusion.modes = ConfigDict({"text": 0.8, "first_frame": 0.2})
    config.optimizer = ConfigDict({"learning_rate": 1e-5, "warmup": 200, "beta2": 0.999, "ema": 0.999})
    return config


def get_config() -> ConfigDict:
    config = finetuning(1536, 30, 8960, clips=("81x480x832",), row_tokens=33_280, steps=5_000)
    config.data.rows_per_step = 64
    return config
