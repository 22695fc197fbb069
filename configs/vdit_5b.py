"""5.1B parameters on images and clips of up to 81 frames of 720x1280: 75,600 patches."""

from ml_collections import ConfigDict

from configs import vdit_sizes


def get_config() -> ConfigDict:
    return vdit_sizes.config(
        3072, 44, 128, clips=("1x720x1280:2", "81x480x832", "81x720x1280"), row_tokens=75_776, words=176, steps=200_000
    )
