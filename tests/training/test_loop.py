import functools
import itertools
import time
from unittest import mock

import jax
import numpy as np
import pytest
import tiny

from data_pipelines.reading import pipeline
from data_pipelines.reading.store import Dataset
from data_pipelines.reading.training_data import packed_data
from vdit import flops
from vdit.errors import UserError
from vdit.parallel.mesh import make_mesh
from vdit.training import loop
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import Position, checkpoint_steps
from vdit.training.timing import TIMES


def train_rows(workdir) -> list[dict]:
    return [row for row in read_metrics(workdir) if "validation" not in row]


def test_the_loss_goes_down():
    _, workdir = tiny.long_run()
    losses = [row["loss"] for row in train_rows(workdir)]
    assert len(losses) == 60
    assert np.mean(losses[-15:]) < 0.5 * np.mean(losses[:5])
    assert read_metrics(workdir)[-1]["validation"]["loss"] < 0.5 * np.mean(losses[:5])


def test_the_account_is_that_of_the_rows_read():
    config, workdir = tiny.long_run()
    run, dataset = tiny.restored(workdir, config), Dataset(config.data.path)
    plan = pipeline.make_plan(dataset, config.data, tiny.PATCH, config.seed)
    index = dataset.index("train")
    grids_N3 = index.grid_N3(tiny.PATCH)
    spent, patches, text, examples = 0.0, 0, 0, 0
    batches = pipeline.rows(dataset, config.data, tiny.PATCH, config.seed)
    for step, (row, batch) in enumerate(zip(train_rows(workdir), batches, strict=False)):
        spent += flops.batch_training_flops(run.shape, batch.segments_BL, batch.text_index_BL)
        for number in (2 * step, 2 * step + 1):
            planned = plan.row(number).examples
            patches += int(grids_N3[planned].prod(1).sum())
            text += int(index.text_tokens[planned, 0].sum())
            examples += len(planned)
        assert row["flops"] == pytest.approx(spent, rel=1e-12)
        assert (row["patches"], row["text"], row["examples"]) == (patches, text, examples)
    assert (run.position.step, run.position.next_row) == (60, 120)
    assert run.training_flops == pytest.approx(spent, rel=1e-12)


def test_metrics_say_rate_speed_and_validation():
    config, workdir = tiny.long_run()
    rows = train_rows(workdir)
    rates = [row["rate"] / config.optimizer.learning_rate for row in rows[:4]]
    np.testing.assert_allclose(rates, [1 / 3, 2 / 3, 1, 1])
    assert len({row["started"] for row in rows}) == 1 and 0 <= time.time() - rows[0]["started"] < 86400
    assert all(a["seconds"] <= b["seconds"] and 0 <= b["data_wait"] <= 1 for a, b in itertools.pairwise(rows))
    assert all(row["grad_norm"] > 0 for row in rows)
    for before, after in itertools.pairwise(rows):  # what happens between two rows of the clock is counted
        work, tokens = (
            after["flops"] - before["flops"],
            after["patches"] + after["text"] - before["patches"] - before["text"],
        )
        assert after["tflops"] * 1e12 / work == pytest.approx(after["tokens_per_second"] / tokens, rel=0.01)
    last = read_metrics(workdir)[-1]["validation"]
    assert last["loss"] == last["val"]["loss"] and last["val"]["examples"] == 8
    assert last["loss_interval"][0] < last["loss"] < last["loss_interval"][1]


def test_batches_placed_ahead_are_those_of_the_rows():
    config = tiny.tiny_config()
    mesh = make_mesh(config.mesh, jax.devices()[:2])
    run, dataset = mock.Mock(config=config, mesh=mesh, position=Position(3, 6)), Dataset(config.data.path)
    rows = pipeline.rows(dataset, config.data, tiny.PATCH, config.seed, start_step=3)
    with loop._prefetched(run, packed_data(config)) as batches:
        for _, placed, expected in zip(range(3), batches, rows, strict=False):
            for name, array in vars(expected).items():
                assert len(getattr(placed, name).sharding.device_set) == 2
                np.testing.assert_array_equal(getattr(placed, name), array)
    rows.close()


@functools.cache
def trunk():
    config, workdir = tiny.tiny_config(steps=6, keep=1, keep_steps=(2, 4)), tiny.folder() / "trunk"
    tiny.train(config, workdir)
    return config, workdir


def branch(**train) -> tiny.Config:
    config, workdir = trunk()
    changed = {"branch_from": str(workdir), "keep_steps": (), **train}
    return tiny.change(config, optimizer={"cooldown": 2}, train=changed)


def test_a_branch_starts_from_the_trunk(tmp_path):
    config, workdir = trunk()
    before = sorted(workdir.rglob("*"))
    tiny.train(branch(), tmp_path / "branch")
    stem, rows = train_rows(workdir), train_rows(tmp_path / "branch")
    assert [row["step"] for row in rows] == [5, 6]
    # The first step has the trunk's state, data and noise; its rate is the first of the cool-down, which is whole.
    assert all(rows[0][key] == stem[4][key] for key in rows[0] if key not in TIMES)
    assert rows[1]["rate"] == stem[5]["rate"] / 2
    assert rows[1]["flops"] == stem[5]["flops"]
    ours, theirs = (tiny.restored(path, c) for path, c in ((tmp_path / "branch", branch()), (workdir, config)))
    assert ours.position == theirs.position
    assert not np.array_equal(np.asarray(ours.state.params["out"]), np.asarray(theirs.state.params["out"]))
    assert sorted(workdir.rglob("*")) == before


def test_a_branch_finds_a_trunk_beside_it():
    stem = train_rows(trunk()[1])
    tiny.train(branch(branch_from=f"../{trunk()[1].name}"), tiny.folder() / "beside")
    assert train_rows(tiny.folder() / "beside")[0]["loss"] == stem[4]["loss"]


def test_a_branch_resumes_from_its_own_checkpoint(tmp_path):
    tiny.train(branch(), tmp_path / "whole")
    expected = tiny.result(tmp_path / "whole", branch())
    with pytest.raises(ZeroDivisionError):
        tiny.train(branch(), tmp_path / "run", lambda row: 1 / (row["step"] - 6))
    assert checkpoint_steps(tmp_path / "run") == [5]
    tiny.train(branch(), tmp_path / "run")
    tiny.assert_same_result(tmp_path / "run", expected, branch())


def test_kept_steps_are_never_deleted(tmp_path):
    config, _ = trunk()
    tiny.train(tiny.change(config, train={"steps": 4}), tmp_path)
    assert checkpoint_steps(tmp_path) == [2, 4]
    tiny.train(config, tmp_path)  # a trunk is made longer for the next branch
    assert checkpoint_steps(tmp_path) == [2, 4, 6]


def test_a_longer_trunk_equals_one_run(tmp_path):
    config, workdir = trunk()
    for steps in (1, 4, 6):
        tiny.train(tiny.change(config, train={"steps": steps, "evaluate_every": -1}), tmp_path)
    ours, theirs = tiny.result(tmp_path, config), tiny.result(workdir, config)
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2][:-1]  # without the validation at the end
    for name, array in theirs[0].items():
        np.testing.assert_array_equal(ours[0][name], array, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": {"branch_from": "/nowhere/trunk"}},
            "no checkpoint of step 4 in /nowhere/trunk/checkpoints; there are none",
        ),
        ({"train": {"steps": 5}}, "no checkpoint of step 3 in .*; there are 2, 4, 6"),
        ({"data": {"rows_per_step": 4}}, "branch_from=.* has data.rows_per_step=2, not 4"),
        ({"model": {"width": 32}}, "checkpoint .*/4 cannot be restored.*of another model"),
    ],
)
def test_a_branch_without_its_trunk(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        tiny.train(tiny.change(branch(), **changes), tmp_path / "branch")
    assert not (tmp_path / "branch").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"path": "/nowhere"}}, "data set /nowhere does not exist"),
        ({"data": {"rows_per_step": 1000}}, "make .* rows, fewer than one step"),
        ({"data": {"rows_per_step": 3}}, "data.rows_per_step=3 is not a multiple of the 2 row shards"),
        ({"data": {"row_tokens": 8}}, "takes .* slots; raise data.row_tokens=8"),
        ({"data": {"split": "trian"}}, "has no split 'trian'; it has train, val"),
        ({"mesh": {"replica": 3}}, "needs 3 devices, there are 2"),
    ],
)
def test_mistakes_leave_no_trace(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        tiny.train(tiny.change(tiny.tiny_config(), **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_data_set_without_validation(tmp_path):
    config = tiny.tiny_config(steps=1)
    with mock.patch.object(Dataset, "splits", ("train",)):
        with pytest.raises(UserError, match="no split but train to validate on; set train.evaluate_every=-1"):
            tiny.train(config, tmp_path)
        result = tiny.train(tiny.change(config, train={"evaluate_every": -1}), tmp_path)
    assert result["step"] == 1 and "validation" not in result


def test_divergence_from_one_checkpoint_again_and_again_stops_the_run(tmp_path):
    config = tiny.change(tiny.tiny_config(steps=5), optimizer={"learning_rate": 1e30, "warmup": 0})
    message = "diverged at step 5, resumed from step 1, 3 times; begin a new workdir with a lower optimizer.learning"
    with pytest.raises(UserError, match=message):
        tiny.train(config, tmp_path)
    assert checkpoint_steps(tmp_path) == [1]  # what is not finite was not saved
    assert [row["skipped_updates"] for row in train_rows(tmp_path)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("window", [(1, 2), (0, 9)])
def test_a_trace_of_chosen_steps(tmp_path, window):
    tiny.train(tiny.tiny_config(steps=2, profile=window, evaluate_every=-1), tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
