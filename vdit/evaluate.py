"""Evaluates a run: `python -m vdit.evaluate --workdir=W [--json]`."""

from __future__ import annotations

import json
from typing import Any

from absl import flags

from vdit.config import UserError, no_arguments, run_main

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
DATA = flags.DEFINE_string("data", None, "Data set, if it has moved since training.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate; default: the newest.")
CLIPS = flags.DEFINE_integer("clips", 64, "Clips a split that are generated for the physics error.")
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if WORKDIR.value is None:
        raise UserError("--workdir=W is needed: the folder of a run")
    from vdit.parallel.runtime import cpu_devices_for, initialise
    from vdit.training.workdir import check_dataset, read_config

    initialise(cpu_devices_for(read_config(WORKDIR.value)))
    import jax

    from data_pipelines.mixture import open_data
    from vdit.parallel.mesh import use_mesh
    from vdit.training.loop import evaluate_run
    from vdit.training.restore import generator_of, load_run

    run = load_run(WORKDIR.value, STEP.value, DATA.value)
    dataset = open_data(run.config.data)
    check_dataset(run.workdir, run.config.data.path, dataset.meta)
    with use_mesh(run.mesh):
        result: dict[str, Any] = {"step": run.position.step, **evaluate_run(run, dataset)}
    from vdit.evaluation.physics_task import has_truth, physics_errors

    for part in filter(has_truth, dataset.datasets):
        generator = generator_of(run)
        splits = [split for split in part.splits if split != run.config.data.split]
        result["physics_error"] = {split: physics_errors(generator, part, split, CLIPS.value) for split in splits}
    if jax.process_index() == 0:
        print(json.dumps(result) if JSON.value else table(result))


def table(values: dict[str, Any], indent: str = "") -> str:
    """A nested dictionary as indented lines."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", table(value, indent + "  ")]
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else value
            if isinstance(value, list):
                shown = "[" + ", ".join(f"{x:.4f}" for x in value) + "]"
            lines.append(f"{indent}{name:<24} {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
