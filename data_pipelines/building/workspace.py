"""Where a build grows, and how it becomes the data set."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.building.publish import PART_FILE
from data_pipelines.packing.index import META_FILE
from vdit.errors import UserError
from vdit.io import remote
from vdit.io.files import cache_dir, is_remote

LOCK_FILE, PLAN_FILE = ".build-lock", "plan.json"


class Workspace:
    """OUT.partial, which holds a folder for each part.

    On this machine it becomes OUT by being renamed. In a bucket, where nothing can be renamed as a whole, OUT counts as
    a data set as soon as its `vdit.json` is written, which is last; parts grow on this machine and are copied to the
    bucket when they are finished.

    Args:
      out: the data set's directory or URL.
      shard, shards: which part of how many this machine builds.

    Attributes:
      part: folder of this machine in which its part grows.
      parts: paths or URLs of all finished parts.
      target: path or URL where the finished files go.
    """

    def __init__(self, out: str, shard: int, shards: int) -> None:
        self._out = out.rstrip("/")
        self._remote = is_remote(out)
        partial = f"{self._out}.partial"
        self._root = Path(partial)
        if self._remote:
            self._root = cache_dir() / "builds" / hashlib.sha256(self._out.encode()).hexdigest()[:16]
        names = [f"part-{i:05d}-of-{shards:05d}" for i in range(shards)]
        self.part = self._root / names[shard]
        self.parts = [f"{partial}/{name}" for name in names]
        self.target = self._out if self._remote else partial
        self._partial, self._url, self._suffix = partial, self.parts[shard], f"-of-{shards:05d}"

    def published(self) -> bool:
        """Whether all that is left to do is `finish`."""
        return not self._remote and (self._root / META_FILE).exists()

    def built(self) -> bool:
        """Whether this machine's part is finished."""
        return (self.part / PART_FILE).exists() or remote.exists(f"{self._url}/{PART_FILE}")

    def missing_parts(self) -> list[int]:
        """Numbers of the parts that are not finished."""
        return [i for i, part in enumerate(self.parts) if not remote.exists(f"{part}/{PART_FILE}")]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds this part for this process.

        Raises:
          UserError: if another build is at work on it, something else lies there, or it cannot be written.
        """
        if self._root.exists() and any(self._root.iterdir()) and not (self._root / LOCK_FILE).exists():
            raise UserError(
                f"{self._root} is in the way and not from an unfinished build; move it or choose another --out"
            )
        if others := [path for path in self._root.glob("part-*") if not path.name.endswith(self._suffix)]:
            raise UserError(
                f"{others[0]} is from a build with another --shard; go on with that, or remove {self._root}"
            )
        with self._reporting():
            self._root.mkdir(parents=True, exist_ok=True)
            (self._root / LOCK_FILE).touch()
            self.part.mkdir(exist_ok=True)
            with (self.part / LOCK_FILE).open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    raise UserError(
                        f"another build is writing {self._root}; wait for it or choose another --out"
                    ) from error
                yield

    @contextlib.contextmanager
    def merging(self) -> Iterator[None]:
        """Keeps other processes of this file system from merging. In a bucket several may, to the same effect."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError):  # another machine has finished
                lock = stack.enter_context((self._root / LOCK_FILE).open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            with self._reporting():
                yield

    def check_plan(self, identity: dict[str, Any]) -> None:
        """Raises UserError if what lies there is of a build with other arguments."""
        path = self.part / PLAN_FILE
        if not path.exists():
            remote.write_bytes(path, json.dumps(identity).encode())
        elif differing := differences(json.loads(path.read_text(encoding="utf-8")), identity):
            raise UserError(
                f"{self._root} is an unfinished build with {differing}; finish it with the same arguments, or remove it"
            )

    def upload(self) -> None:
        """Copies the finished part to the bucket, what says so last."""
        if not self._remote or not (self.part / PART_FILE).exists() or remote.exists(f"{self._url}/{PART_FILE}"):
            return
        files = [path for path in sorted(self.part.iterdir()) if path.name not in (PART_FILE, LOCK_FILE)]
        for path in [*files, self.part / PART_FILE]:
            remote.send(path, f"{self._url}/{path.name}")

    def finish(self) -> None:
        """Removes what is not part of the data set, and gives it its name."""
        if self._remote:
            self.remove()
            return
        for part in self.parts:
            shutil.rmtree(part, ignore_errors=True)
        (self._root / LOCK_FILE).unlink(missing_ok=True)
        self._root.rename(self._out)  # which may be there, empty

    def remove(self) -> None:
        """Removes all of an unfinished build."""
        remote.remove(self._partial)
        shutil.rmtree(self._root, ignore_errors=True)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:  # that is no full disk, but somebody who tidies up
            raise
        except OSError as error:
            raise UserError(f"cannot write {self._out} ({error}); make room or choose another --out") from error


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Which values of `found` are not those wanted, in words; empty if none."""
    keys = dict.fromkeys([*wanted, *found])
    return ", ".join(f"{key} {found.get(key)!r}" for key in keys if found.get(key) != wanted.get(key))
