"""What benchmarks share: targets, tables, and the size of the tree."""

import subprocess
import sys
from collections import Counter

import pytest

from benchmarks import pages


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (pages.Target(0.75), 0.75, "target at least 0.75: met"),
        (pages.Target(0.75), 0.74, "target at least 0.75: MISSED"),
        (pages.Target(60, most=True), 61, "target at most 60: MISSED"),
        (pages.Target(60, most=True), 60, "target at most 60: met"),
        (pages.Target(1), float("nan"), "target at least 1: MISSED"),
    ],
)
def test_a_target_is_worded_once(target, value, verdict):
    assert target.verdict(value) == verdict


def test_tables_and_marks(tmp_path, monkeypatch):
    table = pages.table(["", "", ""], [["a | b", "1", "met"]], words=(2,))
    assert table == "|  |  |  |\n| --- | --: | --- |\n| a \\| b | 1 | met |"
    (tmp_path / "page.md").write_text("before\n<!-- begin: python -m x -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    pages.put("page.md", "python -m x", table)
    assert (tmp_path / "page.md").read_text().splitlines()[1:5:3] == [
        "<!-- begin: python -m x -->",
        "| a \\| b | 1 | met |",
    ]


def test_figures_stand_beside_their_targets():
    text = pages.judged({"inputs": 200_000, "s": 9.3779, "same": True}, {"s": pages.Target(30, most=True)})
    assert text.splitlines()[2:] == [
        "| inputs | 200,000 |  |",
        "| s | 9.378 | target at most 30: met |",
        "| same | yes |  |",
    ]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("benchmarks.pod --what=WRONG", "--what=WRONG is not one of depth, weak, pod"),
        ("benchmarks.weight --since=no-such", "no-such"),
    ],
)
def test_mistakes_are_one_line(command, words):
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_lines_are_counted_by_folder():
    from benchmarks import weight

    files = [("setup.py", 3), ("a/b/c/d.py", 10), ("a/b/e.py", 1), ("a/f.py", 5), ("a/g.md", 100), ("tests/a/h.py", 7)]
    lines = weight.by_folder(files)
    assert lines == Counter({".": 3, "a/b": 11, "a": 5})
    shown = weight.table({"now": lines, "then": Counter({"a": 1000})}).splitlines()
    assert shown[0].split() == ["folder", "now", "then"] and shown[-1].split() == ["all", "19", "1,000"]
    assert shown[2].split() == ["a", "5", "1,000"]
