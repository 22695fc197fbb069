"""A dictionary on the disk does as a dict in memory does, in the order of its keys."""

import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from vdit.io.disk_dict import DiskDict

KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@hypothesis.given(st.lists(st.tuples(st.sampled_from(("set", "delete", "get")), KEYS, st.integers()), max_size=30))
def test_it_does_as_a_dict_does(steps: list[tuple[str, str, int]]) -> None:
    found, wanted = DiskDict[int](), dict[str, int]()
    for what, key, value in steps:
        if what == "set":
            found[key] = wanted[key] = value
        elif what == "get":
            assert found.get(key) == wanted.get(key) and (key in found) == (key in wanted)
        else:
            assert found.pop(key, None) == wanted.pop(key, None)
    assert list(found) == sorted(wanted) and len(found) == len(wanted) and found == wanted
    assert list(found.entries()) == sorted(wanted.items())


def test_what_is_not_there() -> None:
    found = DiskDict[list[str]]()
    for change in (lambda: found["a"], lambda: found.pop("a")):
        with pytest.raises(KeyError):
            change()
    found["a"] = ["ä", "\u2028"]
    found["a"].append("b")  # a copy
    assert found["a"] == ["ä", "\u2028"]


def test_memory_does_not_grow_with_entries() -> None:
    """In a process of its own: 60 MB of entries take less than a third of that."""
    code = (
        "import resource\nfrom vdit.io.disk_dict import DiskDict\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found, before = DiskDict(), peak()\n"
        "for number in range(60_000): found[f'{number:09d}'] = 'x' * 1000\n"
        "assert sum(1 for _ in found.entries()) == 60_000\n"
        "print((peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) < 20
