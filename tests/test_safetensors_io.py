"""The checked reader of safetensors files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from vdit.errors import UserError
from vdit.io.safetensors import read_tensors


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
