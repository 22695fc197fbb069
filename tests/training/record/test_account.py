"""What a run says it has consumed is what its rows held."""

import numpy as np
import pytest
import tiny

from data_pipelines.reading import pipeline
from data_pipelines.reading.mixture import open_data
from vdit.scaling.runs import COLUMNS, flatten, result_row
from vdit.training.record.account import time_account, training_seconds


def test_account_of_a_run_is_that_of_the_rows_read(tmp_path):
    config = tiny.change(tiny.tiny_config(steps=6), data={"fraction": 0.5})
    result = tiny.train(config, tmp_path / "run")
    data = open_data(config.data)
    index, plan = data.index("train"), pipeline.make_plan(data, config.data, data.patch, config.seed)
    seen = np.concatenate([plan.row(k).examples for k in range(12)])
    assert len(np.unique(seen)) == 24 == result["unique_examples"]  # half of the clips, all of them seen
    tokens = index.grid_N3(data.patch).prod(1)
    assert result["unique_tokens"] == tokens[np.unique(seen)].sum()
    assert result["epochs"] == pytest.approx(tokens[seen].sum() / result["unique_tokens"]) and result["epochs"] > 1
    assert result["repeated_tokens"] == tokens[seen].sum() - result["unique_tokens"]
    assert result["seconds_of_video"] == pytest.approx((index.frames[seen] / index.fps[seen]).sum(), rel=0.1)
    assert result["accelerator_hours"] == pytest.approx(result["train_seconds"] / 3600)  # one CPU machine
    row = flatten({k: v for k, v in result_row(config, result).items() if k != "validation"})
    wanted = {"params", "params_total", "tokens", "unique_tokens", "repeated_tokens", "epochs", "flops", "flops_6nd"}
    assert wanted | {"seconds_of_video", "accelerator_hours", "text_tokens", "tflops"} <= set(row)
    assert {name for name in row if name not in COLUMNS} == {"data_wait"}
    assert row["flops"] > row["flops_6nd"]


def test_time_is_counted_over_restarts_and_without_validation():
    rows = [{"seconds": 10.0, "flops": 1e12}, {"seconds": 20.0, "flops": 3e12}, {"seconds": 29.0, "validation": {}}]
    rows += [{"seconds": 4.0, "flops": 5e12}, {"seconds": 6.0, "flops": 6e12}]
    assert training_seconds(rows) == 26
    assert time_account(rows)["tflops"] == pytest.approx((2 + 1) / (10 + 2))
    assert time_account([]) == {"train_seconds": 0, "accelerator_hours": 0}


def test_restarts_are_told_by_when_they_began():
    """The second process was slower to its first step than the first one was in all that was kept of it."""
    rows = [{"seconds": 10.0, "flops": 1e12, "started": 100.0}, {"seconds": 20.0, "flops": 3e12, "started": 100.0}]
    rows += [{"seconds": 25.0, "flops": 4e12, "started": 500.0}, {"seconds": 27.0, "flops": 6e12, "started": 500.0}]
    assert training_seconds(rows) == 20 + 27
    assert time_account(rows)["tflops"] == pytest.approx((2 + 2) / (10 + 2))
    mixed = [{key: row[key] for key in ("seconds", "flops")} for row in rows[:2]] + rows[2:]  # begun by an old version
    assert training_seconds(mixed) == 20 + 27
