"""The data sets of an experiment: made when they are first needed, once, and how their rows are filled."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vdit.command.exit_status import PREEMPTED
from vdit.command.stopping import Stopped, noted
from vdit.errors import UserError


class DataSets:
    """Data sets by name, in a folder that experiments may share.

    Args:
      folder: of all of them.
      commands: name -> module and flags of the command that makes it, but --out; {NAME} is another one's folder.
      text_encoder: of those that data_pipelines.build makes and whose flags name none.
    """

    def __init__(self, folder: Path, commands: Mapping[str, Sequence[str]], text_encoder: str):
        self._commands, self._encoder = commands, text_encoder
        self.paths = {name: folder / name for name in commands}

    def path(self, name: str) -> Path:
        """The folder of a data set, which is made, after those it is made from, if it is not there.

        Raises:
          UserError: if another command made the one that is there, or the command fails.
        """
        where = self.paths[name]
        record = where.with_suffix(".txt")  # what made it: names are shared by experiments
        wanted = " ".join([*self._commands[name], self._encoder])
        if (where / "vdit.json").exists():
            if not record.exists() or record.read_text() != wanted:
                raise UserError(f"{where} was not made by {wanted}; give another --out")
            return where
        for part in self._commands[name]:
            self.fill_in(part)
        where.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(wanted)
        arguments = self.command(name)
        print("$ python", *arguments, flush=True)
        status = run_command([sys.executable, *arguments])
        if status in (PREEMPTED, -signal.SIGTERM):  # the latter before it listens
            raise Stopped(f"stopped while the data set {name} was being made; the same command resumes")
        if status:
            raise UserError(f"the data set {name} could not be made: {' '.join(arguments)} ended with {status}")
        return where

    def fill_in(self, text: str) -> str:
        """A text with the folder of a data set, which is there then, for each {NAME}."""
        return re.sub(r"\{(\w+)\}", lambda found: str(self.path(found[1])), text)

    def is_made(self, text: str) -> bool:
        """Whether all data sets that a text names as {NAME} are there."""
        return all((self.paths[name] / "vdit.json").exists() for name in re.findall(r"\{(\w+)\}", text))

    def command(self, name: str) -> list[str]:
        """What makes a data set, after `python`."""
        module, *options = self._commands[name]
        named = any(option.startswith("--text_encoder=") for option in options)
        more = [f"--text_encoder={self._encoder}"] if module == "data_pipelines.build" and not named else []
        arguments = [option.format(**{n: str(path) for n, path in self.paths.items()}) for option in options]
        return ["-m", module, f"--out={self.paths[name]}", *arguments, *more]


def write_packing(out: Path, path: str, data: Any) -> None:
    """Writes how a data set's rows are filled, as `data_pipelines.inspect --json` says, if that is not there.

    Args:
      out: the file.
      path: of the data set; several are mixed.
      data: DataConfig of the runs that read it so.
    """
    if out.exists():
        return
    fields = ("row_tokens", "row_text", "row_examples", "rows_per_step", "max_frames")
    rows = [f"--{name}={getattr(data, name)}" for name in fields if getattr(data, name)]
    command = [sys.executable, "-m", "data_pipelines.inspect", path, "--json", *rows]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"data_pipelines.inspect {path} ended with {done.returncode}")
    out.write_text(done.stdout)


def run_command(command: list[str]) -> int:
    """Status of a command, to which requests to stop are passed on, so that it does not outlive this one."""
    with subprocess.Popen(command) as child, noted(child.terminate, insist=False):
        return child.wait()
