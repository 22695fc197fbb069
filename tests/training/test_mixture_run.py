"""A run on a mixture in stages, stopped within a stage and an epoch, ends as one that was not."""

import json

import pytest
import tiny
from etils import epath

from data_pipelines.reading.mixture import open_data
from vdit.config import StageConfig
from vdit.errors import UserError
from vdit.training.record import workdir
from vdit.training.record.metrics import read_metrics


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    other = tiny.write_dataset(tmp_path_factory.mktemp("other") / "data", examples=24, seed=1)
    stages = (StageConfig(max_area=4), StageConfig(2, weights=(0, 2)), StageConfig(5))
    data = {"path": f"{tiny.dataset()},{other}", "weights": (1, 0.5), "stages": stages}
    return tiny.change(tiny.tiny_config(steps=7, evaluate_every=-1), data=data)


def test_it_resumes_within_a_stage(config, tmp_path):
    tiny.train(config, tmp_path / "whole")
    for steps in (3, 7):
        tiny.train(tiny.change(config, train={"steps": steps}), tmp_path / "parts")
    tiny.assert_same_result(tmp_path / "parts", tiny.result(tmp_path / "whole", config), config)
    assert [row["step"] for row in read_metrics(tmp_path / "parts")] == list(range(1, 8))


def test_its_config_is_its_identity(config, tmp_path):
    meta = open_data(config.data).meta
    workdir.claim(epath.Path(tmp_path), config, meta)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    workdir.check(epath.Path(tmp_path), config, meta)
    for change in ({"weights": (1, 1)}, {"stages": ()}):
        with pytest.raises(UserError, match="holds a run with data"):
            workdir.check(epath.Path(tmp_path), tiny.change(config, data=change), meta)


def test_a_run_from_before_there_were_mixtures_resumes(tmp_path):
    config = tiny.tiny_config()
    meta = open_data(config.data).meta
    workdir.claim(epath.Path(tmp_path), config, meta)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["data"]["weights"], values["data"]["stages"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    workdir.check(epath.Path(tmp_path), config, meta)
