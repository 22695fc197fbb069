from vdit.training.record.tags import tagged


def test_every_number_of_a_step_has_a_group():
    row = {"step": 7, "loss": 0.5, "grad_norm": 1.0, "rate": 0.1, "kl": 2.0, "tokens_per_second": 9.0, "patches": 3}
    assert tagged(row | {"started": 1e9, "began": 1e9, "productive_seconds": 4.0, "mfu": float("nan")}) == {
        "train/loss": 0.5,
        "train/gradient_norm": 1.0,
        "train/learning_rate": 0.1,
        "train/kl": 2.0,
        "speed/tokens_per_second": 9.0,
        "seen/patches": 3.0,
    }


def test_a_row_of_an_evaluation_gives_what_it_found():
    found = {"loss": 0.25, "loss_interval": [0.2, 0.3], "val": {"loss": 0.25, "by_mode": {"text": 0.5}}}
    assert tagged({"step": 7, "validation": found, "patches": 3, "seconds": 2.0}) == {
        "validation/loss": 0.25,
        "validation/val/loss": 0.25,
        "validation/val/by_mode/text": 0.5,
    }
