"""315M parameters (DiT-L) on images and clips of up to 33 frames, 256 pixels high."""

from ml_collections import ConfigDict

from configs import vdit_sizes


def get_config() -> ConfigDict:
    return vdit_sizes.config(
        1024,
        24,
        64,
        clips=("1x256x256:2", "17x256x448", "33x256x448"),
        row_tokens=16_384,
        words=64,
        steps=400_000,
    )
