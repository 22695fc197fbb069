"""State dicts read without PyTorch, and what is refused."""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from vdit.errors import UserError
from vdit.io.weights.pth import MAGIC, read_pth, read_weights


class _Named:
    """Pickles as a global of another module."""

    def __init__(self, module: str, name: str):
        self.path = module, name


class _Writer(pickle._Pickler):
    """Writes what PyTorch would: globals by name and storages by persistent id (in pure Python, for `save`)."""

    def persistent_id(self, obj):
        return obj if isinstance(obj, tuple) and obj and isinstance(obj[0], str) and obj[0] == "storage" else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Named):
            self.write(pickle.GLOBAL + "\n".join(obj.path).encode() + b"\n")
            return
        super().save(obj, save_persistent_id)


class _Tensor:
    def __init__(self, key: str, offset: int, shape: tuple, stride: tuple, count: int, kind: str = "FloatStorage"):
        self.arguments = (("storage", _Named("torch", kind), key, "cpu", count, None), offset, shape, stride, False, {})


def _save_tensor(writer, tensor):
    writer.save(_Named("torch._utils", "_rebuild_tensor_v2"))
    writer.save(tensor.arguments)
    writer.write(pickle.REDUCE)


_Writer.dispatch = {**pickle._Pickler.dispatch, _Tensor: _save_tensor}


def write(path, tensors: dict, storages: dict[str, np.ndarray], magic: int = MAGIC):
    with open(path, "wb") as file:
        for part in (magic, 1001, {"little_endian": True}, tensors, sorted(storages)):
            _Writer(file, 2).dump(part)
        for key in sorted(storages):
            file.write(struct.pack("<q", storages[key].size) + storages[key].tobytes())
    return path


VALUES = np.arange(12, dtype=np.float32)


def test_strides_and_offsets_are_honoured(tmp_path):
    tensors = collections.OrderedDict(
        plain=_Tensor("a", 0, (3, 4), (4, 1), 12),
        turned=_Tensor("a", 0, (4, 3), (1, 4), 12),
        part=_Tensor("a", 2, (2, 2), (4, 1), 12),
        scalar=_Tensor("b", 0, (), (), 1, "LongStorage"),
    )
    found = read_pth(write(tmp_path / "x.pth", tensors, {"a": VALUES, "b": np.array([7])}))
    assert list(found) == list(tensors)
    np.testing.assert_array_equal(found["plain"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(found["turned"], VALUES.reshape(3, 4).T)
    np.testing.assert_array_equal(found["part"], [[2, 3], [6, 7]])
    assert found["scalar"] == 7 and found["scalar"].dtype == np.int64
    assert all(array.flags.owndata for array in found.values())


def write_zip(path, tensors: dict, storages: dict[str, np.ndarray], order: bytes = b"little"):
    """What PyTorch has written since version 1.6."""
    with zipfile.ZipFile(path, "w") as archive:
        pickled = io.BytesIO()
        _Writer(pickled, 2).dump(tensors)
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", order)
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", storage.tobytes())
    return path


def test_files_of_newer_versions(tmp_path):
    tensors = {"turned": _Tensor("a", 0, (4, 3), (1, 4), 12), "scalar": _Tensor("b", 0, (), (), 1, "LongStorage")}
    storages = {"a": VALUES, "b": np.array([7])}
    found = read_pth(write_zip(tmp_path / "x.pth", tensors, storages))
    np.testing.assert_array_equal(found["turned"], VALUES.reshape(3, 4).T)
    assert found["scalar"] == 7 and list(found) == list(tensors)
    for path, message in (
        (write_zip(tmp_path / "big.pth", tensors, storages, b"big"), "big-endian"),
        (write_zip(tmp_path / "less.pth", tensors, {"a": VALUES}), "data/b"),
        (write_zip(tmp_path / "short.pth", tensors, {**storages, "a": VALUES[:5]}), "reaches past its storage"),
        (write_zip(tmp_path / "harm.pth", {"x": _Harm()}, {}), "names (__builtin__|builtins).eval"),
        (write_zip(tmp_path / "other.pth", [1], {}), "is not a readable .pth state dict"),
    ):
        with pytest.raises(UserError, match=message):
            read_pth(path)


def test_weights_of_a_model_from_either_kind_of_file(tmp_path):
    pth = write(tmp_path / "x.pth", {"t": _Tensor("a", 0, (3, 4), (4, 1), 12)}, {"a": VALUES})
    save_file({"t": VALUES.reshape(3, 4)}, tmp_path / "x.safetensors")
    for path in (pth, tmp_path / "x.safetensors"):
        np.testing.assert_array_equal(read_weights(path, {"t": (3, 4)})["t"], VALUES.reshape(3, 4))
        assert read_weights(path, {}, ["t"]) == {}
        for shapes, message in (({"t": (4, 3)}, "tensor t is"), ({"u": (1,)}, "no tensor u"), ({}, "holds a tensor t")):
            with pytest.raises(UserError, match=message):
                read_weights(path, shapes)


class _Harm:
    def __reduce__(self):
        return eval, ("open('/tmp/harm', 'w')",)


def test_nothing_that_a_file_says_is_run(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps(_Harm(), 2))
    with pytest.raises(UserError, match=r"x.pth is not a readable .pth .*names (__builtin__|builtins).eval"):
        read_pth(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (_Tensor("a", 9, (4,), (1,), 12), "a tensor reaches past its storage"),
        (_Tensor("a", 0, (4, 4), (4, 1), 12), "a tensor reaches past its storage"),
        (_Tensor("a", -1, (2,), (1,), 12), "a tensor reaches past its storage"),
        (_Tensor("a", 0, (10**12,), (0,), 12), "a tensor is larger than its storage"),
        (_Tensor("a", 0, (10**9, 10**9), (0, 0), 12), "a tensor is larger than its storage"),
        (_Tensor("a", 0, (2,), (2**70,), 12), "a tensor reaches past its storage"),
        (_Tensor("a", 2**70, (2,), (1,), 12), "a tensor reaches past its storage"),
    ],
)
def test_tensors_outside_their_storage(tmp_path, tensor, message):
    with pytest.raises(UserError, match=message):
        read_pth(write(tmp_path / "x.pth", {"t": tensor}, {"a": VALUES}))


def test_files_that_are_something_else(tmp_path):
    good = write(tmp_path / "x.pth", {"t": _Tensor("a", 0, (12,), (1,), 12)}, {"a": VALUES})
    cut = tmp_path / "cut.pth"
    cut.write_bytes(good.read_bytes()[:-4])
    other = write(tmp_path / "other.pth", {}, {}, magic=5)
    zipped = tmp_path / "new.pth"
    zipped.write_bytes(b"PK\x03\x04 of a newer version")
    for path, message in (
        (cut, "it ends too early"),
        (other, "does not begin with"),
        (zipped, "is not a readable"),
        (tmp_path / "none.pth", "No such file"),
    ):
        with pytest.raises(UserError, match=message):
            read_pth(path)


def encrypted(path):
    """Every member says that it is encrypted."""
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = data.find(signature)
        while place >= 0:
            data[place + at] |= 1
            place = data.find(signature, place + 1)
    path.write_bytes(data)
    return path


def test_archives_that_are_encrypted_or_compressed(tmp_path):
    tensors, storages = {"t": _Tensor("a", 0, (12,), (1,), 12)}, {"a": VALUES}
    closed = encrypted(write_zip(tmp_path / "closed.pth", tensors, storages))
    with (
        zipfile.ZipFile(write_zip(tmp_path / "x.pth", tensors, storages)) as plain,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    for path, message in ((closed, "it is encrypted"), (tmp_path / "small.pth", "its members are compressed")):
        with pytest.raises(UserError, match=message):
            read_pth(path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    values = np.where(VALUES == 3, np.nan, VALUES)
    path = write(tmp_path / "x.pth", {"t": _Tensor("a", 0, (12,), (1,), 12)}, {"a": values})
    with pytest.raises(UserError, match="x.pth: 1 of the 12 values of tensor t are NaN or infinite"):
        read_weights(path, {"t": (12,)})


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_with_bytes_changed_is_read_or_refused_in_one_line(tmp_path, zipped):
    """Bytes of the pickles take opcodes, sizes and names at random; of an archive its directory, too."""
    tensors, storages = {"t": _Tensor("a", 0, (3, 4), (4, 1), 12)}, {"a": VALUES}
    good = (write_zip if zipped else write)(tmp_path / "good.pth", tensors, storages).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(400):
        data = bytearray(good)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        (tmp_path / "x.pth").write_bytes(data)
        try:
            read_pth(tmp_path / "x.pth")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 500
    assert refused > 100
