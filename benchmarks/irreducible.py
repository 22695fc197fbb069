"""The loss that no model of the gliding ball can go below, by the simulator, and the law's E beside it.

`python -m benchmarks.irreducible study/data/balls [--law=study/runs.csv] [--keep]`

What is unknown of a clip once its first frames are given is its place, velocity and radius, as far as pixels round
them: five numbers theta. With video(theta) as the simulator draws it, J its derivative, and frames g given, r to come,
the posterior of theta at time t has the precision

    J_g^T J_g / q^2 + ((1 - t) / t)^2 J_r^T J_r,    q^2 = (1/127.5)^2 / 12, the variance of rounding to a pixel,

and the least loss is the trace of J_r Sigma J_r^T over the numbers of r and t^2, E[Var(x_0 | x_t, given)] / t^2.
The posterior is narrow, so this expansion about the truth is close. It would not be for text alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks import pages
from vdit.command.run import run_main
from vdit.errors import UserError

COMMAND = "python -m benchmarks.irreducible study/data/balls --law=study/runs.csv --keep"
ROUNDING = 1 / 127.5 / 12**0.5
"""Standard deviation of what rounding to a pixel leaves open, at the model's scale."""
STEP = 0.01
"""Of the central differences, pixels."""


def video(theta_5: np.ndarray, frames: int, height: int, width: int, colour_3: np.ndarray) -> np.ndarray:
    """The clip of a ball at the model's scale, unrounded: video_TYX3.

    Args:
      theta_5: x, y at the first frame, their change a frame, and radius, all in pixels.
      frames, height, width: of the clip.
      colour_3: of the ball.
    """
    from data_pipelines.sources.physics.render import coverage

    place_T12 = (theta_5[:2] + np.arange(frames)[:, None] * theta_5[2:4])[:, None]
    cover_TYX = coverage(place_T12, theta_5[4:], height, width)[:, 0].astype(np.float64)
    return cover_TYX[..., None] * (colour_3.astype(np.float64) - 255) / 127.5


def derivative(theta_5: np.ndarray, *about: Any) -> np.ndarray:
    """D video / d theta by central differences, J_T..5 with the numbers of a frame flattened: (T, numbers, 5)."""
    columns = []
    for step_5 in STEP * np.eye(5):
        change = video(theta_5 + step_5, *about) - video(theta_5 - step_5, *about)
        columns.append(change.reshape(len(change), -1) / (2 * STEP))
    return np.stack(columns, -1)


def least_loss(j_TP5: np.ndarray, given: int, time: float, least_time: float) -> float:
    """The loss of the best possible prediction at a time, averaged over the frames that are not given.

    Args:
      j_TP5: see `derivative`.
      given: frames that are given.
      time: diffusion time of the others.
      least_time: the smallest divisor of a velocity, see `vdit.config.DiffusionConfig`.
    """
    seen, rest = (part.reshape(-1, 5) for part in (j_TP5[:given], j_TP5[given:]))
    precision_55 = seen.T @ seen / ROUNDING**2 + ((1 - time) / time) ** 2 * rest.T @ rest
    information_55 = rest.T @ rest
    return float(np.trace(np.linalg.solve(precision_55, information_55)) / len(rest) / max(time, least_time) ** 2)


def measure(data: Path, clips: int) -> dict[str, Any]:
    """The least validation loss with its 95% interval over clips, and the same by quantile of time.

    Raises:
      UserError: for clips that are not of one gliding ball.
    """
    from configs import balls
    from data_pipelines.reading.store import Dataset
    from vdit.config import Config
    from vdit.config_dict import build
    from vdit.diffusion.corruption import times_of
    from vdit.evaluation.balls.physics_task import GIVEN_GROUPS, physics_clips
    from vdit.evaluation.intervals import bootstrap_mean
    from vdit.evaluation.validation import QUANTILES

    dataset, diffusion = Dataset(data), build(balls.recipe(), Config).diffusion
    given = dataset.patch.frames(GIVEN_GROUPS)
    losses, weights = [], []
    for i in physics_clips(dataset, "val", clips):
        clip = dataset.example("val", i)
        if str(np.asarray(clip["kind"]).astype(str)) != "uniform":
            raise UserError(f"{data} has clips of {clip['kind']!s}; build it with --source=physics --world=uniform")
        frames, height, width, _ = clip["video"].shape
        scale, fps = float(clip["pixels_per_unit"]), float(clip["fps"])
        place_2 = np.asarray(clip["positions"]).reshape(frames, 2)[0] * scale
        move_2 = np.asarray(clip["velocities"]).reshape(frames, 2)[0] * scale / fps
        theta_5 = np.concatenate([place_2, move_2, np.asarray(clip["radii"]) * scale]).astype(np.float64)
        j_TP5 = derivative(theta_5, frames, height, width, np.asarray(clip["colours"]).reshape(3))
        grid_3 = np.array(dataset.patch.grid(*clip["video"].shape[:3]))
        times = [float(times_of(np.float32(q), grid_3, diffusion, True)) for q in QUANTILES]
        losses.append([least_loss(j_TP5, given, time, diffusion.least_time) for time in times])
        weights.append(int(grid_3.prod() - GIVEN_GROUPS * grid_3[1:].prod()))
    loss_CQ, weight_C = np.array(losses), np.array(weights)
    mean = bootstrap_mean(loss_CQ.mean(1) * weight_C, weight_C)
    by_time = (loss_CQ * weight_C[:, None]).sum(0) / weight_C.sum()
    return {
        "loss": mean.mean,
        "interval": list(mean.interval),
        "by_time_quantile": dict(zip(map(str, QUANTILES), by_time.tolist(), strict=True)),
        "clips": len(losses),
    }


def laws(runs: Path, least: float) -> list[list[str]]:
    """Rows of a table: what the law of a study's grid says with E fitted, and with E known."""
    from vdit.scaling.laws.approaches.parametric import Form, fit_law
    from vdit.scaling.laws.checks.extrapolate import judge
    from vdit.scaling.runs import read_csv, table

    rows = read_csv(runs)
    grid, held_out = (table([row for row in rows if row["kind"] == kind], kind) for kind in ("grid", "heldout"))
    lines = []
    for name, form in (("fitted", Form()), ("known", Form(floor=least))):
        fit = fit_law(grid.params, grid.tokens, grid.loss, flops=grid.flops, form=form)
        (said,) = judge(fit, grid, held_out)
        law = fit.law
        cells = [f"{law.E:.2g}", f"{law.alpha:.3f}", f"{law.beta:.3f}", f"{law.exponent(fit.cost):.3f}"]
        lines.append([f"E {name}", *cells, f"{said['error']:+.1%}"])
    return lines


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError(f"give the folder of the data: {COMMAND}")
    found = measure(Path(argv[1]), flags.FLAGS.clips)
    if flags.FLAGS.json:
        print(json.dumps(found))
        return
    low, high = found["interval"]
    quantiles = found["by_time_quantile"]
    span = f"(95% interval {low:.2g} to {high:.2g})"
    text = [
        f"Least validation loss over {found['clips']} clips: {found['loss']:.2g} {span}.",
        "",
        pages.table([f"quantile {q}" for q in quantiles], [[f"{loss:.2g}" for loss in quantiles.values()]]),
    ]
    if flags.FLAGS.law:
        head = ["law", "E", "α", "β", "N_opt exponent", "error of the held-out loss"]
        text += ["", pages.table(head, laws(Path(flags.FLAGS.law), found["loss"]))]
    print("\n".join(text))
    if flags.FLAGS.keep:
        pages.put("study.md", COMMAND, "\n".join(text))


if __name__ == "__main__":
    flags.DEFINE_integer("clips", 256, "Validation clips that are measured.", lower_bound=1)
    flags.DEFINE_string("law", "", "runs.csv of a study on these clips, whose law is fitted with and without E known.")
    flags.DEFINE_bool("keep", False, "Write the tables into docs/study.md.")
    flags.DEFINE_bool("json", False, "Print JSON.")
    run_main(main)
