import threading

import pytest

from vdit.errors import UserError
from vdit.io import files


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path):
    path = tmp_path / "state.json"
    files.write_json(path, {"step": 1, "name": "Schöpfer"})
    assert files.read_json(path) == {"step": 1, "name": "Schöpfer"}
    with pytest.raises(OSError, match="no room"), files.whole_file(path) as partial:
        partial.write_text("half of")
        raise OSError("no room")
    assert files.read_json(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_never_mix(tmp_path):
    path, length = tmp_path / "state.json", 20_000

    def write(letter: str) -> None:
        for _ in range(50):
            files.write_json(path, letter * length)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert files.read_json(path, str) in ("a" * length, "b" * length)
    for thread in threads:
        thread.join()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("data", [b"", b'{"step": ', b"\xff\xfe\xff", b"[" * 100_000, b"[]", b"3", b"null"])
def test_json_that_cannot_be_read_is_named(tmp_path, data):
    (tmp_path / "state.json").write_bytes(data)
    with pytest.raises(UserError, match="state.json is damaged"):
        files.read_json(tmp_path / "state.json")
    with pytest.raises(UserError, match="none.json is missing"):
        files.read_json(tmp_path / "none.json")


def test_what_json_must_hold_is_said(tmp_path):
    files.write_json(tmp_path / "a.json", {"step": 1})
    with pytest.raises(UserError, match=r"a.json is damaged \(it holds dict, not list\); restore it"):
        files.read_json(tmp_path / "a.json", list, mend="restore it")
    with pytest.raises(UserError, match=r"a.json is damaged \(it lacks loss, time\); restore it"):
        files.read_json(tmp_path / "a.json", keys=("step", "loss", "time"))


def test_rows_that_are_not_whole_are_left_out():
    data = (
        b'{"step": 1}\n{"step": "2"}\n[3]\n\xff\n'
        + b"[" * 100_000
        + b'\n{"loss": 4}\n{"step": 5, "a": "\xe2\x80\xa8"}\n{"st'
    )
    assert [row["step"] for row in files.parse_rows(data, "step")] == [1, 5]


def test_the_cache_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VDIT_CACHE", "~/kept")
    assert files.cache_dir() == tmp_path / "kept"
    for unset in ("", None):
        monkeypatch.delenv("VDIT_CACHE") if unset is None else monkeypatch.setenv("VDIT_CACHE", unset)
        assert files.cache_dir() == tmp_path / ".cache" / "vdit"


@pytest.mark.parametrize(("path", "remote"), [("gs://b/x", True), ("s3://b", True), ("/a/b", False), ("a:b", False)])
def test_urls_are_remote(path, remote):
    assert files.is_remote(path) is remote


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(OSError, match="no room"), files.whole_folder(tmp_path / "out") as partial:
        (partial / "half").write_text("x")
        raise OSError("no room")
    assert list(tmp_path.iterdir()) == []
    with files.whole_folder(tmp_path / "out") as partial:
        (partial / "all").write_text("x")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all"] and len(list(tmp_path.iterdir())) == 1
