"""24M parameters (DiT-S) on images of 256 tokens: where to try an idea."""

from ml_collections import ConfigDict

from configs import vdit_sizes


def get_config() -> ConfigDict:
    return vdit_sizes.config(
        384, 12, 64, clips=("1x256x256",), row_tokens=16_384, words=64, steps=400_000, remat="none"
    )
