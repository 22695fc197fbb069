"""Data sets on disk: written, opened by TFDS and by us, in the same order, with damage found."""

import json
import pathlib
import pickle
import re
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines.building.dataset_writer import DatasetWriter
from data_pipelines.reading.records import Record, serialise
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError
from vdit.patches import Patch, patchify, unpatchify

META = {
    "source": "test",
    "licence": "none",
    "autoencoder": {"name": "pixels"},
    "text_encoder": {"name": "fake", "width": 5, "hash": "0"},
}


def make_record(number: int) -> Record:
    rng = np.random.default_rng(number)
    shape = (1 + 4 * int(rng.integers(0, 4)), 8 * int(rng.integers(1, 4)), 8 * int(rng.integers(1, 4)), 3)
    words = {"short": number % 3, "detailed": 4}  # no tokens at all happens
    return Record(
        id=2**63 + number,
        video_TYXC=rng.integers(0, 256, shape, dtype=np.uint8),
        fps=12.5,
        captions={kind: f"{kind} café {number}" for kind in words},
        text={kind: rng.standard_normal((m, 5)).astype(np.float16) for kind, m in words.items()},
        extra={
            "camera": "pan",
            "shot": np.int32(number),
            "box": np.array([0.5, np.nan], np.float32),
            "positions": rng.standard_normal((shape[0], 1 + number % 2, 2)).astype(np.float32),
        },
    )


def write(folder: pathlib.Path, counts: dict[str, int], shard_bytes: int = 20_000) -> pathlib.Path:
    folder.mkdir()
    writer = DatasetWriter(epath.Path(folder), "test", Patch(), shard_bytes)
    for split, count in counts.items():
        for number in range(count):
            writer.add(split, make_record(number))
    writer.finish(META)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write(tmp_path_factory.mktemp("store") / "data", {"train": 23, "val": 2})


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(found, wanted)
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype


def test_tfds_opens_it_without_tensorflow(folder: pathlib.Path) -> None:
    source = tfds.builder_from_directory(folder).as_data_source(split="train")
    assert len(source) == 23
    for i in np.random.default_rng(0).permutation(23):
        found, wanted = source[int(i)], make_record(int(i))
        assert found["id"] == wanted.id and found["caption_short"].decode() == wanted.captions["short"]
        same(found["video"], wanted.video_TYXC)
        same(found["shape"], wanted.video_TYXC.shape)
        same(found["text_short"], wanted.text["short"])
        same(found["positions"], wanted.extra["positions"])
    assert "tensorflow" not in sys.modules


def test_examples_come_back_in_order(folder: pathlib.Path) -> None:
    dataset = Dataset(folder)
    index = dataset.index("train")
    assert dataset.splits == ("train", "val") and dataset.size("train") == len(index) == 23
    for i in range(23):
        example, wanted = dataset.example("train", i), make_record(i)
        assert example["id"] == index.id[i] == wanted.id and example["fps"] == index.fps[i] == np.float32(12.5)
        assert example["video"].shape[:3] == (index.frames[i], index.height[i], index.width[i])
        assert [len(wanted.text[kind]) for kind in dataset.meta["captions"]] == list(index.text_tokens[i])
        assert example["caption_detailed"] == wanted.captions["detailed"] and example["camera"] == "pan"
        same(example["video"], wanted.video_TYXC)
        for name in ("shot", "box", "positions"):
            same(example[name], wanted.extra[name])


def test_there_are_several_shards(folder: pathlib.Path) -> None:
    shards = json.loads((folder / "vdit.json").read_text())["splits"]["train"]["shards"]
    assert len(shards) > 3 and sum(shard["examples"] for shard in shards) == 23
    assert [shard["file"] for shard in shards] == sorted(path.name for path in folder.glob("test-train.*"))


def test_windows(folder: pathlib.Path) -> None:
    dataset, wanted = Dataset(folder), make_record(5)
    window = dataset.read_clip("train", 5, caption="short")
    same(window.video_TYXC, wanted.video_TYXC)
    same(window.text_ME, wanted.text["short"])
    assert (window.id, window.fps) == (wanted.id, wanted.fps)
    assert len(wanted.video_TYXC) >= 9
    window = dataset.read_clip("train", 5, start_frame=3, frames=5)
    same(window.video_TYXC, wanted.video_TYXC[3:8])
    assert window.text_ME.shape == (0, 5)
    example = dataset.read_example("train", 5, 1, 5, "detailed")
    same(example.patches_LP, patchify(wanted.video_TYXC[1:6], Patch()))
    same(unpatchify(example.patches_LP, example.grid, Patch()), wanted.video_TYXC[1:6])
    same(example.text_ME, wanted.text["detailed"])
    length = len(wanted.video_TYXC)
    for start, frames, caption in [(length, 0, None), (length - 4, 5, None), (-1, 5, None), (0, 5, "long")]:
        with pytest.raises(ValueError):
            dataset.read_clip("train", 5, start, frames, caption)
    with pytest.raises(IndexError):
        dataset.read_clip("train", -1)
    with pytest.raises(UserError, match="no split"):
        dataset.example("test", 0)


def test_a_data_set_can_be_sent_to_another_process(folder: pathlib.Path) -> None:
    dataset = Dataset(folder)
    dataset.read_clip("train", 0)  # opens a file
    same(pickle.loads(pickle.dumps(dataset)).read_clip("train", 4).video_TYXC, make_record(4).video_TYXC)


def test_same_records_same_bytes(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    again = write(tmp_path / "again", {"train": 23, "val": 2})
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files == {path.name: path.read_bytes() for path in again.iterdir()}
    assert {"dataset_info.json", "features.json", "index-train.npz", "index-val.npz", "vdit.json"} < set(files)


@pytest.mark.parametrize("size", (0, 1, 100, 127, 128, 20_000, 70_000))
@pytest.mark.parametrize("others", ((), ("fps", "video/shape"), ("a", "video/valid", "zoom"), ("w", "é")))
def test_a_record_is_serialised_as_protobuf_does_it(size: int, others: tuple[str, ...]) -> None:
    array = np.random.default_rng(size).integers(0, 2**16, (size, 2), np.uint16)[:, 0]  # not contiguous
    messages = tf_example_pb2.Example(), tf_example_pb2.Example()
    for message, value in zip(messages, (b"", array.tobytes()), strict=True):
        for name in others:
            message.features.feature[name].int64_list.value[:] = range(len(name) * 30)
        message.features.feature["video/value"].bytes_list.value[:] = [value]
    assert serialise(messages[0], "video/value", array) == messages[1].SerializeToString(deterministic=True)


def test_missing_and_short_shards_are_found_at_open(tmp_path: pathlib.Path) -> None:
    folder = write(tmp_path / "data", {"train": 8})
    victim = sorted(folder.glob("test-train.*"))[1]
    data = victim.read_bytes()
    victim.write_bytes(data[:-1000])
    with pytest.raises(UserError, match=f"{re.escape(victim.name)} has .* bytes instead of"):
        Dataset(folder)
    victim.unlink()
    with pytest.raises(UserError, match=f"{re.escape(victim.name)} is missing"):
        Dataset(folder)


def test_flipped_bits_are_found_when_read(tmp_path: pathlib.Path) -> None:
    folder = write(tmp_path / "data", {"train": 6}, shard_bytes=10**9)
    (shard,) = folder.glob("test-train.*")
    data = shard.read_bytes()
    noise = make_record(3).video_TYXC.tobytes()[1000:1016]  # zstd keeps noise as it is
    place = data.index(noise)
    dataset = Dataset(folder)
    same(dataset.read_clip("train", 2).video_TYXC, make_record(2).video_TYXC)  # opened, when it was as it was built
    shard.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
    same(dataset.read_clip("train", 2).video_TYXC, make_record(2).video_TYXC)
    with pytest.raises(UserError, match="is damaged at record 3") as caught:
        dataset.read_clip("train", 3)
    assert "\n" not in str(caught.value)


def test_shards_of_another_data_set_are_found(tmp_path: pathlib.Path) -> None:
    folder = write(tmp_path / "data", {"train": 6}, shard_bytes=10**9)
    meta = json.loads((folder / "vdit.json").read_text())
    meta["splits"]["train"]["shards"][0]["examples"] = 7
    (folder / "vdit.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="does not hold 7 records"):
        Dataset(folder).read_clip("train", 0)


def test_unlike_records_are_refused(tmp_path: pathlib.Path) -> None:
    writer = DatasetWriter(epath.Path(tmp_path), "test", Patch())
    with pytest.raises(ValueError, match="no examples"):
        writer.finish(META)
    writer.add("train", make_record(0))
    record = make_record(1).__dict__
    changes: tuple[dict[str, Any], ...] = (
        {"video_TYXC": np.zeros((5, 8, 12, 3), np.uint8)},
        {"video_TYXC": np.zeros((5, 8, 8, 3), np.float32)},
        {"text": {"short": np.zeros((1, 5), np.float16)}},
        {"extra": {}},
    )
    for change in changes:
        with pytest.raises(ValueError):
            writer.add("train", Record(**{**record, **change}))
    writer.add("train", make_record(0))
    with pytest.raises(ValueError, match="ids of split train are not distinct"):
        writer.finish(META)
