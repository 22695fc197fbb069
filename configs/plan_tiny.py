from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "data": {"row_tokens": 512, "row_examples": 4, "row_text": 64, "rows_per_step": 4},
            "model": {"width": 128, "depth": 2, "head_width": 64, "dtype": "bfloat16", "attention": "reference"},
            "mesh": {"replica": -1, "fsdp": 2},
            "plan": {"clips": ("9x128x128", "1x64x64:2"), "words": 8, "text_width": 32},
        }
    )
