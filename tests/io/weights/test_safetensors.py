"""The checked reader of safetensors files."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from vdit.errors import UserError
from vdit.io.weights.safetensors import read_tensors


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.ones(3, np.float16)}, path)
    return path


def test_reads_what_the_model_has(weights):
    tensors = read_tensors(weights, {"a.bias": (3,), "a.weight": (2, 3)})
    assert list(tensors) == ["a.bias", "a.weight"]
    np.testing.assert_array_equal(tensors["a.weight"], [[0, 1, 2], [3, 4, 5]])
    assert tensors["a.bias"].dtype == np.float16
    assert list(read_tensors(weights, {"a.bias": (3,)}, unused=["a.weight"])) == ["a.bias"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a.weight": (2, 3), "a.bias": (3,), "b.weight": (4,)}, r"has no tensor b.weight \[4\]"),
        ({"a.weight": (3, 2), "a.bias": (3,)}, r"a.weight is \[2, 3\], the model's is \[3, 2\]"),
        ({"a.weight": (2, 3)}, r"a tensor a.bias \[3\] that the model does not have"),
    ],
)
def test_other_tensors_are_named(weights, shapes, message):
    with pytest.raises(UserError, match=message):
        read_tensors(weights, shapes)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_cut_file_is_named(weights, keep):
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"weights.safetensors is not a readable safetensors file .*fetch it again"):
        read_tensors(weights, {"a.weight": (2, 3), "a.bias": (3,)})


def test_the_tensor_in_which_a_file_is_cut_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({name: np.ones((16, 16), np.float32) for name in ("one", "two", "three")}, path)
    whole = path.read_bytes()
    order = sorted(
        ("one", "two", "three"), key=lambda name: json.loads(whole[8 : whole.rindex(b"}") + 1])[name]["data_offsets"]
    )
    for tensors, name in enumerate(order):
        path.write_bytes(whole[: len(whole) - 1024 * (2 - tensors) - 1])
        with pytest.raises(UserError, match=rf"\(it ends within tensor {name}\); fetch it again"):
            read_tensors(path, {name: (16, 16) for name in order})


def write_raw(path, header: bytes, data: bytes = b"") -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_weights_of_8_bits_are_refused(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    header = {"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2]}}
    write_raw(path, json.dumps(header).encode(), b"\0\0")
    with pytest.raises(UserError, match=f"tensor a is {dtype}, which is not read; give weights of 16 or 32 bits"):
        read_tensors(path, {"a": (2,)})
    assert read_tensors(path, {}, unused=["a"]) == {}


def test_weights_of_bfloat16_are_read(tmp_path):
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    write_raw(tmp_path / "weights.safetensors", json.dumps(header).encode(), b"\x80\x3f\x00\x40")
    assert read_tensors(tmp_path / "weights.safetensors", {"a": (2,)})["a"].astype(float).tolist() == [1, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_not_finite_are_refused(tmp_path, value, dtype):
    save_file({"a": np.array([1, value, 2, value]).astype(dtype)}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="2 of the 4 values of tensor a are NaN or infinite; give other weights"):
        read_tensors(tmp_path / "weights.safetensors", {"a": (4,)})


NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": ' + NESTED + b"}",
        b'{"__metadata__": {"x": ' + NESTED + b"}}",
        b"[]",
        b"\xff\xfe",
        b'{"a": {"dtype": "F32", "shape": [1099511627776, 1099511627776], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1e99]}}',
    ],
    ids=["deep", "deep metadata", "list", "no UTF-8", "large", "negative", "half bytes", "no offset"],
)
def test_odd_headers_are_one_line(tmp_path, header):
    write_raw(tmp_path / "weights.safetensors", header, b"\0" * 8)
    with pytest.raises(UserError, match="weights.safetensors is not a readable safetensors file") as error:
        read_tensors(tmp_path / "weights.safetensors", {"a": (2,)})
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_a_deep_index_is_one_line(sharded):
    (sharded / "m.safetensors.index.json").write_bytes(b'{"weight_map": ' + NESTED + b"}")
    with pytest.raises(UserError, match="is not an index of weights"):
        read_tensors(sharded, {"a": (3,)})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none.safetensors does not exist"):
        read_tensors(tmp_path / "none.safetensors", {})


@pytest.fixture
def sharded(tmp_path):
    save_file({"a": np.arange(3, dtype=np.float32)}, tmp_path / "m-1.safetensors")
    save_file({"b": np.arange(4, dtype=np.float32)}, tmp_path / "m-2.safetensors")
    return tmp_path


def write_index(folder, names):
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def test_a_folder_is_read_as_its_index_says(sharded):
    write_index(sharded, {"a": "m-1.safetensors", "b": "m-2.safetensors"})
    save_file({"a": np.zeros(3, np.float32)}, sharded / "other.safetensors")  # not in the index
    found = read_tensors(sharded, {"b": (4,), "a": (3,)})
    assert [found[name].tolist() for name in ("a", "b")] == [[0, 1, 2], [0, 1, 2, 3]]


def test_a_folder_without_index_is_read_whole(sharded):
    assert set(read_tensors(sharded, {"b": (4,), "a": (3,)})) == {"a", "b"}


def test_a_missing_shard_and_a_path_outside_are_refused(sharded):
    write_index(sharded, {"a": "m-1.safetensors", "b": "m-3.safetensors"})
    with pytest.raises(UserError, match="m-3.safetensors does not exist"):
        read_tensors(sharded, {"a": (3,), "b": (4,)})
    write_index(sharded, {"a": "../m-1.safetensors"})
    with pytest.raises(UserError, match="outside the folder"):
        read_tensors(sharded, {"a": (3,)})
    with pytest.raises(UserError, match="holds no .safetensors file"):
        (sharded / "empty").mkdir()
        read_tensors(sharded / "empty", {"a": (3,)})
