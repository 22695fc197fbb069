"""Readers of files from elsewhere: whatever the bytes, they give a value or a one-line UserError, nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.building.jobs.result import Result, load_result
from data_pipelines.building.writing.ledger import Entry
from data_pipelines.building.writing.shard import RecordKind, Shard, make_index
from data_pipelines.packing.index import load_index, load_meta
from data_pipelines.reading.store import Dataset
from data_pipelines.sources import captions
from vdit.errors import UserError
from vdit.generation.prompts import read_sample_requests
from vdit.io.weights.safetensors import read_tensors

MANY = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEWER = settings(MANY, max_examples=60)

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "repeat", "end"]), st.integers(0, 1 << 16), st.binary(max_size=12)
    ),
    min_size=1,
    max_size=5,
)


def edited(data: bytes, edits) -> bytes:
    """The bytes with things done to them that happen to files, and that people do to them."""
    out = bytearray(data)
    for kind, place, content in edits:
        at = place % (len(out) + 1)
        if kind == "set":
            out[at : at + len(content)] = content
        elif kind == "cut":
            del out[at : at + 1 + len(content)]
        elif kind == "insert":
            out[at:at] = content
        elif kind == "repeat":
            out[at:at] = out[at : at + 40 * (1 + len(content))]
        else:
            del out[at:]
    return bytes(out)


def value_or_one_line(read):
    """What `read` gives; None if it refuses as it should."""
    try:
        return read()
    except UserError as error:
        assert str(error).strip() and len(str(error)) < 2000
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return Path(shutil.copytree(tiny.dataset(), tmp_path_factory.mktemp("fuzz") / "data"))


@MANY
@given(EDITS)
def test_an_index(folder, edits):
    original = (tiny.dataset() / "index-train.npz").read_bytes()
    (folder / "index-train.npz").write_bytes(edited(original, edits))
    index = value_or_one_line(lambda: load_index(folder, "train"))
    if index is not None:
        assert len(index) == 48 and (index.grid_N3(tiny.PATCH) > 0).all()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@FEWER
@given(st.data())
def test_the_description_of_a_data_set(folder, data):
    """Its bytes are edited, or a value anywhere in it is replaced by another."""
    original = (tiny.dataset() / "vdit.json").read_bytes()
    if data.draw(st.booleans()):
        changed = edited(original, data.draw(EDITS))
    else:
        values = json.loads(original)
        place, steps = values, data.draw(st.integers(1, 5))
        for _ in range(steps):
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(list(keys)))
            if _ == steps - 1 or not isinstance(place[key], (dict, list)) or not place[key]:
                place[key] = data.draw(JSON)
                break
            place = place[key]
        changed = json.dumps(values).encode()
    (folder / "vdit.json").write_bytes(changed)

    def read():
        found = Dataset(folder)
        return [found.size(split) for split in found.splits]

    value_or_one_line(lambda: load_meta(folder))
    value_or_one_line(read)


WEIGHTS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.float16)}


@MANY
@given(EDITS)
def test_safetensors(tmp_path, edits):
    path = tmp_path / "x.safetensors"
    path.write_bytes(edited(safetensors.numpy.save(WEIGHTS), edits))
    shapes = {name: array.shape for name, array in WEIGHTS.items()}
    found = value_or_one_line(lambda: read_tensors(path, shapes))
    if found is not None:
        assert {name: array.shape for name, array in found.items()} == shapes


@FEWER
@given(EDITS)
def test_an_index_of_safetensors(tmp_path, edits):
    (tmp_path / "w.safetensors").write_bytes(safetensors.numpy.save(WEIGHTS))
    about = json.dumps({"weight_map": {"a": "w.safetensors", "b": "w.safetensors"}}).encode()
    (tmp_path / "w.safetensors.index.json").write_bytes(edited(about, edits))
    value_or_one_line(lambda: read_tensors(tmp_path, {name: array.shape for name, array in WEIGHTS.items()}))


TABLES = {
    "captions.csv": b'file,caption_short,split\r\na/1.mp4,"A ball, red",train\r\nb.png,"two\nlines",val\r\n',
    "metadata.jsonl": b'{"file_name": "1.mp4", "text": "a ball"}\n{"file_name": "2.mp4", "text": "\\u00e9"}\n',
}


def captions_of(name: str, table: bytes) -> dict[str, dict[str, str]]:
    rows = captions.read_table(name, table)
    return dict(captions.join_rows([(captions.relative_to_table(row), row) for row in rows]).captions)


@MANY
@given(st.sampled_from(sorted(TABLES)), EDITS)
def test_captions(name, edits):
    found = value_or_one_line(lambda: captions_of(name, edited(TABLES[name], edits)))
    if found is not None:
        assert all(isinstance(text, str) for kinds in found.values() for text in kinds.values())
    text = value_or_one_line(lambda: captions.decode_text("1.txt", edited("Ein Bär".encode(), edits)))
    assert text is None or "\n" not in text


@FEWER
@given(EDITS)
def test_a_job_s_result(tmp_path, edits):
    entries = [Entry("a,b.mp4", "train", status, 'said "no"', (9, 64, 64)) for status in ("accepted", "rejected")]
    path = tmp_path / "000000.npz"
    index = make_index([(7, (5, 8, 8), 8.0, [3])], [{"motion": np.float32(1)}])
    kind = RecordKind("{}", "uint8", 3, ("short",))
    Result(Shard("shard", 100, "abc", kind, index), (0, 1), tuple(entries)).save(str(path))
    data = path.read_bytes()
    assert load_result(str(path)).entries == tuple(entries)
    path.write_bytes(edited(data, edits))
    value_or_one_line(lambda: load_result(str(path)))


PROMPTS = (
    b'{"prompt": "a red ball", "frames": 9, "out": "x.mp4"}\n\n{"prompt": "\\ud83d", "seed": 3, "size": "64x64"}\n'
)


@FEWER
@given(EDITS)
def test_a_file_of_prompts(tmp_path, edits):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(edited(PROMPTS, edits))
    samples = value_or_one_line(lambda: read_sample_requests(path, {}, tmp_path))
    for sample in samples or ():
        assert Path(sample.out).resolve().is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize("out", ["../x.mp4", "/tmp/x.mp4", "a/../../x.mp4"])
def test_a_prompt_cannot_write_elsewhere(tmp_path, out):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "x", "out": out}))
    with pytest.raises(UserError, match="line 1 of .*lies outside of --out"):
        read_sample_requests(path, {}, tmp_path)


def test_what_is_fuzzed_is_readable_when_it_is_left_alone(tmp_path):
    shapes = {name: array.shape for name, array in WEIGHTS.items()}
    (tmp_path / "x.safetensors").write_bytes(safetensors.numpy.save(WEIGHTS))
    assert len(read_tensors(tmp_path / "x.safetensors", shapes)) == 2
    assert len(load_index(tiny.dataset(), "train")) == 48
    for name, table in TABLES.items():
        assert len(captions_of(name, table)) == 2
