"""Steps that are not finite are left out; bad steps that repeat roll a run back, which then skips what led there."""

import dataclasses
import functools
import math
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_model
import tiny
from etils import epath
from jax.experimental import multihost_utils

from data_pipelines.reading import pipeline
from data_pipelines.reading.store import Dataset
from vdit.config import StageConfig
from vdit.data import TrainingData
from vdit.io.files import read_json
from vdit.parallel.mesh import to_global, use_mesh
from vdit.training.loop import train_loop
from vdit.training.optimization.clipping import adaptive_clip
from vdit.training.optimization.optimizer import make_optimizer
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery import rollback, spikes
from vdit.training.recovery.checkpoint import Position, checkpoint_steps
from vdit.training.recovery.spikes import LossSpikeDetector
from vdit.training.run import Run
from vdit.training.step import TrainState, make_train_step

CONFIG = tiny.tiny_config(steps=12, checkpoint_every=2, keep=2)


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
    config = tiny.change(small_model.CONFIG, optimizer={"adaptive_clip": 2.5})
    graph, params = small_model.stirred(small_model.CONFIG)
    batch = small_model.pack([small_model.clips()])
    with use_mesh(small_model.one_device()):
        params = small_model.shard_like(params, config)
        state = TrainState(
            jnp.int32(3), params, jax.tree.map(jnp.copy, params), make_optimizer(config.optimizer).init(params)
        )
        step = make_train_step(graph, config)
        good, _ = step(jax.tree.map(jnp.copy, state), to_global(batch, small_model.one_device()), np.float32(1e-3))
        broken = dataclasses.replace(batch, text_BME=np.full_like(batch.text_BME, np.inf))
        before = jax.tree.map(np.array, good)
        after, metrics = step(good, to_global(broken, small_model.one_device()), np.float32(1e-3))
    assert not math.isfinite(float(metrics["loss"]))
    assert (int(before.step), int(after.step)) == (4, 5)
    for name in ("params", "ema", "optimizer"):
        for old, new in zip(*(jax.tree.leaves(getattr(s, name)) for s in (before, after)), strict=True):
            np.testing.assert_array_equal(np.asarray(new), old)
    assert any(a.any() for a in map(np.asarray, jax.tree.leaves(before.optimizer)))


def rows_of(*steps: int) -> frozenset[int]:
    """The ids of the examples that the undisturbed run sees in these steps (from 1)."""
    dataset = Dataset(CONFIG.data.path)
    plan = pipeline.make_plan(dataset, CONFIG.data, dataset.patch, CONFIG.seed)
    rows = [row for step in steps for row in (2 * step - 2, 2 * step - 1)]
    return frozenset(int(i) for row in rows for i in dataset.index("train").id[plan.row(row).examples])


def first_row(batch) -> int:
    """Which row of the plan a batch begins with, known by the ids of its examples."""
    halves = np.asarray(batch.ids_BN2)[0].astype(np.uint64)
    return tuple(halves[:, 0].tolist() + halves[:, 1].tolist())


@functools.cache
def batch_keys(count: int) -> list[tuple]:
    dataset = Dataset(CONFIG.data.path)
    rows = pipeline.rows(dataset, CONFIG.data, dataset.patch, CONFIG.seed)
    return [first_row(next(rows)) for _ in range(count)]


def train(workdir, poisoned: set[int], change, progress=None):
    """Trains; in the steps that read the rows of step number n (of a run that skips none), n in `poisoned`,
    `change` alters (batch, state, metrics)."""
    train_step = Run.train_step
    keys = [batch_keys(30)[step - 1] for step in poisoned]

    def disturbed(run):
        take_step = train_step(run)

        def step(state, batch, rate):
            if first_row(batch) in keys:
                return change(take_step, state, batch, rate)
            return take_step(state, batch, rate)

        return step

    with mock.patch.object(Run, "train_step", disturbed):
        return tiny.train(CONFIG, workdir, progress)


def not_finite(step_function, state, batch, rate):
    """The batch's captions are infinite."""
    text = jax.device_put(np.full(batch.text_BME.shape, np.inf, batch.text_BME.dtype), batch.text_BME.sharding)
    return step_function(state, dataclasses.replace(batch, text_BME=text), rate)


def high(step_function, state, batch, rate):
    state, metrics = step_function(state, batch, rate)
    return state, {**metrics, "loss": 50 * metrics["loss"]}


def test_single_steps_are_left_out_and_counted(tmp_path, capfd):
    result = train(tmp_path / "run", {3, 7}, not_finite)
    rows = [row for row in read_metrics(tmp_path / "run") if "validation" not in row]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows if not math.isfinite(row["loss"])] == [3, 7]
    assert [row["skipped_updates"] for row in rows] == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert math.isfinite(result["validation"]["loss"])
    assert "warning: step 7 of" in (err := capfd.readouterr().err) and "rows 12 to 14, has loss" in err
    assert not (tmp_path / "run" / "skipped_batches.json").exists()


@functools.cache
def rolled_back():
    """(workdir, copies of it after every row of metrics) of a run whose steps 6 to 11 are not finite."""
    workdir, copies = tiny.folder() / "rolled-back" / "run", tiny.folder() / "rolled-back"
    seen = []

    def progress(row) -> None:
        seen.append(row)
        tiny.copy_now(workdir, copies / str(len(seen)))

    train(workdir, set(range(6, 12)), not_finite, progress)
    return workdir, copies, seen


def test_repeated_ones_send_the_run_back_and_past_their_rows():
    workdir, _, seen = rolled_back()
    train_steps = [row["step"] for row in seen if "validation" not in row]
    assert train_steps == [*range(1, 11), *range(5, 13)]  # step 10 is the fifth bad one; step 4 the last good save
    (entry,) = read_json(workdir / "skipped_batches.json", list)
    assert (entry["checkpoint"], entry["step"], entry["rows"]) == (4, 10, [8, 20])
    assert [bad["step"] for bad in entry["bad"]] == [6, 7, 8, 9, 10]
    assert [bad["loss"] for bad in entry["bad"]] == [None] * 5
    for bad in entry["bad"]:
        assert frozenset(i for ids in bad["rows"].values() for i in ids) == rows_of(bad["step"])
    # Rows 20 and 21, of what would have been step 11, are bad too: that step, the fifth now, is left out.
    rows = [row for row in read_metrics(workdir) if "validation" not in row]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows if not math.isfinite(row["loss"])] == [5]
    position = tiny.restored(workdir, CONFIG).position
    assert (position.step, position.next_row, position.skipped) == (12, 36, [[8, 20]])
    assert position.spikes.skipped_updates == 1


@pytest.mark.parametrize("rows", [7, 10, 11, 13])
def test_a_kill_on_the_way_changes_nothing(tmp_path, rows):
    """During the bad steps, at the last of them, and after going back."""
    workdir, copies, _ = rolled_back()
    expected = tiny.result(workdir, CONFIG)
    shutil.copytree(copies / str(rows), tmp_path / "run")
    train(tmp_path / "run", set(range(6, 12)), not_finite)
    assert read_json(tmp_path / "run" / "skipped_batches.json", list) == read_json(
        workdir / "skipped_batches.json", list
    )
    arrays, position, metrics = tiny.result(tmp_path / "run", CONFIG)
    assert position == expected[1] and str(metrics) == str(expected[2])  # a loss of nan is not equal to itself
    for name, array in expected[0].items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def test_a_kill_between_the_record_and_the_step_back(tmp_path):
    workdir, copies, _ = rolled_back()
    shutil.copytree(copies / "10", tmp_path / "run")
    shutil.copy(workdir / "skipped_batches.json", tmp_path / "run")
    train(tmp_path / "run", set(range(6, 12)), not_finite)
    assert len(read_json(tmp_path / "run" / "skipped_batches.json", list)) == 1
    assert tiny.result(tmp_path / "run", CONFIG)[1] == tiny.result(workdir, CONFIG)[1]


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_process_writes_once_all_have_read_and_alone_asks_for_examples(tmp_path, monkeypatch, index):
    good, events = Position(step=4, next_row=8), []
    checkpoints = mock.MagicMock()
    checkpoints.return_value.__enter__.return_value.newest_position.return_value = good
    monkeypatch.setattr(rollback, "Checkpoints", checkpoints)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    written = tmp_path / "skipped_batches.json"
    monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: events.append((name, written.exists())))

    def ids(rows):
        events.append(rows)
        return [[100 + row] for row in rows]

    reached = Position(step=10, next_row=20, spikes=LossSpikeDetector(bad=[[6, 10, None], [7, 12, 1.5]]))
    rollback._roll_back(epath.Path(tmp_path), CONFIG.train, reached, Position(), ids)
    asked = [[10, 11, 12, 13]] if index == 0 else []
    assert events == [("skipped_batches_read", False), *asked, ("set_aside_4", index == 0)]
    if index == 0:
        (entry,) = read_json(written, list)
        assert [bad["rows"] for bad in entry["bad"]] == [{"10": [110], "11": [111]}, {"12": [112], "13": [113]}]


@pytest.mark.parametrize(
    ("next_row", "skipped", "begins", "forgets"),
    [
        (20, [[8, 20]], 12, True),
        (20, [[8, 20]], 20, True),
        (20, [[8, 20]], 8, False),  # was forgotten with the step before
        (24, [[8, 12], [12, 24]], 10, True),
        (24, [[8, 20]], 12, False),  # two steps since then, with the new data
        (24, [], 24, False),
    ],
)
def test_the_statistics_begin_anew_where_the_beginning_of_a_stage_is_skipped(
    tmp_path, next_row, skipped, begins, forgets
):
    stages = (StageConfig(), StageConfig(step=begins // 2))
    config = tiny.change(CONFIG, data={"stages": stages}, train={"steps": 6, "evaluate_every": -1})
    position = Position(6, next_row, skipped=skipped, spikes=LossSpikeDetector(seen=60, mean=1.0, variance=0.1))
    run = mock.Mock(config=config, workdir=epath.Path(tmp_path), position=position, training_flops=0.0)
    run.configure_mock(mesh=small_model.one_device(), parameters=(0, 0))
    train_loop(run, TrainingData({}, lambda *_: iter([])), None)  # no step is left to take
    assert position.spikes == (LossSpikeDetector() if forgets else LossSpikeDetector(seen=60, mean=1.0, variance=0.1))


def test_high_losses_send_it_back_too(tmp_path, monkeypatch):
    monkeypatch.setattr(spikes, "WARMUP", 3)
    train(tmp_path / "run", set(range(5, 10)), high)
    (entry,) = read_json(tmp_path / "run" / "skipped_batches.json", list)
    assert (entry["checkpoint"], entry["step"], entry["rows"]) == (4, 9, [8, 18])
    assert all(bad["loss"] > 1 for bad in entry["bad"])
    assert checkpoint_steps(tmp_path / "run") == [10, 12]


def judged(losses, deviations=6.0) -> list[int]:
    """Places of the losses that are judged bad."""
    seen = LossSpikeDetector()
    return [i for i, loss in enumerate(losses) if seen.update(i, 0, loss, 1.0, deviations)]


def test_what_is_bad():
    rng = np.random.default_rng(0)
    noisy = np.exp(0.3 * rng.normal(size=3000)) * np.linspace(0.9, 0.03, 3000)
    assert judged(noisy) == []
    assert judged([*noisy, 1.0]) == [3000]
    assert judged([*noisy, 1.0], deviations=0) == []
    assert judged([*noisy, math.nan, math.inf], deviations=0) == [3000, 3001]
    assert judged([1.0] * 20 + [1e6]) == []  # too early to tell
    assert judged([0.0] * 20 + [1.0] * 80) == []  # nothing was scored at first


def test_bad_steps_are_forgiven():
    seen = LossSpikeDetector()
    for step in range(200):
        seen.update(step, 2 * step, math.nan if step % 40 == 0 else 1.0, 1.0, 6.0)
        assert seen.strikes < 2
    assert seen.skipped_updates == 5 and seen.bad == []


def test_adaptive_clipping_bounds_a_spike_and_nothing_else():
    rng = np.random.default_rng(1)
    transform = adaptive_clip(2.5)
    state = transform.init(None)
    for size in 1 + 0.1 * rng.uniform(-1, 1, 60):
        grads = {"a": jnp.array([size, 0.0], jnp.float32)}
        found, state = transform.update(grads, state)
        np.testing.assert_array_equal(found["a"], grads["a"])
    mean, deviation = float(state.mean), math.sqrt(float(state.variance))
    found, after = transform.update({"a": jnp.array([6.0, 8.0], jnp.float32)}, state)
    norm = float(jnp.linalg.norm(found["a"]))
    z = (10 - mean) / deviation
    assert norm == pytest.approx(mean + 2.5**2 / z * deviation, rel=1e-4) and norm < 1.1 * mean
    assert found["a"][1] / found["a"][0] == pytest.approx(8 / 6)
    assert float(after.mean) == pytest.approx(0.97 * mean + 0.03 * norm, rel=1e-5)
