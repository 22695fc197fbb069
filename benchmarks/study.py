"""Where a study's time went: `python -m benchmarks.study [STUDY]`, read from the files it left."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from vdit.command import run_main
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


def main(argv: list[str]) -> None:
    study = Path(argv[1] if len(argv) > 1 else "study")
    for name, value in account(study).items():
        print(f"{name:<28} {value if not isinstance(value, float) else format(value, '.3g')}")


if __name__ == "__main__":
    run_main(main)
