"""Examples chosen, and visited more or less often, by what the index says of them."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.packing.index import Index, index_of, join_indexes
from data_pipelines.packing.packing import Plan
from data_pipelines.reading.pipeline import validation_plan
from data_pipelines.reading.store import Dataset
from vdit.config import Config, DataConfig
from vdit.errors import UserError
from vdit.patches import Patch
from vdit.training.record.identity import run_id

CONFIG = DataConfig(path="set", row_tokens=256, rows_per_step=1)


def make_index(count: int = 60, seed: int = 0, measured: bool = True) -> Index:
    rng = np.random.default_rng(seed)
    return Index(
        id=rng.permutation(1000)[:count].astype(np.uint64) + 1000 * seed,
        frames=(1 + 4 * rng.integers(0, 3, count)).astype(np.int32),
        height=(8 * rng.integers(1, 4, count)).astype(np.int32),
        width=np.full(count, 16, np.int32),
        fps=np.full(count, 8, np.float32),
        text_tokens=np.full((count, 1), 3, np.int32),
        measures={"motion": rng.uniform(0, 1, count).astype(np.float32)} if measured else {},
    )


def make_plan(index: Index, parts: tuple[int, ...] = (), **changes) -> Plan:
    return Plan(index, dataclasses.replace(CONFIG, **changes), Patch(4, 8, 8), 7, ("short",), parts or (len(index),))


def visits(plan: Plan, epochs: int, count: int) -> np.ndarray:
    return sum(np.bincount(plan.epoch(epoch).examples, minlength=count) for epoch in range(epochs))


def test_only_what_is_wanted_is_read() -> None:
    index = make_index()
    found = visits(make_plan(index, filter="motion > 0.3 and height >= 16 and seconds > 0.2"), 1, 60)
    keeps = (index.measures["motion"] > 0.3) & (index.height >= 16) & (index.frames / 8 > 0.2)
    np.testing.assert_array_equal(found, keeps.astype(int))
    assert 5 < keeps.sum() < 55


def test_an_epoch_holds_strata_as_often_as_they_weigh() -> None:
    index = make_index()
    plan = make_plan(index, strata="motion: 0, 0.5, 3")
    found = visits(plan, 2, 60)
    np.testing.assert_array_equal(
        found[np.argsort(index.measures["motion"], kind="stable")], [0] * 20 + [1] * 20 + [6] * 20
    )
    assert plan.stages[0].weights == (pytest.approx(3.5 / 3),)
    assert plan.stages[0].min_rows == pytest.approx(_tokens(plan, index) / 256)


def _tokens(plan: Plan, index: Index) -> float:
    """Patches of an epoch, mean over two."""
    grid = index.grid_N3(Patch(4, 8, 8)).prod(1)
    return float(np.mean([grid[plan.epoch(epoch).examples].sum() for epoch in range(2)]))


def test_strata_are_of_what_the_filter_leaves_and_of_each_data_set() -> None:
    first, second = make_index(30), make_index(30, seed=1)
    index = join_indexes([first, second])
    plan = make_plan(index, (30, 30), filter="motion > 0.5", strata="motion: 1, 2", weights=(1.0, 2.0), path="a,b")
    found, expected = visits(plan, 1, 60), np.zeros(60, int)
    for part, weight in enumerate((1, 2)):
        members = 30 * part + np.flatnonzero(index.measures["motion"][30 * part : 30 * part + 30] > 0.5)
        order = members[np.argsort(index.measures["motion"][members])]
        half = -(-len(order) // 2)
        expected[order[:half]], expected[order[half:]] = weight, 2 * weight
    np.testing.assert_array_equal(found, expected)


def test_one_stratum_changes_nothing() -> None:
    index = make_index()
    plain, one = make_plan(index), make_plan(index, strata="motion: 1")
    for a, b in zip(vars(plain.epoch(1)).values(), vars(one.epoch(1)).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_measures_that_a_data_set_lacks_are_not_known() -> None:
    index = join_indexes([make_index(30), make_index(30, seed=1, measured=False)])
    assert np.isnan(index.measures["motion"][30:]).all()
    assert not visits(make_plan(index, (30, 30), filter="motion > 0.5"), 1, 60)[30:].any()
    again = index_of(index.arrays())
    np.testing.assert_array_equal(again.measures["motion"], index.measures["motion"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"filter": "moton > 1"},
            "data.filter='moton > 1': there is no 'moton'; there are aspect, fps, frames, height",
        ),
        ({"filter": "motion > 2"}, "has no examples .*that meet data.filter='motion > 2'"),
        ({"strata": "moton: 1, 2"}, "data.strata='moton: 1, 2': there is no 'moton'"),
    ],
)
def test_what_cannot_be_chosen(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan(make_index(), **changes)


@pytest.mark.parametrize(
    "changes",
    [{"filter": "motion >"}, {"filter": "open('x') > 1"}]
    + [
        {"strata": text}
        for text in ("motion", "motion:", ": 1", "motion: a", "motion: -1, 2", "motion: 0", "motion: inf")
    ],
)
def test_what_cannot_be_read(changes: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"data.{next(iter(changes))}="):
        DataConfig(**changes)


def test_they_are_part_of_what_a_run_is() -> None:
    runs = [Config(), Config(data=DataConfig(filter="motion > 0.1")), Config(data=DataConfig(strata="motion: 1, 2"))]
    assert len({run_id(config) for config in runs}) == 3


def test_validation_sees_everything(tmp_path) -> None:
    from small_dataset import PATCH, write_dataset

    write_dataset(tmp_path / "set", examples=16)
    dataset = Dataset(tmp_path / "set")
    config = DataConfig(path="set", split="val", row_tokens=2048, filter="seconds > 1000", strata="seconds: 0, 1")
    assert len(validation_plan(dataset, config, PATCH).once().examples) == dataset.size("val")
