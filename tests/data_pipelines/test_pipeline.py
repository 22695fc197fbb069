import itertools

import grain
import numpy as np
import pytest
from small_dataset import KINDS, PATCH, write_dataset

from data_pipelines.reading.pipeline import make_plan, rows, validation_rows
from data_pipelines.reading.store import Dataset
from vdit.batch import PackedBatch, unpack_row
from vdit.config import DataConfig
from vdit.errors import UserError
from vdit.patches import Grid, Patch, unpatchify

CONFIG = DataConfig(row_tokens=128, row_examples=8, row_text=48, rows_per_step=4, max_frames=13, pack_window=16)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "small"
    write_dataset(path)
    return Dataset(path)


def batches(dataset: Dataset, count: int, **arguments) -> list[PackedBatch]:
    return list(itertools.islice(rows(dataset, CONFIG, PATCH, 0, **arguments), count))


def assert_equal(a: PackedBatch, b: PackedBatch) -> None:
    for name in vars(a):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype


def row_of(batch: PackedBatch, b: int) -> PackedBatch:
    return batch.map(lambda array: array[b])


def identities(batch: PackedBatch) -> list[int]:
    ids_BN = batch.ids_BN2[..., 0].astype(np.uint64) << np.uint64(32) | batch.ids_BN2[..., 1]
    return ids_BN[batch.grid_BN3.prod(-1) > 0].tolist()


def test_rows_hold_the_clips_and_captions_of_the_plan(dataset):
    plan, windows = make_plan(dataset, CONFIG, PATCH, 0), 0
    for step, batch in enumerate(batches(dataset, 4)):
        for b in range(CONFIG.rows_per_step):
            row, planned = row_of(batch, b), plan.row(step * CONFIG.rows_per_step + b)
            patches = unpack_row(row.patches_BLP, row)
            assert len(patches) == len(planned)
            for n in range(len(planned)):
                i, start, frames = int(planned.examples[n]), int(planned.starts[n]), int(planned.frames[n])
                stored = dataset.example("train", i)
                shown = stored["video"][start : start + frames]
                windows += frames < len(stored["video"])
                np.testing.assert_array_equal(unpatchify(patches[n], Grid(*row.grid_BN3[n]), PATCH), shown)
                words = row.text_index_BL[(row.segments_BL == n + 1) & (row.text_index_BL >= 0)]
                caption = stored[f"text_{KINDS[planned.captions[n]]}"]
                np.testing.assert_array_equal(row.text_BME[words], caption.astype(np.float32))
    assert windows


def test_an_epoch_of_batches_holds_every_example_once(dataset):
    count = make_plan(dataset, CONFIG, PATCH, 0).epoch(0).rows
    read = [row_of(batch, b) for batch in batches(dataset, -(-count // 4)) for b in range(4)][:count]
    assert sorted(itertools.chain(*map(identities, read))) == sorted(dataset.index("train").id.tolist())


@pytest.mark.parametrize("start", [1, 7, 30])
def test_resuming_gives_the_same_stream(dataset, start):
    whole = batches(dataset, start + 3)
    for a, b in zip(whole[start:], batches(dataset, 3, start_step=start), strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_reads_the_same_rows(dataset, processes):
    whole = batches(dataset, 3, start_step=2)
    parts = [batches(dataset, 3, start_step=2, process_index=i, process_count=processes) for i in range(processes)]
    for step, batch in enumerate(whole):
        joined = {name: np.concatenate([getattr(part[step], name) for part in parts]) for name in vars(batch)}
        assert_equal(batch, PackedBatch(**joined))


def test_threads_change_nothing(dataset):
    plain = batches(dataset, 6, read=grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    for a, b in zip(plain, batches(dataset, 6, read=grain.ReadOptions(num_threads=4)), strict=True):
        assert_equal(a, b)


def test_validation_reads_every_example_once_in_equal_batches(dataset):
    config = DataConfig(split="val", row_tokens=128, row_examples=2, row_text=48, rows_per_step=4, max_frames=13)
    read = list(validation_rows(dataset, config, PATCH))
    assert sorted(itertools.chain(*map(identities, read))) == sorted(dataset.index("val").id.tolist())
    assert {tuple(array.shape for array in vars(batch).values()) for batch in read} == {
        tuple(array.shape for array in vars(read[0]).values())
    }
    assert any((batch.segments_BL.max(1) == 0).any() for batch in read)  # 5 examples, at least 2 a row: an empty row
    assert all((batch.text_index_BL[batch.segments_BL == 0] == -1).all() for batch in read)
    parts = [list(validation_rows(dataset, config, PATCH, i, 2)) for i in range(2)]
    assert len(parts[0]) == len(parts[1]) == len(read)
    for step, batch in enumerate(read):
        joined = {name: np.concatenate([getattr(part[step], name) for part in parts]) for name in vars(batch)}
        assert_equal(batch, PackedBatch(**joined))


def test_errors_are_one_line(dataset):
    with pytest.raises(UserError, match="fewer than one step"):
        rows(dataset, DataConfig(row_tokens=512, rows_per_step=64), PATCH, 0)
    with pytest.raises(UserError, match="not a multiple of the 3 processes"):
        rows(dataset, CONFIG, PATCH, 0, process_count=3)
    with pytest.raises(UserError, match="was built for"):
        rows(dataset, CONFIG, Patch(2, 8, 8), 0)


def test_a_damaged_record_stops_the_stream_with_its_file(tmp_path):
    write_dataset(tmp_path / "small")
    shard = sorted((tmp_path / "small").glob("*train*array_record*"))[0]
    data = bytearray(shard.read_bytes())
    data[1000:60_000:100] = bytes(len(data[1000:60_000:100]))
    shard.write_bytes(data)
    with pytest.raises(UserError, match=shard.name):
        batches(Dataset(tmp_path / "small"), 12)
