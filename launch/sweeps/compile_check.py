"""`--plan`: what `python -m vdit.plan` says of every run before anything is created."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from launch.sweeps.expand import Run, Sweep
from launch.sweeps.settings import Settings, require
from vdit.errors import UserError
from vdit.io.formatting import align

IRRELEVANT = ("seed", "train.", "optimizer.")
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
        flags = tuple(f for f in run.overrides if not f.removeprefix("--config.").startswith(IRRELEVANT))
        if flags not in found:
            found[flags] = planner_says(sweep.config, flags, topology, slices)
        answer = found[flags]
        rows.append(_row(run, answer, settings))
        if not answer["fits"]:
            too_large.append((run, answer))
    text = align(rows) + f"\n{_total(sweep, found, rows)}"
    if too_large:
        run, answer = too_large[0]
        more = f" (and {len(too_large) - 1} more)" if len(too_large) > 1 else ""
        print(text)
        raise UserError(
            f"run {run.id} ({run.label}) does not fit {topology}{more}: "
            f"{answer.get('problem') or 'too little memory'}; nothing was started"
        )
    return text


def planner_says(config: str, flags: tuple[str, ...], topology: str, slices: int) -> dict[str, Any]:
    """What `python -m vdit.plan` says, in a process of its own: it loads the TPU compiler.

    Raises:
      UserError: with its message, if it fails.
    """
    command = [sys.executable, "-m", "vdit.plan", f"--config={config}", *flags, f"--topology={topology}", "--json"]
    command += [f"--slices={slices}"] if slices > 1 else []
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it printed nothing"]
    answer = _json(done.stdout)
    if answer is None:
        raise UserError(f"vdit.plan failed: {lines[-1].removeprefix('error: ')}")
    return answer


def _json(text: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) and "fits" in answer else None


def _row(run: Run, answer: dict[str, Any], settings: Settings) -> tuple[str, ...]:
    seconds = answer.get("step_seconds")
    hours = None if seconds is None else seconds * run.config.train.steps / 3600
    list_price = answer.get("assumptions", {}).get("price") or 0.0  # what vdit.plan knows of
    price = (getattr(settings, "price_per_chip_hour", 0.0) or list_price) * getattr(settings, "chips", 1)
    return (
        run.id,
        _number(answer["hbm_gib_per_chip"], ".2f"),
        _number(answer["hbm_gib_limit"], ".2f"),
        _number(seconds, ".3g"),
        _number(answer.get("mfu"), ".1%"),
        _number(hours, ".2f"),
        _number(hours * price if price and hours is not None else None, ".2f"),
        run.label + ("" if answer["fits"] else "  DOES NOT FIT"),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _total(sweep: Sweep, found: dict[Any, Any], rows: list[tuple[str, ...]]) -> str:
    hours = sum(float(row[5] or 0) for row in rows[1:])
    costs = [float(row[6]) for row in rows[1:] if row[6]]
    cost = f", cost {sum(costs):.2f}" if costs else ""
    return f"{len(sweep.runs)} runs, {len(found)} compiled: {hours:.2f} h{cost}"
