"""Anybody's own iterator of PackedBatch feeds the trainer, as docs/data.md shows."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from vdit.data import TrainingData
from vdit.errors import UserError
from vdit.training.loop import train
from vdit.training.record.metrics import read_metrics

EXAMPLE = re.compile(r"## A loader of your own.*?```python\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[dict, Path]:
    """(names that the example defines, workdir) once it has run."""
    page = Path(__file__).parents[2] / "docs" / "data.md"
    (source,) = EXAMPLE.findall(page.read_text(encoding="utf-8"))
    workdir = tmp_path_factory.mktemp("own") / "run"
    names = {"WORKDIR": workdir}
    exec(compile(source, str(page), "exec"), names)
    return names, workdir


def test_the_example_of_the_docs_trains(trained):
    names, workdir = trained
    losses = [row["loss"] for row in read_metrics(workdir)]
    assert len(losses) == names["config"].train.steps and np.isfinite(losses).all()
    assert names["result"]["examples"] == names["config"].train.steps * names["config"].data.rows_per_step
    assert json.loads((workdir / "dataset.json").read_text())["channels"] == 3


def test_it_resumes(trained):
    names, workdir = trained
    steps = names["config"].train.steps
    longer = dataclasses.replace(names["config"], train=dataclasses.replace(names["config"].train, steps=steps + 1))
    train(longer, workdir, TrainingData(names["meta"], names["batches"]))
    assert [row["step"] for row in read_metrics(workdir)] == list(range(1, steps + 2))


def test_what_cannot_be_validated_is_refused(trained, tmp_path):
    names, _ = trained
    config = dataclasses.replace(names["config"], train=dataclasses.replace(names["config"].train, evaluate_every=0))
    with pytest.raises(UserError, match="nothing to validate with; set train.evaluate_every=-1"):
        train(config, tmp_path / "run", TrainingData(names["meta"], names["batches"]))
    assert not (tmp_path / "run").exists()
