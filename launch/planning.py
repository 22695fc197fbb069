"""`--plan`: what `python -m vdit.plan` says of every run before anything is created."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from launch.settings import Settings, require
from launch.sweeps import Run, Sweep
from vdit.config import UserError

DONT_MATTER = ("seed", "train.", "optimizer.")
"""Fields that change neither memory nor the time of a step: runs that differ in these only share a plan."""


def plan(sweep: Sweep, target: str, settings: Settings) -> str:
    """A table of HBM, step time and cost of every run.

    Raises:
      UserError: naming the first run that does not fit, or what `vdit.plan` complains of.
    """
    topology, slices = getattr(settings, "topology", None), getattr(settings, "slices", 1)
    if topology is None:
        raise UserError(f"--plan compiles for TPUs, so it does not go with --to={target}; leave it out")
    require(target, settings, "topology")
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    rows: list[tuple[str, ...]] = [("run", "HBM GiB", "of", "s/step", "MFU", "hours", "cost", "what")]
    too_large = []
    for run in sweep.runs:
        flags = tuple(f for f in run.overrides if not f.removeprefix("--config.").startswith(DONT_MATTER))
        if flags not in found:
            found[flags] = ask(sweep.config, flags, topology, slices)
        told = found[flags]
        rows.append(_row(run, told, settings))
        if not told["fits"]:
            too_large.append((run, told))
    text = _table(rows) + f"\n{_total(sweep, found, rows)}"
    if too_large:
        run, told = too_large[0]
        more = f" (and {len(too_large) - 1} more)" if len(too_large) > 1 else ""
        raise UserError(
            f"run {run.id} ({run.label}) does not fit {topology}: {told['hbm_gib_per_chip']:.1f} of "
            f"{told['hbm_gib_limit']:.1f} GiB{more}; nothing was started"
        )
    return text


def ask(config: str, flags: tuple[str, ...], topology: str, slices: int) -> dict[str, Any]:
    """What `python -m vdit.plan` says, in a process of its own: it loads the TPU compiler.

    Raises:
      UserError: with its message, if it fails.
    """
    command = [sys.executable, "-m", "vdit.plan", f"--config={config}", *flags, f"--topology={topology}", "--json"]
    command += [f"--slices={slices}"] if slices > 1 else []
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it printed nothing"]
    told = _json(done.stdout)
    if told is None:
        raise UserError(f"vdit.plan failed: {lines[-1].removeprefix('error: ')}")
    return told


def _json(text: str) -> dict[str, Any] | None:
    try:
        told = json.loads(text)
    except json.JSONDecodeError:
        return None
    return told if isinstance(told, dict) and "fits" in told else None


def _row(run: Run, told: dict[str, Any], settings: Settings) -> tuple[str, ...]:
    seconds = _middle(told.get("step_seconds"))
    hours = (seconds or 0) * run.config.train.steps / 3600
    price = getattr(settings, "price_per_chip_hour", 0.0) * getattr(settings, "chips", 1)
    return (
        run.id,
        f"{told['hbm_gib_per_chip']:.2f}",
        f"{told['hbm_gib_limit']:.2f}",
        "" if seconds is None else f"{seconds:.3g}",
        "" if _middle(told.get("mfu")) is None else f"{_middle(told['mfu']):.1%}",
        "" if seconds is None else f"{hours:.2f}",
        f"{hours * price:.2f}" if price and seconds is not None else "",
        run.label + ("" if told["fits"] else "  DOES NOT FIT"),
    )


def _middle(value: Any) -> float | None:
    """An estimate, or the middle of a low and a high one."""
    if isinstance(value, (list, tuple)):
        return sum(value) / len(value)
    return None if value is None else float(value)


def _total(sweep: Sweep, found: dict[Any, Any], rows: list[tuple[str, ...]]) -> str:
    hours = sum(float(row[5] or 0) for row in rows[1:])
    costs = [float(row[6]) for row in rows[1:] if row[6]]
    cost = f", cost {sum(costs):.2f}" if costs else ""
    return f"{len(sweep.runs)} runs, {len(found)} compiled: {hours:.2f} h{cost}"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)
