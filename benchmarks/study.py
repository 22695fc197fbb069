"""What a study found and where its time went, from the files it left: `python -m benchmarks.study [STUDY] [--keep]`.

--keep writes what it found into README.md.
"""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import pages
from vdit.command.run import run_main
from vdit.errors import UserError
from vdit.training.record.account import training_seconds
from vdit.training.record.metrics import read_metrics


def account(study: Path) -> dict[str, Any]:
    """Wall time of the study, and the part of it that was training, by kind of run.

    Raises:
      UserError: if the folder holds no study that has finished a run.
    """
    results = sorted(study.glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime)
    if not results:
        raise UserError(f"{study} holds no finished run; make study writes one")
    started = datetime.datetime.fromisoformat(json.loads((study / "study.json").read_text())["started"]).timestamp()
    kinds: dict[str, float] = {}
    waits = []
    for run in sorted((study / "runs").iterdir()):
        rows = read_metrics(run)
        kind = run.name.split("-")[0]
        kinds[kind] = kinds.get(kind, 0.0) + training_seconds(rows)
        waits += [row["data_wait"] for row in rows[-1:]]
    training = sum(kinds.values())
    wall = (study / "report.html").stat().st_mtime - started
    samples = min(path.stat().st_mtime for path in (study / "samples").glob("*.mp4"))
    return {
        "wall_minutes": wall / 60,
        "training_minutes": training / 60,
        "training_share": training / wall,
        "minutes_to_first_samples": (samples - started) / 60,
        "training_minutes_by_kind": {kind: seconds / 60 for kind, seconds in kinds.items()},
        "largest_data_wait_share": max(waits),
        "finished_runs": len(results),
    }


COMMAND = "python -m benchmarks.study --keep"
VELOCITY = ("in", "slow", "fast", "small")
"""Velocity errors that are shown: in distribution, and apart by what is out of it."""
BASELINES = {"frozen": "*frozen ball*", "straight": "*straight line*", "floor": "*true clips*"}


def findings(study: Path) -> str:
    """Markdown: the best run of each budget beside what a velocity error is worth, and the prediction of the largest.

    Raises:
      UserError: if the study is not finished.
    """
    said = study / "prediction.json"
    if not said.exists():
        raise UserError(f"{study} has no prediction.json: it is not finished; make study resumes it")
    prediction = json.loads(said.read_text())
    with (study / "runs.csv").open() as file:
        everything = list(csv.DictReader(file))
    runs = [row for row in everything if row["kind"] in ("grid", "heldout")]
    glides = _best(runs)
    bounces = _best([row for row in everything if row["group"] == "bounce"])

    def errors(row: dict[str, str], of: str = "") -> list[str]:
        return [_number(row.get(f"velocity_{name}{of}", "")) for name in VELOCITY]

    rows = []
    for budget, row in sorted(glides.items()):
        bounce = bounces.get(budget, {})
        cells = [_power(budget), f"{float(row['params']):,.0f}", f"{float(row['loss']):.4f}", *errors(row)]
        cells += [_share(row["lost_in"]), _number(bounce.get("bounce_velocity_in", ""))]
        rows.append([*cells, _share(bounce.get("bounce_lost_in", ""))])
    largest, largest_bounce = glides[max(glides)], bounces[max(bounces)] if bounces else {}
    for of, name in BASELINES.items():
        bounce_error = _number(largest_bounce.get(f"bounce_velocity_in_{of}", ""))
        rows.append([name, "", "", *errors(largest, f"_{of}"), "", bounce_error, ""])
    head = ["training FLOPs", "N", "loss", "in distribution", "slower", "faster", "smaller", "lost", "bounces", "lost"]
    low, high = prediction["interval"]
    measured = float(next(row["loss"] for row in runs if row["run"] == prediction["run"]))
    off, carried = (prediction[name] / measured - 1 for name in ("predicted_loss", "baseline_loss"))
    text = (
        f"The held-out run of {_power(prediction['flops'])} FLOPs was predicted at {prediction['predicted_loss']:.5f} "
        f"({prediction['level']:.0%} interval {low:.5f} to {high:.5f}) before it was made, and came out at "
        f"{measured:.5f}: the prediction was {off:+.1%} off; carrying the last best loss forward is {carried:+.1%} off."
    )
    return "\n".join([pages.table(head, rows), "", "Errors of velocity in units/s.", text])


def _best(rows: list[dict[str, str]]) -> dict[float, dict[str, str]]:
    """The run of lowest loss of each budget."""
    best: dict[float, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: float(row["loss"])):
        best.setdefault(float(row["budget"]), row)
    return best


def _power(flops: float) -> str:
    return f"{flops:.0e}".replace("e+", "e")


def _number(text: str) -> str:
    return f"{float(text):.2f}" if text else ""


def _share(text: str) -> str:
    return f"{float(text):.0%}" if text else ""


def main(argv: list[str]) -> None:
    study = Path(argv[1] if len(argv) > 1 else "study")
    for name, value in account(study).items():
        print(f"{name:<28} {value if not isinstance(value, float) else format(value, '.3g')}")
    found = findings(study)
    print(found)
    if flags.FLAGS.keep:
        pages.put("../README.md", COMMAND, found)


if __name__ == "__main__":
    flags.DEFINE_bool("keep", False, "Write what the study found into README.md.")
    run_main(main)
