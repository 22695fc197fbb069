"""2.1B parameters on images and clips of up to 81 frames of 480x832: 32,760 patches."""

from ml_collections import ConfigDict

from configs import vdit_sizes


def get_config() -> ConfigDict:
    return vdit_sizes.config(
        2048, 40, 128, clips=("1x480x832:2", "33x480x832", "81x480x832"), row_tokens=33_792, words=128, steps=200_000
    )
