"""Memory that a save keeps for good, and whose it is: `python -m benchmarks.leaks [--keep]`; about a minute."""

from __future__ import annotations

import gc
import linecache
import os
import sys
import tempfile
import textwrap
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import pages
from vdit.command.run import no_arguments, run_main
from vdit.config import TrainConfig

JSON = ("to_json()", "experimental_collect_matching_metrics(")
"""What tensorstore is asked for in a line of code that gets JSON from it."""

ARRAYS = 48
"""Arrays of a state, about as many as those of the run that is soaked."""


def resident_growth(function: Callable[[], Any], times: int) -> float:
    """KiB of resident memory that a call leaves behind."""
    before = _resident()
    for _ in range(times):
        function()
    return (_resident() - before) / times


def _resident() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def python_growth(function: Callable[[], Any], times: int) -> tuple[float, float]:
    """KiB of Python objects that a call leaves behind, and of these what lines leave that take `JSON`."""
    tracemalloc.start()
    function()
    gc.collect()
    before = tracemalloc.take_snapshot()
    for _ in range(times):
        function()
    gc.collect()
    changes = tracemalloc.take_snapshot().compare_to(before, "lineno")
    tracemalloc.stop()
    kib = {change.traceback[0]: change.size_diff / 1024 / times for change in changes}
    json = [size for place, size in kib.items() if any(call in _call(place) for call in JSON)]
    return sum(kib.values()), sum(json)


def _call(place: tracemalloc.Frame) -> str:
    return linecache.getline(place.filename, place.lineno)


def owners_too_many() -> int:
    """References to a value of JSON from tensorstore, out of a dictionary that is gone, beyond the caller's own."""
    import tensorstore

    spec = tensorstore.KvStore.Spec({"driver": "ocdbt", "base": {"driver": "memory"}})
    theirs, ours = spec.to_json()["base"], {"base": dict(driver="memory")}.pop("base")
    return sys.getrefcount(theirs) - sys.getrefcount(ours)


def measure(root: Path, saves: int) -> dict[str, float]:
    """KiB a save."""
    import jax.numpy as jnp

    from vdit.parallel.runtime import initialise
    from vdit.training.recovery.checkpoint import Checkpoints, Position

    initialise(1, cache=False)
    state: Any = {f"array {i}": jnp.ones((16, 16)) for i in range(ARRAYS)}
    position = Position()
    with Checkpoints(root, TrainConfig()) as checkpoints:

        def save() -> None:
            position.step += 1
            checkpoints.save(state, position)
            checkpoints.wait()

        for _ in range(saves // 5):  # to warm up
            save()
        resident = resident_growth(save, saves)
        python, json = python_growth(save, saves // 5)
    return {"saves": saves, "resident": resident, "python": python, "json": json, "owners": owners_too_many()}


def page(found: dict[str, float]) -> str:
    """The figures in words, for docs/reliability.md."""
    return (
        f"`python -m benchmarks.leaks --saves={found['saves']}`: resident memory grew by {found['resident']:.0f} KiB a "
        f"save of {ARRAYS} arrays. Of it {found['python']:.0f} KiB are Python objects, and of these "
        f"{found['json']:.0f} are values of JSON that tensorstore {metadata.version('tensorstore')} returns with "
        f"{found['owners']} owner too many, so that they are never freed: Orbax asks for such once for each array and "
        "twice for each save."
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
