"""462M parameters (DiT-XL) on images and clips of up to 81 frames, 256 pixels high."""

from ml_collections import ConfigDict

from configs import vdit_sizes


def get_config() -> ConfigDict:
    return vdit_sizes.config(
        1152, 28, 72, clips=("1x512x512:2", "49x256x448", "81x256x448"), row_tokens=16_384, words=64, steps=400_000
    )
