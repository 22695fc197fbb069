"""Mixtures and stages: in the plan for any data, and read from disk."""

import dataclasses
import itertools

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_dataset import KINDS, PATCH, write_dataset

from data_pipelines.packing import plan_cache, stage_plan
from data_pipelines.packing.index import Index
from data_pipelines.packing.packing import Plan
from data_pipelines.reading.mixture import Mixture, open_data
from data_pipelines.reading.pipeline import channel_mean, make_plan, rows, validation_rows
from data_pipelines.reading.store import Dataset
from vdit.batch import PackedBatch, unpack_row
from vdit.config import DataConfig, StageConfig
from vdit.errors import UserError
from vdit.patches import Grid, unpatchify


def make_index(count: int, rng: np.random.Generator, kinds: int = 2) -> Index:
    return Index(
        id=rng.permutation(count).astype(np.uint64),
        frames=(1 + 4 * rng.integers(0, 12, count)).astype(np.int32),
        height=(8 * rng.integers(1, 6, count)).astype(np.int32),
        width=(8 * rng.integers(1, 6, count)).astype(np.int32),
        fps=np.full(count, 10, np.float32),
        text_tokens=rng.integers(0, 9, (count, kinds)).astype(np.int32),
    )


@st.composite
def mixtures(draw):
    """(index, config, parts, seed) of one to three data sets in up to three stages."""
    count = draw(st.integers(1, 3))
    weights = st.tuples(*[st.sampled_from([0, 0.3, 1, 1, 1.7, 2])] * count).filter(any)
    stages = [
        StageConfig(step, draw(st.sampled_from([0, 9, 16])), draw(st.integers(0, 44)), draw(st.just(()) | weights))
        for step in (0, 7, 20)[: draw(st.integers(0, 3))]
    ]
    parts = tuple(draw(st.integers(1, 40)) for _ in range(count))
    index = make_index(sum(parts), np.random.default_rng(draw(st.integers(0, 2**32))))
    config = DataConfig(
        path=",".join("abc"[:count]),
        row_tokens=draw(st.integers(330, 900)),
        row_examples=draw(st.integers(2, 20)),
        rows_per_step=draw(st.integers(1, 4)),
        max_frames=draw(st.integers(0, 44)),
        pack_window=draw(st.integers(8, 60)),
        weights=draw(st.just(()) | weights),
        stages=tuple(stages),
    )
    area = (index.height // 8) * (index.width // 8)
    index = dataclasses.replace(
        index, height=np.where(area > 9, 8, index.height).astype(np.int32)
    )  # some in each stage
    return index, config, parts, draw(st.integers(-5, 2**70))


@settings(max_examples=60)
@given(mixtures())
def test_epochs_hold_every_example_as_often_as_its_weight_says(case):
    index, config, parts, seed = case
    plan = Plan(index, config, PATCH, seed, parts=parts)
    part_of = np.repeat(np.arange(len(parts)), parts)
    for n, stage in enumerate(config.stages or (StageConfig(),)):
        weights = np.array(stage.weights or config.weights or (1,) * len(parts), float)
        allowed = (index.height // 8) * (index.width // 8) <= (stage.max_area or 99)
        seen = np.zeros(len(index), int)
        for number in range(1, 5):
            epoch = plan.epoch(number - 1, n)
            seen += np.bincount(epoch.examples, minlength=len(index))
            expected = number * weights[part_of] * allowed
            assert (np.floor(expected) <= seen).all() and (seen <= np.ceil(expected)).all()
            limit = stage.max_frames or config.max_frames or 99
            assert (epoch.frames == np.minimum(index.frames[epoch.examples], PATCH.floor_frames(limit))).all()
            assert (epoch.starts + epoch.frames <= index.frames[epoch.examples]).all()
            if epoch.rows:
                assert np.add.reduceat(epoch.tokens, epoch.offsets[:-1]).max() <= config.row_tokens
                assert np.diff(epoch.offsets).min() >= 1 and np.diff(epoch.offsets).max() <= config.row_examples


@settings(max_examples=30)
@given(mixtures(), st.integers(0, 120))
def test_a_row_depends_on_its_number_alone(case, number):
    """Whatever was read before it, in other epochs and stages, and whatever was planned ahead."""
    index, config, parts, seed = case
    stream, direct = (Plan(index, config, PATCH, seed, parts=parts) for _ in range(2))
    row, before = direct.row(number), [stream.row(r) for r in range(number + 1)]
    assert all(np.array_equal(getattr(row, name), getattr(before[number], name)) for name in vars(row))
    stage, epoch, k = direct.locate(number)
    assert direct.first_row(epoch, stage) + k == number
    starts = [s.step * config.rows_per_step for s in config.stages] or [0]
    assert starts[stage] <= number and all(number < start for start in starts[stage + 1 :])


def test_stages_change_at_their_steps():
    index = make_index(200, np.random.default_rng(0))
    stages = (StageConfig(max_area=4), StageConfig(10, max_frames=9, weights=(0, 1)), StageConfig(25))
    plan = Plan(index, DataConfig("a,b", rows_per_step=2, row_tokens=320, stages=stages), PATCH, 0, parts=(150, 50))
    area = (index.height // 8) * (index.width // 8)
    read = [plan.row(number) for number in range(80)]
    assert all(area[row.examples].max() <= 4 for row in read[:20])
    assert all(row.examples.min() >= 150 and row.frames.max() <= 9 for row in read[20:50])
    assert max(area[row.examples].max() for row in read[50:]) == area.max()
    assert max(row.frames.max() for row in read[50:]) == index.frames.max()


def test_windows_of_latents_begin_at_their_first_frame():
    index = make_index(50, np.random.default_rng(0))
    config = DataConfig(max_frames=9)
    pixels, latents = (Plan(index, config, PATCH, 0, latents=latents).epoch(0) for latents in (False, True))
    assert pixels.starts.any() and not latents.starts.any()
    assert pixels.examples.tolist() == latents.examples.tolist()


def test_large_epochs_lie_on_disk_and_are_planned_once(tmp_path, monkeypatch):
    index = make_index(300, np.random.default_rng(0))
    config = DataConfig(row_tokens=320, max_frames=9, stages=(StageConfig(), StageConfig(200, max_area=9)))
    plain = Plan(index, config, PATCH, 3)
    expected = [plain.row(number) for number in range(460)]
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(stage_plan, "LARGE", 100)
    monkeypatch.setattr(stage_plan.StagePlan, "plan_ahead", stage_plan.StagePlan.epoch)  # now, not in a thread
    mapped = Plan(index, config, PATCH, 3)
    for number, row in enumerate(expected):
        assert all(np.array_equal(getattr(row, name), getattr(mapped.row(number), name)) for name in vars(row))
    assert isinstance(mapped.epoch(0).examples, np.memmap)
    folders = list(tmp_path.glob("plans/*"))
    assert len(folders) == 2 and not list(tmp_path.glob("plans/*/partial-*/rows"))
    assert max(len(list(folder.glob("epoch-*"))) for folder in folders) <= 4

    def never(*_):
        raise AssertionError("planned again")

    monkeypatch.setattr(stage_plan, "pack", never)
    again = Plan(index, config, PATCH, 3)  # a resumed run: neither it nor the epochs before are planned again
    last = again.locate(399)
    assert last == mapped.locate(399) and np.array_equal(
        again.epoch(last[1]).row(last[2]).examples, expected[399].examples
    )
    other = Plan(index, config, PATCH, 4)
    with pytest.raises(AssertionError, match="planned again"):
        other.epoch(0)


@pytest.mark.parametrize("wrap", [lambda array: array, lambda array: {"motion": array}, lambda array: [(array,)]])
def test_plans_are_told_apart_by_every_value(tmp_path, wrap):
    """Also by one in the middle of thousands, which numpy leaves out when it shows an array."""
    motion = np.zeros(5000, np.float32)
    folders = {plan_cache.PlanFiles(tmp_path, wrap(motion)).folder}
    for i in (0, 2500, 4999):
        motion[i] += 0.5
        folders.add(plan_cache.PlanFiles(tmp_path, wrap(motion)).folder)
    assert len(folders) == 4
    assert plan_cache.PlanFiles(tmp_path, wrap(motion.copy())).folder in folders
    assert plan_cache.PlanFiles(tmp_path, wrap(motion.reshape(2, -1))).folder not in folders
    assert plan_cache.PlanFiles(tmp_path, wrap(motion.view(np.int32))).folder not in folders


def test_a_large_plan_follows_the_measures_of_its_index(tmp_path, monkeypatch):
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(stage_plan, "LARGE", 1)
    index = make_index(3000, np.random.default_rng(0))
    folders = set()
    for value in (0.0, 1.0):
        motion = np.full(3000, 0.5, np.float32)
        motion[1500] = value
        measured = dataclasses.replace(index, measures={"motion": motion})
        Plan(measured, DataConfig(filter="motion != 0"), PATCH, 0).epoch(0)
        folders |= set(tmp_path.glob("plans/*"))
    assert len(folders) == 2


def test_a_plan_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    files = plan_cache.PlanFiles(tmp_path / "file", 1)
    with pytest.raises(UserError, match="VDIT_CACHE") as error:
        files.save(0, Plan(make_index(20, np.random.default_rng(0)), DataConfig(), PATCH, 0).epoch(0))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("mixed")
    write_dataset(folder / "one", examples=80, seed=1)
    write_dataset(folder / "two", examples=48, seed=2)
    return f"{folder / 'one'},{folder / 'two'}"


def mixed_config(path: str) -> DataConfig:
    return DataConfig(
        path,
        *("train", 64, 8, 48),
        rows_per_step=8,
        max_frames=13,
        pack_window=16,
        weights=(1, 0.5),
        stages=(StageConfig(max_area=4), StageConfig(3), StageConfig(6, max_frames=5, weights=(0, 2))),
    )


def batches(path: str, count: int, **arguments) -> list[PackedBatch]:
    config = mixed_config(path)
    return list(itertools.islice(rows(open_data(config), config, PATCH, 0, **arguments), count))


def assert_equal(a: PackedBatch, b: PackedBatch) -> None:
    for name in vars(a):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_rows_of_a_mixture_hold_the_clips_of_their_data_sets(paths):
    config = mixed_config(paths)
    data = open_data(config)
    plan = make_plan(data, config, PATCH, 0)
    one, two = (Dataset(path) for path in config.paths)
    seen = set()
    for step, batch in enumerate(batches(paths, 5)):
        for b in range(8):
            row, planned = batch.map(lambda array, b=b: array[b]), plan.row(step * 8 + b)
            for n, patches in enumerate(unpack_row(row.patches_BLP, row)):
                i, start = int(planned.examples[n]), int(planned.starts[n])
                stored = one.example("train", i) if i < 80 else two.example("train", i - 80)
                seen.add(i < 80)
                shown = stored["video"][start : start + planned.frames[n]]
                np.testing.assert_array_equal(unpatchify(patches, Grid(*row.grid_BN3[n]), PATCH), shown)
                words = row.text_index_BL[(row.segments_BL == n + 1) & (row.text_index_BL >= 0)]
                caption = stored[f"text_{KINDS[planned.captions[n]]}"]
                np.testing.assert_array_equal(row.text_BME[words], caption.astype(np.float32))
    assert seen == {True, False}


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_a_mixture_in_stages_is_the_same_on_any_number_of_processes(paths, processes):
    whole = batches(paths, 6, start_step=2)  # through all three stages
    parts = [batches(paths, 6, start_step=2, process_index=i, process_count=processes) for i in range(processes)]
    for step, batch in enumerate(whole):
        joined = {name: np.concatenate([getattr(part[step], name) for part in parts]) for name in vars(batch)}
        assert_equal(batch, PackedBatch(**joined))


@pytest.mark.parametrize(("start", "threads"), [(1, 0), (3, 1), (5, 4), (8, 2)])
def test_a_mixture_resumes_within_epochs_and_stages(paths, start, threads):
    whole = batches(paths, 10)
    resumed = batches(paths, 10 - start, start_step=start, read=grain.ReadOptions(num_threads=threads))
    for a, b in zip(whole[start:], resumed, strict=True):
        assert_equal(a, b)


def test_a_mixture_has_the_splits_and_captions_of_all(paths, tmp_path):
    one, two = (Dataset(path) for path in paths.split(","))
    mixture = Mixture(one, two)
    assert mixture.parts("val") == (10, 6) and mixture.size("train") == 128
    assert mixture.splits == ("train", "val") and mixture.meta["captions"] == list(KINDS)
    assert mixture.locate("train", 79)[0] is one and mixture.locate("train", 80) == (two, 0)
    with pytest.raises(IndexError):
        mixture.locate("train", 128)
    ids = mixture.index("train").id
    assert [mixture.read_clip("train", i).id for i in (0, 79, 80, 127)] == ids[[0, 79, 80, 127]].tolist()
    means = [np.array(channel_mean(data, "train")) for data in (one, two, mixture)]
    np.testing.assert_allclose(means[2], (80 * means[0] + 48 * means[1]) / 128, atol=2e-4)
    config = dataclasses.replace(mixed_config(paths), split="val")
    read = list(validation_rows(mixture, config, PATCH))
    assert sum(int((batch.grid_BN3.prod(-1) > 0).sum()) for batch in read) == 16
    # Kinds of caption that only one data set has are drawn for that one only.
    two.meta["captions"] = ["short", "other"]
    index = Mixture(one, two).index("train")
    assert index.text_tokens.shape == (128, 3)
    assert (index.text_tokens[:80, 2] == -1).all() and (index.text_tokens[80:, 1] == -1).all()
    config = dataclasses.replace(config, split="train", weights=(), stages=())
    epoch = make_plan(Mixture(one, two), config, PATCH, 0).epoch(0)
    assert set(epoch.captions[epoch.examples < 80]) == {0, 1} and set(epoch.captions[epoch.examples >= 80]) == {0, 2}
    with pytest.raises(UserError, match="two has no captions of kind detailed; .*: short, other"):
        make_plan(Mixture(one, two), dataclasses.replace(config, captions=("detailed",)), PATCH, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": (1,)}, "data.weights=.1.* one number for each"),
        ({"weights": (0, 0)}, "one must be greater than 0"),
        ({"stages": (StageConfig(5),)}, "the first must begin at 0"),
        ({"stages": (StageConfig(), StageConfig(4), StageConfig(4))}, "each later than the last"),
        ({"stages": (StageConfig(weights=(1, 2, 3)),)}, "one number for each"),
    ],
)
def test_mistakes_in_the_config_are_one_line(change, words):
    with pytest.raises(UserError, match=words):
        DataConfig("a,b", **change)


def test_mistakes_in_the_data_are_one_line(paths, tmp_path):
    with pytest.raises(UserError, match="no data set; set --config.data.path"):
        open_data(DataConfig())
    with pytest.raises(UserError, match="max_area=-1"):
        StageConfig(max_area=-1)
    one, two = (Dataset(path) for path in paths.split(","))
    with pytest.raises(UserError, match="no split 'test'; it has train, val"):
        Mixture(one, two).index("test")
    two.meta["channels"] = 4
    with pytest.raises(UserError, match="two has channels=4, but .*one 3"):
        Mixture(one, two)
    index = make_index(9, np.random.default_rng(0))
    big = dataclasses.replace(index, height=np.full(9, 80, np.int32))
    stages = (StageConfig(), StageConfig(4, max_area=2))
    with pytest.raises(UserError, match="no examples within the limits of stage 1"):
        Plan(big, DataConfig(stages=stages), PATCH, 0)
    few = (StageConfig(), StageConfig(4, max_area=1))
    plan = Plan(index, DataConfig(row_tokens=300, rows_per_step=2, stages=few), PATCH, 0)
    if len(plan.stages[1].members[0]):
        with pytest.raises(UserError, match="stage 1 make 1 rows, fewer than one step"):
            plan.require_step()
