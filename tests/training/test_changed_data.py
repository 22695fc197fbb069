"""Data that changed under a run is named and refused, unless the user accepts it; data that only moved are the same."""

import shutil

import pytest
import tiny

from data_pipelines.reading.store import Dataset
from vdit.errors import UserError
from vdit.io.files import read_json, write_json

MEAN = {"mean": (0.1, 0.0, -0.1)}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return tiny.write_dataset(tmp_path_factory.mktemp("other") / "data", examples=24, seed=1)


def config_on(*paths, steps=2, weights=(), **train):
    data = {"path": ",".join(map(str, paths)), "weights": weights}
    return tiny.change(tiny.tiny_config(steps=steps, evaluate_every=-1, **train), data=data, diffusion=MEAN)


def files(workdir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workdir.glob("*.json*")}


def test_a_fingerprint_is_of_what_a_run_reads(other, tmp_path):
    found = Dataset(tiny.dataset()).fingerprint
    assert len(found) == 16 and found != Dataset(other).fingerprint
    moved = shutil.copytree(tiny.dataset(), tmp_path / "moved")
    assert Dataset(moved).fingerprint == found
    shorter = tiny.write_dataset(tmp_path / "shorter", examples=47)
    assert Dataset(shorter).fingerprint != found


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ([1, 0], r"data set 1 of 2, .* has fingerprint \w+, \w+ \(.*\) when .* was trained"),
        ([0, 0], "data set 2 of 2, .* has fingerprint"),
        ([0], "was trained on 2 data sets, not 1"),
    ],
    ids=["another order", "another data set", "one less"],
)
def test_a_changed_mixture_is_refused_and_nothing_is_touched(other, tmp_path, now, message):
    paths = [tiny.dataset(), other]
    tiny.train(config_on(*paths), tmp_path / "run")
    before = files(tmp_path / "run")
    with pytest.raises(UserError, match=f"{message}.* set train.accept_new_data=true to resume on the new data"):
        tiny.train(config_on(*(paths[i] for i in now), steps=3), tmp_path / "run")
    assert files(tmp_path / "run") == before


def test_other_weights_are_named(other, tmp_path):
    paths = [tiny.dataset(), other]
    tiny.train(config_on(*paths, weights=(1, 0.5)), tmp_path / "run")
    with pytest.raises(UserError, match=r"data set 2 of 2, .* has weight 1.0, 0.5 \("):
        tiny.train(config_on(*paths, steps=3), tmp_path / "run")


def test_the_user_can_accept_new_data_once(other, tmp_path):
    tiny.train(config_on(tiny.dataset()), tmp_path / "run")
    tiny.train(config_on(other, tiny.dataset(), steps=3, weights=(1, 0.5), accept_new_data=True), tmp_path / "run")
    found = read_json(tmp_path / "run" / "dataset.json")["datasets"]
    assert [part["weight"] for part in found] == [1, 0.5]
    assert found[0]["fingerprint"] == Dataset(other).fingerprint
    tiny.train(config_on(other, tiny.dataset(), steps=4, weights=(1, 0.5)), tmp_path / "run")


def test_accepted_data_keep_the_mean_that_the_run_began_with(other, tmp_path):
    config = tiny.tiny_config(steps=2, evaluate_every=-1)
    tiny.train(config, tmp_path / "run")
    mean = read_json(tmp_path / "run" / "config.json")["diffusion"]["mean"]
    changed = tiny.change(config, data={"path": str(other)}, train={"steps": 3, "accept_new_data": True})
    tiny.train(changed, tmp_path / "run")
    assert read_json(tmp_path / "run" / "config.json")["diffusion"]["mean"] == mean


def test_data_that_moved_are_the_same(tmp_path):
    config = config_on(tiny.dataset(), steps=3)
    tiny.train(config, tmp_path / "whole")
    tiny.train(tiny.change(config, train={"steps": 2}), tmp_path / "run")
    moved = shutil.copytree(tiny.dataset(), tmp_path / "moved")
    tiny.train(tiny.change(config, data={"path": str(moved)}), tmp_path / "run")
    tiny.assert_same_result(tmp_path / "run", tiny.result(tmp_path / "whole", config), config)


@pytest.mark.parametrize("datasets", ["x", [1], [{"path": "a"}]])
def test_a_damaged_record_of_the_data_is_named(tmp_path, datasets):
    config = config_on(tiny.dataset())
    tiny.train(config, tmp_path / "run")
    path = tmp_path / "run" / "dataset.json"
    write_json(path, {**read_json(path), "datasets": datasets})
    with pytest.raises(UserError, match="dataset.json is damaged .datasets="):
        tiny.train(config, tmp_path / "run")
