"""Where a build grows, and how it becomes the data set."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_pipelines.building.jobs.do_job import scratch_folder
from data_pipelines.packing.index import META_FILE
from vdit.errors import UserError
from vdit.io.files import is_remote
from vdit.io.storage import lock, remote

PLAN_FILE = "plan.json"


class Workspace:
    """OUT.partial, which holds the plan and the results of jobs.

    On this machine the shards are in it too, in a folder that becomes OUT by being renamed. In a bucket, where nothing
    can be renamed as a whole, shards go to OUT right away, which counts as a data set as soon as its `vdit.json` is
    written, and that is last.

    Args:
      out: the data set's directory or URL.

    Attributes:
      target: path or URL of the shards.
      results: path or URL of the jobs' results.
    """

    def __init__(self, out: str) -> None:
        self._out = out.rstrip("/")
        if os.path.islink(self._out):  # a folder cannot take the place of a link
            self._out = os.path.realpath(self._out)
        self._remote = is_remote(out)
        self._partial = f"{self._out}.partial"
        self.target = self._out if self._remote else f"{self._partial}/data"
        self.results = f"{self._partial}/jobs"

    def begun(self) -> bool:
        """Whether an unfinished build is there, or what a finished one has left."""
        return remote.exists(f"{self._partial}/{PLAN_FILE}")

    def published(self) -> bool:
        """Whether all that is left to do is `finish`."""
        return not self._remote and remote.exists(f"{self.target}/{META_FILE}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the build for this process.

        Raises:
          UserError: if another build is at work on it, something else lies there, or it cannot be written.
        """
        if remote.is_file(self._partial) or set(remote.list_names(self._partial)) - {lock.NAME} and not self.begun():
            raise UserError(
                f"{self._partial} is in the way and not from an unfinished build; move it or choose another --out"
            )
        with lock.one_writer(self._partial):
            yield

    def check_plan(self, identity: dict[str, Any]) -> None:
        """Makes the folders, or raises UserError if what lies there is of a build with other arguments."""
        if not self.begun():
            remote.write_bytes(f"{self._partial}/{PLAN_FILE}", json.dumps(identity).encode())
        elif differing := differences(read_identity(f"{self._partial}/{PLAN_FILE}"), identity):
            raise UserError(
                f"{self._partial} is an unfinished build with {differing}; finish it with the same arguments, or "
                "choose another --out"
            )
        if not self._remote:
            Path(self.results).mkdir(exist_ok=True)
            Path(self.target).mkdir(exist_ok=True)

    def finish(self) -> None:
        """Gives the data set its name."""
        if not self._remote:
            for path in Path(self.target).glob(".*.partial"):  # of processes that were killed
                path.unlink()
            os.rename(self.target, self._out)  # which may be there, empty

    def tidy(self) -> None:
        """Removes what a finished build has left, the plan last. Nothing else may hold it."""
        if self.begun():
            remote.remove(self.results)
            remote.remove(f"{self._partial}/{PLAN_FILE}")
        remote.remove(scratch_folder(self._out))
        if self._remote:
            remote.remove(self._partial)
            return
        with contextlib.suppress(OSError):  # it is gone, or holds something else
            os.rmdir(self._partial)

    def abandon(self, files: Iterable[str]) -> None:
        """Removes all of an unfinished build that has written these files."""
        for name in files:
            remote.remove(f"{self.target}/{name}")
        if not self._remote:
            remote.remove(self.target)
        self.tidy()


def read_identity(path: str, *keys: str) -> dict[str, Any]:
    """What a JSON file says, at those keys, of the arguments of a build; empty if it says nothing.

    Raises:
      UserError: if the file is damaged.
    """
    try:
        found = json.loads(remote.read_bytes(path))
        for key in keys:
            found = found.get(key, {})
        return dict(found.items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}); choose another --out") from error


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Which values of `found` are not those wanted, in words; empty if none."""
    keys = dict.fromkeys([*wanted, *found])
    return ", ".join(f"{key} {found.get(key)!r}" for key in keys if found.get(key) != wanted.get(key))
