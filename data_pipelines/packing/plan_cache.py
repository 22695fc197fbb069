"""Large epochs on disk: planned once on a machine, memory-mapped by every process there, and found by a resumed run."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.packing.rows import EpochPlan
from vdit.errors import UserError

FORMAT = 1
"""Part of every key: raise it whenever the same index, config and seed would give other rows."""

_NAMES = tuple(field.name for field in dataclasses.fields(EpochPlan))


class PlanFiles:
    """Epochs of one stage, a folder each; those before the one that is written last but one are removed.

    Only row counts are kept for ever: with them a resumed run finds its place without planning past epochs.

    Args:
      folder: where; made when the first epoch is saved.
      key: arrays and values that determine the rows; dicts, tuples and lists may hold them.
    """

    def __init__(self, folder: str | os.PathLike[str], *key: Any) -> None:
        digest = hashlib.blake2b(str(FORMAT).encode(), digest_size=16)
        _hash(digest, key)
        self.folder = Path(folder) / digest.hexdigest()

    def rows(self, epoch: int) -> int | None:
        """Rows of an epoch that was planned at some time; None if it was not."""
        path = self.folder / f"rows-{epoch}"
        return int(path.read_text()) if path.is_file() else None

    def load(self, epoch: int) -> EpochPlan | None:
        """An epoch that lies here, memory-mapped; None if it does not."""
        folder = self.folder / f"epoch-{epoch}"
        try:
            return EpochPlan(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _NAMES})
        except FileNotFoundError:  # never planned, or removed by a process that is further on
            return None

    def save(self, epoch: int, plan: EpochPlan) -> EpochPlan:
        """Writes an epoch and gives it back memory-mapped.

        Raises:
          UserError: if it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=self.folder, prefix="partial-"))
            for name in _NAMES:
                np.save(partial / f"{name}.npy", getattr(plan, name))
            (partial / "rows").write_text(str(plan.rows))
            os.replace(partial / "rows", self.folder / f"rows-{epoch}")
            if (self.folder / f"epoch-{epoch}").is_dir():  # another process was faster; its rows are the same
                shutil.rmtree(partial)
            else:
                partial.rename(self.folder / f"epoch-{epoch}")
        except OSError as error:
            raise UserError(
                f"the plan of {len(plan.examples)} examples cannot be written to {self.folder} ({error}); "
                "set VDIT_CACHE to a folder with room"
            ) from error
        for before in range(max(0, epoch - 4), epoch - 1):
            shutil.rmtree(self.folder / f"epoch-{before}", ignore_errors=True)
        loaded = self.load(epoch)
        return plan if loaded is None else loaded


def _hash(digest: Any, part: Any) -> None:
    """Adds all of a part of a key to a digest: of arrays their bytes, as their repr leaves values out."""
    if isinstance(part, np.ndarray):
        digest.update(f"{part.dtype}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    elif isinstance(part, Mapping):
        _hash(digest, [each for item in part.items() for each in item])
    elif isinstance(part, list | tuple):
        digest.update(f"{len(part)}:".encode())
        for each in part:
            _hash(digest, each)
    else:
        digest.update(f"{part!r};".encode())
