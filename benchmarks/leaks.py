"""Memory that a save keeps for good, and whose it is: `python -m benchmarks.leaks [--keep]`; about a minute."""

from __future__ import annotations

import gc
import os
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from absl import flags

from benchmarks import pages
from vdit.command.run import no_arguments, run_main
from vdit.config import TrainConfig

NAME = "experimental_collect_matching_metrics"
ARRAYS = 48
"""Arrays of a state, about as many as those of the run that is soaked."""


def growth(function: Callable[[], Any], times: int) -> float:
    """KiB of resident memory that a call leaves behind, after a fifth as many to warm up."""
    for _ in range(times // 5):
        function()
    before = _resident()
    for _ in range(times):
        function()
    return (_resident() - before) / times


def _resident() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def measure(root: Path, saves: int) -> dict[str, float]:
    """KiB a save, and of it what tensorstore's metrics keep, for which Orbax asks with every save."""
    import jax.numpy as jnp
    import tensorstore

    from vdit.training.recovery.checkpoint import Checkpoints, Position

    state: Any = {f"array {i}": jnp.ones((16, 16)) for i in range(ARRAYS)}
    position = Position()
    with Checkpoints(root, TrainConfig()) as checkpoints:

        def save() -> None:
            position.step += 1
            checkpoints.save(state, position)
            checkpoints.wait()

        per_save = growth(save, saves)
        with mock.patch.object(tensorstore, NAME, wraps=getattr(tensorstore, NAME)) as counted:
            save()
    return {"save": per_save, "call": growth(getattr(tensorstore, NAME), 1_000), "calls": counted.call_count}


def page(found: dict[str, float]) -> str:
    """The figures in words, for docs/reliability.md."""
    metrics = found["calls"] * found["call"]
    return (
        f"`python -m benchmarks.leaks`: a save of {ARRAYS} arrays keeps {found['save']:.0f} KiB. Of it "
        f"{metrics:.0f} KiB are what {found['calls']:.0f} calls of tensorstore's `{NAME}` return "
        "and never free; whose the others are is not known."
    )


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    with tempfile.TemporaryDirectory() as root:
        text = page(measure(Path(root), values.saves))
    print(text)
    if values.keep:
        pages.put("reliability.md", "python -m benchmarks.leaks", f"\n{textwrap.fill(text, 120)}\n")


if __name__ == "__main__":
    flags.DEFINE_integer("saves", 100, "Saves that are measured.", lower_bound=10)
    flags.DEFINE_bool("keep", False, "Write it to docs/reliability.md.")
    run_main(main)
