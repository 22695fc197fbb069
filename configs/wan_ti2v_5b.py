"""Fine-tunes Wan 2.2 TI2V-5B on clips of 81 frames of 704x1280: 18,480 patches.

Its autoencoder has strides 4x16x16 and 48 channels. See docs/finetune.md; compiled for TPUs, not trained.
"""

from ml_collections import ConfigDict

from configs import wan


def get_config() -> ConfigDict:
    config = wan.finetuning(3072, 30, 14_336, clips=("81x704x1280",), row_tokens=18_944, steps=1_000, remat="blocks")
    config.plan.stride = (4, 16, 16)
    config.plan.channels = 48
    return config
