"""Fine-tunes one of the two experts of Wan 2.2 A14B on clips of 81 frames of 704x1280: 73,920 patches.

init_from names the folder of the expert. See docs/finetune.md; compiled for TPUs, not trained.
"""

from ml_collections import ConfigDict

from configs import wan


def get_config() -> ConfigDict:
    return wan.finetuning(5120, 40, 13_824, clips=("81x704x1280",), row_tokens=75_776, steps=1_000, remat="blocks")
