"""10B parameters, of Wan 2.1 14B's width, depth and heads, on its clips: 81 frames of 720x1280, 75,600 patches."""

from ml_collections import ConfigDict

from configs import vdit_sizes


def get_config() -> ConfigDict:
    return vdit_sizes.config(
        5120,
        40,
        128,
        feed_forward=2.7,
        clips=("81x720x1280",),
        row_tokens=75_776,
        words=176,
        steps=100_000,
        remat="blocks",
    )
