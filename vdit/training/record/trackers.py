"""Where curves and pictures of a run can be looked at: TensorBoard files, Weights & Biases, Trackio."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from vdit.config import Config
from vdit.errors import UserError
from vdit.io.files import is_remote
from vdit.training.record.identity import plain, run_id

PROJECT = "vdit"
"""Of Weights & Biases and Trackio, unless WANDB_PROJECT or TRACKIO_PROJECT names another."""


INSTALL = {"wandb": "'vdit[wandb]'", "trackio": "trackio"}


class Tracker(Protocol):
    """What a run tells of itself while it trains, for looking; its record is metrics.jsonl."""

    def missing(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Those of some values of an earlier attempt that did not arrive, as it was killed."""
        ...

    def scalars(self, step: int, values: Mapping[str, float], when: float) -> None:
        """Numbers by tag, and the Unix time at which they were found."""
        ...

    def image(self, step: int, tag: str, image_YXC: np.ndarray) -> None:
        """A uint8 picture."""
        ...

    def close(self) -> None: ...


def open_trackers(config: Config, workdir: epath.Path, step: int) -> list[Tracker]:
    """The trackers that config.train.tracker names, for a run that resumes from a step.

    Raises:
      UserError: if one is not installed or cannot be reached.
    """
    return [TRACKERS[name](config, workdir, step) for name in config.train.trackers]


class TensorBoard:
    """Event files in the workdir's tensorboard/."""

    def __init__(self, config: Config, workdir: epath.Path, step: int) -> None:
        del config
        folder = workdir / "tensorboard"
        self._newest, self._tags = newest_point(folder, step)
        # Points of later steps, of an attempt that was stopped, are no longer shown.
        name = f".{time.time_ns()}"  # the name's own seconds are the same for attempts that follow one another at once
        self._writer = SummaryWriter(os.fspath(folder), purge_step=step + 1, flush_secs=30, filename_suffix=name)

    def missing(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        return {
            tag: value
            for tag, value in values.items()
            if step > self._newest or (step == self._newest and tag not in self._tags)
        }

    def scalars(self, step: int, values: Mapping[str, float], when: float) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step, walltime=when)

    def image(self, step: int, tag: str, image_YXC: np.ndarray) -> None:
        self._writer.add_image(tag, image_YXC, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def newest_point(folder: epath.Path, last: int) -> tuple[int, set[str]]:
    """The newest step up to `last` of which event files hold scalars, and their tags at it; (-1, none) without any."""
    points: list[tuple[int, set[str]]] = []
    for path in sorted(folder.glob("events.out.tfevents*")) if folder.exists() else []:
        for event in _events(path.read_bytes()):
            if event.session_log.status == SessionLog.START:  # of an attempt: what is later is shown no more
                points = [point for point in points if point[0] < event.step]
            elif tags := {value.tag for value in event.summary.value if value.HasField("simple_value")}:
                if points and points[-1][0] == event.step:
                    points[-1][1].update(tags)
                else:
                    points.append((event.step, tags))
    return max((point for point in points if point[0] <= last), key=lambda point: point[0], default=(-1, set()))


def _events(data: bytes) -> Iterator[Event]:
    """The whole events of a file; the last may be cut off where a process was killed."""
    while len(data) >= 12:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(data[:8], "little")
        if len(data) < 16 + size:
            return
        yield Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]


class Hosted:
    """Weights & Biases, or Trackio, whose interface is the same. What an account needs stands in their environment.

    A run is found again by the name of its workdir and its config, so that a resumed one continues its curves. Steps
    that are made again after a kill are not changed there: neither takes a value for an earlier step.
    """

    def __init__(self, package: str, config: Config, workdir: epath.Path) -> None:
        try:
            self._api = importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"--tracker={package} needs a package ({error}): pip install {INSTALL[package]}") from error
        name = re.sub(r"[^\w.-]", "_", workdir.name)
        values: dict[str, Any] = {
            "project": os.environ.get(f"{package.upper()}_PROJECT") or PROJECT,
            "name": name,
            "config": plain(config),
            "resume": "allow",
        }
        if package == "wandb":
            # Its wrapped stdout would come between a run and its terminal.
            settings = self._api.Settings(console="off", silent=True)
            values |= {"id": f"{name}-{run_id(config)}", "settings": settings}
            if not is_remote(workdir):
                values["dir"] = os.fspath(workdir)
        else:
            values["name"] = f"{name}-{run_id(config)}"
        try:
            self._api.init(**values)
        except Exception as error:  # each has errors of its own, and those of the network
            reason = " ".join(str(error).split()) or type(error).__name__
            offline = "; WANDB_MODE=offline keeps it on this machine" if package == "wandb" else ""
            raise UserError(f"--tracker={package} cannot start: {reason}{offline}") from error

    def missing(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        return {}

    def scalars(self, step: int, values: Mapping[str, float], when: float) -> None:
        self._api.log(dict(values), step=step)

    def image(self, step: int, tag: str, image_YXC: np.ndarray) -> None:
        self._api.log({tag: self._api.Image(image_YXC)}, step=step)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionError):  # its process ended first, by Ctrl-C, say
            self._api.finish()


TRACKERS: dict[str, Callable[[Config, epath.Path, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": lambda config, workdir, step: Hosted("wandb", config, workdir),
    "trackio": lambda config, workdir, step: Hosted("trackio", config, workdir),
}
