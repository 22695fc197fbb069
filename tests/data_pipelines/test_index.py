"""The index: what is written is read, and nothing damaged is."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from data_pipelines.packing.index import Index, load_index, load_meta
from vdit.errors import UserError
from vdit.patches import Patch

META = {
    "format": 1,
    "source": "test",
    "licence": "none",
    "patch": [4, 8, 8],
    "channels": 3,
    "dtype": "uint8",
    "captions": ["short", "detailed"],
    "autoencoder": {"name": "pixels"},
    "text_encoder": {"name": "none", "width": 1, "hash": ""},
    "splits": {"train": {"examples": 3, "shards": []}},
}


def make_index() -> Index:
    return Index(
        id=np.array([3, 2**64 - 1, 7], np.uint64),
        frames=np.array([1, 5, 33], np.int32),
        height=np.array([8, 16, 24], np.int32),
        width=np.array([40, 16, 8], np.int32),
        fps=np.array([12, 24, 10], np.float32),
        text_tokens=np.array([[3, 9], [0, 1], [5, 5]], np.int32),
    )


def write(folder: pathlib.Path, index: Index, **meta: object) -> None:
    (folder / "vdit.json").write_text(json.dumps({**META, **meta}))
    index.save(folder / "index-train.npz")


def test_round_trip_and_grids(tmp_path: pathlib.Path) -> None:
    write(tmp_path, make_index())
    index = load_index(tmp_path, "train")
    for field in dataclasses.fields(Index):
        np.testing.assert_array_equal(getattr(index, field.name), getattr(make_index(), field.name))
    patch = Patch(4, 8, 8)
    wanted = [patch.grid(*shape) for shape in zip(index.frames, index.height, index.width, strict=True)]
    np.testing.assert_array_equal(index.grid_N3(patch), wanted)


def test_arrays_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="frames is int64"):
        dataclasses.replace(make_index(), frames=np.arange(3))
    with pytest.raises(ValueError, match="fps"):
        dataclasses.replace(make_index(), fps=np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.array([1, 6, 33], np.int32)}, "entry 1 does not fit"),
        ({"width": np.array([40, 16, 0], np.int32)}, "entry 2 does not fit"),
        ({"id": np.array([3, 3, 7], np.uint64)}, "ids are not distinct"),
        ({"text_tokens": np.zeros((3, 1), np.int32)}, "1 caption kinds"),
        ({"fps": np.array([12, np.nan, 10], np.float32)}, "entry 1 does not fit"),
    ],
)
def test_impossible_entries_are_user_errors(
    tmp_path: pathlib.Path, change: dict[str, np.ndarray], message: str
) -> None:
    write(tmp_path, dataclasses.replace(make_index(), **change))
    with pytest.raises(UserError, match=message):
        load_index(tmp_path, "train")


def test_length_must_match_the_data_set(tmp_path: pathlib.Path) -> None:
    write(tmp_path, make_index(), splits={"train": {"examples": 4, "shards": []}})
    with pytest.raises(UserError, match="3 entries for 4 examples"):
        load_index(tmp_path, "train")


@pytest.mark.parametrize("at", [0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("how", ["cut", "flip"])
def test_damage_is_found(tmp_path: pathlib.Path, at: float, how: str) -> None:
    write(tmp_path, make_index())
    path = tmp_path / "index-train.npz"
    data = bytearray(path.read_bytes())
    # A flip lands in an array's payload, where only the checksum can tell.
    place = int(at * len(data)) if how == "cut" else data.index(make_index().frames.tobytes()) + int(at * 12)
    path.write_bytes(data[:place] if how == "cut" else data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(UserError, match="index-train.npz is damaged") as caught:
        load_index(tmp_path, "train")
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path, make_index())
    arrays = {field.name: getattr(make_index(), field.name) for field in dataclasses.fields(Index)}
    np.savez(tmp_path / "index-train.npz", **{**arrays, "id": np.array([{}, {}, {}], object)})
    with pytest.raises(UserError, match="damaged"):
        load_index(tmp_path, "train")


def test_missing_and_foreign_data_sets_are_user_errors(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_meta(tmp_path / "nowhere")
    with pytest.raises(UserError, match="vdit.json is missing"):
        load_meta(tmp_path)
    write(tmp_path, make_index())
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        load_index(tmp_path, "test")
    (tmp_path / "index-train.npz").unlink()
    with pytest.raises(UserError, match="index-train.npz is missing"):
        load_index(tmp_path, "train")
    for text, message in [
        ("{", "damaged"),
        ("[]", "format None"),
        ('{"format": 2}', "format 2"),
        ('{"format": 1}', "lacks"),
    ]:
        (tmp_path / "vdit.json").write_text(text)
        with pytest.raises(UserError, match=message):
            load_meta(tmp_path)
