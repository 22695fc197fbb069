"""What the named sizes vdit_s ... vdit_10b share: latents of a 4x8x8 autoencoder in patches of 1x2x2, UMT5 captions.

The latents are those of the Wan 2.1 autoencoder (16 channels), the caption features those of UMT5-XXL (4,096 wide). Set
data.path to a data set built with both; until it is there, `vdit.plan` plans for the clips in config.plan. These sizes
have been compiled, not trained: docs/scaling.md says on which slices each fits and what it is estimated to take.
"""

from ml_collections import ConfigDict


def config(
    width: int,
    depth: int,
    head_width: int,
    *,
    feed_forward: float = 4.0,
    clips: tuple[str, ...],
    row_tokens: int,
    words: int,
    steps: int,
    remat: str = "attention",
) -> ConfigDict:
    """A run on accelerators: bfloat16, one row on every chip or context group.

    Args:
      width, depth, head_width, feed_forward: of the model.
      clips: sizes to expect, see vdit.config.PlanConfig.
      row_tokens: slots of a row.
      words: caption tokens of a clip.
      steps: length of the run.
      remat: policy, see vdit.config.ModelConfig.
    """
    patches_of_smallest = 256
    examples = max(1, row_tokens // patches_of_smallest)
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "row_tokens": row_tokens,
                "row_examples": examples,
                "row_text": words * examples,
                "rows_per_step": 256,
            },
            "model": {
                "width": width,
                "depth": depth,
                "head_width": head_width,
                "feed_forward": feed_forward,
                "base_width": 256,
                "dtype": "bfloat16",
                "remat": remat,
            },
            "optimizer": {"learning_rate": 1e-3, "warmup": 1000, "ema": 0.9999},
            "mesh": {"replica": -1, "fsdp": 32 if width < 2048 else 64},
            "train": {"steps": steps, "log_every": 20, "checkpoint_every": 1000},
            "plan": {"clips": clips, "words": words},
        }
    )
