"""The heartbeat that a run leaves in its workdir, for `launch.status`."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import jax
from etils import epath

from vdit.io.files import is_remote, write_json
from vdit.io.storage.lock import check_writer

NAME = "heartbeat.json"


class Heartbeat:
    """Writes heartbeat.json from the first process, at most every few seconds.

    Args:
      workdir: the run's folder.
      steps: the run ends after this step.
    """

    def __init__(self, workdir: epath.Path, steps: int):
        self._path, self._steps = workdir / NAME, steps
        self._every = 30.0 if is_remote(workdir) else 2.0  # a bucket takes one write of an object a second at most
        self._last = -self._every
        self._loss: float | None = None
        self._mine = jax.process_index() == 0

    def beat(self, state: str, step: int, loss: float | None = None, **values: Any) -> None:
        """Says that the run is alive.

        Args:
          state: "training", "evaluating", "finished", "preempted"; every state but the first is written at once.
          step: steps taken.
          loss: of the last step, if known.
          **values: more to write.
        """
        self._loss = self._loss if loss is None else loss
        now = time.monotonic()
        if not self._mine or (state == "training" and now - self._last < self._every):
            return
        self._last = now
        check_writer(self._path.parent)
        values = {
            "time": time.time(),
            "state": state,
            "step": step,
            "steps": self._steps,
            "loss": self._loss,
            "devices": jax.device_count(),
            "device": jax.devices()[0].device_kind,
            "processes": jax.process_count(),
            "host": platform.node(),
            "pid": os.getpid(),
            **values,
        }
        write_json(self._path, values)
