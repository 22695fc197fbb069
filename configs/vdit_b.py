"""93M parameters (DiT-B) on 256-pixel images and clips of 17 frames."""

from ml_collections import ConfigDict

from configs import vdit_sizes


def get_config() -> ConfigDict:
    return vdit_sizes.config(
        768,
        12,
        64,
        clips=("1x256x256:3", "17x256x256"),
        row_tokens=16_384,
        words=64,
        steps=400_000,
        remat="none",
    )
