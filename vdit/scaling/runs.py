"""Finished runs: runs.csv, which any notebook can read, and the RUNS_DIR that a study fills."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vdit.config import Config
from vdit.errors import UserError
from vdit.flops import flops_6nd
from vdit.io.files import whole_file
from vdit.scaling.reading import Run, read_runs

NEEDED = ("flops", "params", "loss")
# Order of the columns in runs.csv: what identifies a run, what it cost, what it reached. Others follow by name.
COLUMNS = (
    "run,kind,budget,seed,width,depth,heads,learning_rate,params,params_total,tokens,text_tokens,unique_tokens,repeated_tokens,epochs,"
    "examples,unique_examples,seconds_of_video,flops,flops_6nd,steps,loss,loss_low,loss_high,loss_ood,velocity_in,"
    "velocity_in_low,velocity_in_high,velocity_out,velocity_out_low,velocity_out_high,"
    "train_seconds,seconds,accelerator_hours,tflops"
).split(",")
_ACCOUNT = (
    "unique_tokens,unique_examples,repeated_tokens,epochs,seconds_of_video,train_seconds,accelerator_hours,tflops"
).split(",")


@dataclasses.dataclass(frozen=True)
class Table:
    """Runs as arrays, each of length R.

    Attributes:
      flops, params, tokens, loss: C, N, D and the final loss.
      budgets: nominal budgets, nan where unknown.
      names: of the runs.
      derived_tokens: True if D was computed as C / 6 N because there was no tokens column.
    """

    flops: np.ndarray
    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    budgets: np.ndarray
    names: tuple[str, ...]
    derived_tokens: bool = False

    def __len__(self) -> int:
        return len(self.loss)

    def pick(self, rows: np.ndarray) -> Table:
        """The runs of an index or boolean array."""
        rows = np.arange(len(self))[rows]
        c, n, d, loss, budgets = (a[rows] for a in (self.flops, self.params, self.tokens, self.loss, self.budgets))
        return Table(c, n, d, loss, budgets, tuple(self.names[i] for i in rows), self.derived_tokens)

    def without_highest(self, count: int) -> np.ndarray:
        """Indices of all but the `count` runs of highest loss, in their old order."""
        return np.sort(np.argsort(self.loss, kind="stable")[: len(self) - count])

    def by_6nd(self) -> Table:
        """The same runs with C = 6 N D."""
        return dataclasses.replace(self, flops=6 * self.params * self.tokens)

    @property
    def convention(self) -> str:
        """How FLOPs relate to 6 N D, in words."""
        if self.derived_tokens:
            return "tokens = flops / (6 params), so C = 6 N D by construction"
        ratio = self.flops / (6 * self.params * self.tokens)
        if np.all(np.abs(ratio - 1) < 0.01):
            return "C = 6 N D"
        return f"C counted, {ratio.min():.2f} to {ratio.max():.2f} times 6 N D"


def table(runs: Iterable[Run], where: str = "runs") -> Table:
    """Arrays of C, N, D and loss.

    Args:
      runs: with the keys flops, params, loss and perhaps tokens, budget and run.
      where: names the source in errors.

    Raises:
      UserError: naming the run and column of a missing, non-numeric, infinite or non-positive value.
    """
    runs = list(runs)
    derived = not any(_known(run.get("tokens")) for run in runs)
    columns: dict[str, list[float]] = {name: [] for name in (*NEEDED, "tokens", "budget")}
    for row, run in enumerate(runs):
        place = f"{where}: run {run.get('run') or row + 1}"
        for name in NEEDED:
            columns[name].append(_positive(run.get(name), name, place))
        if derived:
            columns["tokens"].append(columns["flops"][-1] / (6 * columns["params"][-1]))
        else:
            columns["tokens"].append(_positive(run.get("tokens"), "tokens", place))
        columns["budget"].append(float(run["budget"]) if _known(run.get("budget")) else math.nan)
    names = tuple(str(run.get("run") or row + 1) for row, run in enumerate(runs))
    c, n, d, loss, budgets = (np.array(columns[key]) for key in ("flops", "params", "tokens", "loss", "budget"))
    return Table(c, n, d, loss, budgets, names, derived)


def read_csv(path: str | Path) -> list[Run]:
    """Runs of a file, as `reading.read_runs` understands it; numbers are parsed, empty cells left out.

    Raises:
      UserError: if it is not there, or lacks one of the columns flops, params, loss.
    """
    return read_runs(path).runs


def write_csv(path: str | Path, runs: Iterable[Run]) -> None:
    """Writes runs.csv, replacing it whole; columns in the order of `COLUMNS`, further ones by name."""
    runs = list(runs)
    extra = sorted({name for run in runs for name in run} - set(COLUMNS))
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *extra], lineterminator="\n")
        writer.writeheader()
        writer.writerows(runs)


def result_row(config: Config, result: Mapping[str, Any]) -> dict[str, Any]:
    """The account of a finished run, as in its result.json.

    Args:
      config: of the run.
      result: what `training.loop.train` returned.
    """
    validation = result.get("validation", {})
    return {
        "kind": kind_of(config),
        "seed": config.seed,
        "learning_rate": config.optimizer.learning_rate,
        **_shape(config),
        "params": result["params"],
        "params_total": result["params_total"],
        "tokens": result["patches"],
        "text_tokens": result["text"],
        "examples": result["examples"],
        "flops": result["flops"],
        "flops_6nd": float(flops_6nd(result["params"], result["patches"])),
        "steps": result["step"],
        "train_seconds": result["seconds"],  # of the last attempt, unless the account below counts all
        **{name: result[name] for name in _ACCOUNT if name in result},
        "loss": validation.get("loss"),
        "loss_interval": validation.get("loss_interval"),
        "loss_ood": validation["ood"]["loss"] if "ood" in validation else None,
        "validation": validation,
        "data_wait": result["data_wait"],
    }


def kind_of(config: Config) -> str:
    """What a run is to a law: "grid"; or "trunk", from which others branch and which is itself not cooled down."""
    if config.task != "diffusion":
        return config.task
    return "trunk" if config.train.keep_steps and not config.optimizer.cooldown else "grid"


def _shape(config: Config) -> dict[str, int]:
    if config.task == "autoencoder":
        return {"width": config.autoencoder.width}
    return {"width": config.model.width, "depth": config.model.depth, "heads": config.model.heads}


def flatten(result: Mapping[str, Any]) -> Run:
    """One result.json as a row of runs.csv: {"x": {"mean": m, "interval": [l, h]}} becomes x, x_low, x_high."""
    run: Run = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(name if key == "mean" else f"{name}_{key}" if name else key, inner)
        elif name.endswith("_interval") and isinstance(value, (list, tuple)) and len(value) == 2:
            stem = name.removesuffix("_interval")
            run[f"{stem}_low"], run[f"{stem}_high"] = value
        elif isinstance(value, (str, int, float, bool)):
            run[name] = value

    add("", result)
    return run


@dataclasses.dataclass(frozen=True)
class Study:
    """What a RUNS_DIR holds so far; everything may be missing.

    Attributes:
      path: RUNS_DIR.
      about: study.json.
      runs: flattened result.json of each finished run, by kind, then cost.
      curves: training curve of each run that has one, name -> lines of metrics.jsonl.
      data: name of a data set -> what `data_pipelines.inspect --json` said.
      prediction: prediction.json, written before the held-out run.
      samples: entries of samples.json.
      floor: floor.json, the physics error of ground truth.
      unreadable: files that are damaged or half written, for the report to name.
    """

    path: Path
    about: dict[str, Any]
    runs: tuple[Run, ...]
    curves: dict[str, list[dict[str, Any]]]
    data: dict[str, dict[str, Any]]
    prediction: dict[str, Any]
    samples: tuple[dict[str, Any], ...]
    floor: dict[str, Any]
    unreadable: tuple[str, ...] = ()

    def of_kind(self, *kinds: str) -> list[Run]:
        """Runs of these kinds that can be fitted: with positive flops, params, tokens and loss."""
        whole = ("flops", "params", "tokens", "loss")
        return [r for r in self.runs if r.get("kind") in kinds and all(_is_positive(r.get(name)) for name in whole)]


def gather(path: str | Path) -> Study:
    """Reads a RUNS_DIR at any stage of a study.

    Raises:
      UserError: if the directory does not exist.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a directory; give the RUNS_DIR of a study (`make study` writes study)")
    unreadable: list[str] = []

    def read(file: Path, kind: type) -> Any:
        if not file.is_file():
            return kind()
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(content, kind):
                return content
        except (OSError, ValueError, RecursionError):
            pass
        unreadable.append(str(file.relative_to(path)))
        return kind()

    about = read(path / "study.json", dict)
    results = [(file.parent.name, read(file, dict)) for file in sorted(path.glob("runs/*/result.json"))]
    runs = [_with_budget({"run": name, **flatten(result)}, about) for name, result in results if result]
    runs.sort(
        key=lambda run: (
            str(run.get("kind", "")),
            *map(_number, (run.get("budget", run.get("flops")), run.get("params"))),
        )
    )
    return Study(
        path=path,
        about=about,
        runs=tuple(runs),
        curves={file.parent.name: _read_lines(file) for file in sorted(path.glob("runs/*/metrics.jsonl"))},
        data={file.stem: found for file in sorted(path.glob("data/*.json")) if (found := read(file, dict))},
        prediction=read(path / "prediction.json", dict),
        samples=tuple(s for s in read(path / "samples" / "samples.json", list) if isinstance(s, dict)),
        floor=read(path / "floor.json", dict),
        unreadable=tuple(unreadable),
    )


def _with_budget(run: Run, about: Mapping[str, Any]) -> Run:
    """Adds the nominal budget of study.json nearest to a grid run's FLOPs, if one is within a factor 1.25."""
    budgets = [float(b) for b in about.get("budgets") or [] if _is_positive(b)]
    if run.get("kind") == "grid" and "budget" not in run and budgets and _is_positive(run.get("flops")):
        nearest = min(budgets, key=lambda b: abs(math.log(b / run["flops"])))
        if abs(math.log(nearest / run["flops"])) < math.log(1.25):
            run["budget"] = nearest
    return run


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a jsonl file; a run may be writing the last one."""
    lines = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            lines.append(content)
    return lines


def _known(value: Any) -> bool:
    return value is not None and value != "" and value == value


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and value == value else 0.0


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def _positive(value: Any, name: str, place: str) -> float:
    if not _is_positive(value):
        shown = "missing" if not _known(value) else repr(value)
        raise UserError(f"{place}: {name} is {shown}; it must be a positive number, or leave the run out")
    return float(value)
