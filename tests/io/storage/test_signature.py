"""A signature changes with the content of a file, and with nothing else."""

import os
import shutil
from pathlib import Path

import pytest

from vdit.io.storage import signature
from vdit.io.storage.signature import file_signature


def test_every_byte_of_a_small_file_counts(tmp_path: Path) -> None:
    data, path = bytearray(1000), tmp_path / "file"
    path.write_bytes(data)
    found = {file_signature(path)}
    for place in range(0, 1000, 37):
        data[place] += 1
        path.write_bytes(data)
        found.add(file_signature(path))
    assert len(found) == 1 + len(range(0, 1000, 37))


def test_a_large_file_is_sampled_from_its_beginning_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "WHOLE", 1000)
    data, path = bytearray(signature.SAMPLE * signature.SAMPLES * 3), tmp_path / "file"
    path.write_bytes(data)
    found = {file_signature(path)}
    for place in (0, (len(data) - signature.SAMPLE) // (signature.SAMPLES - 1), len(data) - 1):
        data[place] += 1
        path.write_bytes(data)
        found.add(file_signature(path))
    assert len(found) == 4
    os.truncate(path, len(data) - 1)
    assert file_signature(path) not in found


def test_a_copy_at_another_time_has_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    shutil.copyfile(tmp_path / "a", tmp_path / "b")
    os.utime(tmp_path / "b", (0, 0))
    assert file_signature(tmp_path / "a") == file_signature(tmp_path / "b") == file_signature(f"file://{tmp_path}/a")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_signature(tmp_path / "none")
