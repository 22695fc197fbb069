"""Lines of Python by folder, without tests: `python -m benchmarks.weight [--since=REVISION]`.

Counted are the files that git knows, or does not ignore; those of a revision by the folders that they lay in then.
"""

from __future__ import annotations

import collections
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from absl import flags

from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError
from vdit.io.formatting import align

SINCE = flags.DEFINE_string("since", "", "A git revision to count beside the working tree.")
ROOT = Path(__file__).parents[1]
DEPTH = 2  # of the folders that are counted apart

Lines = collections.Counter[str]


def git(*arguments: str) -> str:
    """Output of a git command in this checkout.

    Raises:
      UserError: if it fails.
    """
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
    return done.stdout.decode(errors="replace")


def now() -> Lines:
    """Lines of the working tree."""
    names = git("ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return by_folder((name, (ROOT / name).read_bytes().count(b"\n")) for name in names if (ROOT / name).is_file())


def at(revision: str) -> Lines:
    """Lines of a revision: what its difference from an empty tree adds."""
    empty = git("hash-object", "-t", "tree", "/dev/null").strip()
    rows = git("diff", "--numstat", "--no-renames", "-z", empty, revision, "--").split("\0")[:-1]
    return by_folder((name, int(added)) for added, _, name in (row.split("\t") for row in rows) if added != "-")


def by_folder(files: Iterable[tuple[str, int]]) -> Lines:
    """Lines of each folder, those below it included from the second level on."""
    lines = Lines()
    for name, count in files:
        folders = PurePosixPath(name).parts[:-1]
        if name.endswith(".py") and folders[:1] != ("tests",):
            lines["/".join(folders[:DEPTH]) or "."] += count
    return lines


def table(columns: dict[str, Lines]) -> str:
    """A line a folder, a column for each count, sums at the foot."""
    folders = sorted(set().union(*columns.values()))
    rows = [[folder, *(f"{lines[folder]:,}" for lines in columns.values())] for folder in folders]
    total = ["all", *(f"{lines.total():,}" for lines in columns.values())]
    return align([["folder", *columns], *rows, total], right=range(1, 1 + len(columns)))


def main(argv: list[str]) -> None:
    no_arguments(argv)
    columns = {"now": now()} | ({SINCE.value: at(SINCE.value)} if SINCE.value else {})
    print(table(columns))
    if SINCE.value:
        print(f"{columns['now'].total() / columns[SINCE.value].total() - 1:+.1%} since {SINCE.value}")


if __name__ == "__main__":
    run_main(main)
