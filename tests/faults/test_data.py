"""Damaged data sets are found and named, never trained on; storage that fails for a moment is tried again."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

from data_pipelines.building.dataset_writer import DatasetWriter
from data_pipelines.reading import pipeline, store
from data_pipelines.reading.records import Record
from data_pipelines.reading.store import Dataset
from vdit.errors import StorageError, UserError
from vdit.io.storage import retry

PLACES = 400


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(tiny.dataset(), tmp_path / "data"))


@pytest.fixture
def no_waiting(monkeypatch) -> None:
    monkeypatch.setattr(retry, "WAITS", (0.0, 0.0, 0.0))


def meta(folder: Path) -> dict:
    return json.loads((folder / "vdit.json").read_text())


def shard_of(folder: Path) -> Path:
    (shard,) = folder.glob("*train.array_record*")
    return shard


def clips(folder: Path, numbers=range(48)) -> list:
    dataset = Dataset(folder)
    return [dataset.read_clip("train", i, caption="short") for i in numbers]


def same(found, wanted) -> bool:
    return (found.id, found.fps) == (wanted.id, wanted.fps) and all(
        np.array_equal(a, b) for a, b in ((found.video_TYXC, wanted.video_TYXC), (found.text_ME, wanted.text_ME))
    )


def test_a_flipped_bit_anywhere_in_a_shard_is_found_or_touches_nothing(folder, monkeypatch):
    """By the records' own checksums: of a large shard the signature sees samples only."""
    monkeypatch.setattr(store, "file_signature", lambda path: meta(folder)["splits"]["train"]["shards"][0]["signature"])
    shard, wanted = shard_of(folder), clips(folder)
    data, rng, refusals = shard.read_bytes(), np.random.default_rng(0), 0
    end = len(data.rstrip(b"\0"))  # the rest of the last block is padding
    for place in rng.integers(end, size=PLACES):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        shard.write_bytes(flipped)
        try:
            found = clips(folder)
        except UserError as error:
            assert shard.name in str(error) and "\n" not in str(error)
            refusals += 1
        else:
            assert all(map(same, found, wanted))
    assert refusals > 0.3 * PLACES  # much of so small a file is padding between blocks of 64 KiB


def other_pixels(folder: Path, name: str) -> Path:
    """A data set of the same clips by id, shape and caption, but for the first one's pixels."""
    dataset = Dataset(folder)
    (new := folder.parent / name).mkdir()
    writer = DatasetWriter(new, dataset.meta["source"], dataset.patch)
    for split in dataset.splits:
        for i in range(dataset.size(split)):
            example = dataset.example(split, i)
            captions = {kind: example[f"caption_{kind}"] for kind in dataset.meta["captions"]}
            text = {kind: example[f"text_{kind}"] for kind in dataset.meta["captions"]}
            video_TYXC = example["video"] ^ np.uint8(i == 0)
            writer.add(split, Record(int(example["id"]), video_TYXC, float(example["fps"]), captions, text, {}))
    kept = ("source", "licence", "autoencoder", "text_encoder", "build")
    writer.finish({key: dataset.meta[key] for key in kept if key in dataset.meta})
    return new


def test_a_shard_with_other_pixels_of_the_same_clips_is_named(folder):
    """As when one is copied over from another build: every record in it is whole, and of the right id and shape."""
    other = other_pixels(folder, "other")
    shard = shard_of(folder)
    data = shard_of(other).read_bytes()
    assert len(data) == shard.stat().st_size and data != shard.read_bytes()
    before = Dataset(folder).fingerprint
    assert Dataset(other).fingerprint != before
    shard.write_bytes(data)
    assert Dataset(folder).fingerprint == before  # what vdit.json says
    with pytest.raises(UserError, match=f"{shard.name} has changed since it was built .*damaged, or of another build"):
        clips(folder, [47])


def test_a_data_set_without_signatures_can_be_read(folder):
    about = meta(folder)
    for split in about["splits"].values():
        for shard in split["shards"]:
            del shard["signature"]
    (folder / "vdit.json").write_text(json.dumps(about))
    assert len(clips(folder, [0])) == 1


def test_a_shard_cut_off_anywhere_is_named_at_open(folder):
    shard = shard_of(folder)
    for size in (0, 1, 1000, shard.stat().st_size - 1):
        os.truncate(shard, min(size, shard.stat().st_size))
        with pytest.raises(UserError, match=f"{shard.name} has {shard.stat().st_size} bytes instead of"):
            Dataset(folder)


def other_index(folder: Path, change) -> None:
    path = folder / "index-train.npz"
    with np.load(path) as arrays:
        values = {name: arrays[name].copy() for name in arrays}
    change(values)
    with path.open("wb") as file:
        np.savez(file, **values)


def swap(values) -> None:
    """Records 3 and 4 in each other's place."""
    for array in values.values():
        array[[3, 4]] = array[[4, 3]]


def other_id(values) -> None:
    values["id"][5] ^= 1


def other_shape(values) -> None:
    values["height"][5] += 8


@pytest.mark.parametrize(("change", "record"), [(swap, 3), (other_id, 5), (other_shape, 5)])
def test_an_index_of_another_build_is_named(folder, change, record):
    other_index(folder, change)
    with pytest.raises(
        UserError, match=rf"record {record} of .*{shard_of(folder).name} holds id .*not of the same build"
    ):
        clips(folder)


def test_the_row_with_a_damaged_record_is_never_given_to_a_run(folder):
    config, dataset = tiny.tiny_config().data, Dataset(folder)
    plan = pipeline.make_plan(dataset, config, dataset.patch, 5)
    bad = next(step for step in range(100) if 5 in [*plan.row(2 * step).examples, *plan.row(2 * step + 1).examples])
    other_index(folder, other_id)
    rows = pipeline.rows(Dataset(folder), config, dataset.patch, 5)
    seen = 0
    with pytest.raises(UserError, match="record 5 of .* holds id .*not of the same build"):
        for _ in rows:
            seen += 1
    assert seen <= bad


def test_a_failing_system_call_is_tried_again(folder, no_waiting, capfd):
    """Its file descriptor is closed under the reader, so that a real pread fails."""
    dataset, wanted = Dataset(folder), clips(folder)
    dataset.read_clip("train", 0)
    for name in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{name}") and os.readlink(f"/proc/self/fd/{name}") == str(shard_of(folder)):
            os.close(int(name))
    assert same(dataset.read_clip("train", 40, caption="short"), wanted[40])
    assert capfd.readouterr().err.count("failed (pread() failed: Bad file descriptor") == 1


class Failing:
    """A reader of which every second read fails, as on a bad link."""

    def __init__(self, reader, counts, always=False):
        self.reader, self.counts, self.always = reader, counts, always

    def read(self, numbers):
        self.counts.append(numbers)
        if self.always or len(self.counts) % 2:
            raise RuntimeError("pread() failed: Input/output error [EIO]")
        return self.reader.read(numbers)


@pytest.mark.parametrize("always", [False, True])
def test_input_output_errors(folder, no_waiting, monkeypatch, capfd, always):
    dataset, wanted, counts = Dataset(folder), clips(folder), []
    shards = dataset._shards["train"]
    reader = shards._reader
    # Of these shards alone: an earlier test's loader may still read others.
    monkeypatch.setattr(shards, "_reader", lambda shard: Failing(reader(shard), counts, always))
    if always:
        with pytest.raises(
            StorageError, match=f"{shard_of(folder).name} cannot be read at record 7 .*EIO.*is its storage"
        ):
            dataset.read_clip("train", 7)
        assert len(counts) == 4
    else:
        assert all(same(dataset.read_clip("train", i, caption="short"), wanted[i]) for i in range(48))
        assert capfd.readouterr().err.count("warning: reading") == 48


def test_an_index_that_cannot_be_read_at_first(folder, no_waiting, monkeypatch, capfd):
    load, calls = np.load, []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) < 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return load(*args, **options)

    monkeypatch.setattr(np, "load", failing)
    assert len(Dataset(folder).index("train")) == 48
    assert capfd.readouterr().err.count("index-train.npz failed ([Errno 5]") == 2


def test_waits_grow_and_damage_is_not_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(retry.time, "sleep", waits.append)

    def fail(error):
        raise error

    with pytest.raises(OSError):
        retry.retry_transient(lambda: fail(OSError(errno.EIO, "bad")), "x")
    assert waits == list(retry.WAITS) == sorted(retry.WAITS) and len(waits) >= 3
    waits.clear()
    for error in (
        RuntimeError("Corrupted Riegeli/records file"),
        ValueError("UNKNOWN: Failed to open [os_error_code='40']"),
        FileNotFoundError(2, "none"),
        ValueError("() failed"),
    ):
        with pytest.raises(type(error)):
            retry.retry_transient(lambda error=error: fail(error), "x")
    assert waits == []
