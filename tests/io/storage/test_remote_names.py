"""Names that file systems behind fsspec take for something else."""

import os
from pathlib import Path

import fsspec
import pytest

from vdit.io.storage import remote

NAMES = ("A::B.mp4", "~x.mp4", "a b ü.mp4", "#?%20.mp4", "memory::c.mp4")


@pytest.mark.parametrize("root", ["memory://bucket/deep", "~odd::folder", "."])
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    """In a bucket and below a relative folder: written, listed, read and fetched."""
    monkeypatch.chdir(tmp_path)
    fsspec.filesystem("memory").store.clear()
    for name in NAMES:
        remote.write_bytes(f"{root}/{name}", name.encode())
    assert sorted(name for name, _ in remote.walk(root)) == sorted(NAMES) == remote.list_names(root)
    for name in NAMES:
        path = f"{root}/{name}"
        assert remote.read_bytes(path) == name.encode() and remote.exists(path) and remote.is_file(path)
        assert remote.size(path) == len(name.encode())
        fetched = remote.fetch(path, tmp_path.parent / f"{tmp_path.name}-fetched")
        assert fetched.read_bytes() == name.encode()
    assert not os.path.exists(os.path.expanduser("~/odd::folder"))
    fsspec.filesystem("memory").store.clear()
