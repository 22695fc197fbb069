"""What a train step reaches on this machine: `python -m benchmarks.step [--data=DIR] [--json]`.

Model FLOPs (counted from the segments of real packed rows, no padding, no recomputation) per second, over the rate of a
plain float32 matrix product on the same devices, measured in turn with the steps: the machine's noise hits both. Beside
it the share of the step's time that its parts take when run alone.

`--since=COMMIT` compares instead the steps of the study's recipe (configs/balls.py) with those of an older commit, by
processor time, which other work on the machine disturbs less: each in a process of its own, by turns, the least of all
rounds. The last column is the loss after 20 steps, which is to stay the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from vdit.command.run import run_main
from vdit.config import Config, DataConfig, ModelConfig
from vdit.errors import UserError

DATA = flags.DEFINE_string("data", "study/data/balls", "Data set of balls, as `make study` builds it.")
SIZES = flags.DEFINE_list("sizes", None, "WIDTHxDEPTH of the models; default: those of the study, and 512x4.")
ROW_TOKENS = flags.DEFINE_integer("row_tokens", 512, "Slots of a row; two rows a step. The study's balls have 512.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements, of which the median is printed.")
SINCE = flags.DEFINE_string("since", "", "Commit with whose steps those of this tree are compared.")
RECIPE = flags.DEFINE_bool("recipe", False, "Print as JSON what --since compares, for one tree.")
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


def seconds(function: Callable[[], Any], least: float = 0.3) -> float:
    """Seconds of one call, over as many calls as take `least` seconds."""
    import jax

    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < least:
        result = function()
        calls += 1
        jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def measure(width: int, depth: int, rounds: int, data: str) -> dict[str, Any]:
    """Rates and shares of one model size; medians over `rounds`, ratios taken within each round."""
    import jax

    from data_pipelines.reading import pipeline
    from data_pipelines.reading.store import Dataset
    from vdit import flops
    from vdit.data import interface_of
    from vdit.diffusion.corruption import corrupt_batch
    from vdit.diffusion.loss import train_loss
    from vdit.models.attention.attention import attention
    from vdit.models.transformer import parameter_counts
    from vdit.parallel.mesh import make_mesh, to_global, use_mesh
    from vdit.parallel.peak import product_rate
    from vdit.training.step import init_state, make_train_step

    head_width = next(head for head in (64 if width >= 512 else 32, 24, width) if width % head == 0)
    config = Config(
        data=DataConfig(path=data, row_tokens=ROW_TOKENS.value, row_text=ROW_TOKENS.value // 4),
        model=ModelConfig(width=width, depth=depth, head_width=head_width),
    )
    dataset = Dataset(data)
    interface = interface_of(dataset.meta)
    mesh = make_mesh(config.mesh)
    with use_mesh(mesh):
        local = next(pipeline.rows(dataset, config.data, dataset.patch, 0))
        batch = to_global(local, mesh)
        graph, state = init_state(config, interface)
        body, total = parameter_counts(state.params)
        shape = flops.shape_of(config.model, interface.patch, interface.text)
        work = flops.batch_training_flops(shape, local.segments_BL, local.text_index_BL)
        step = make_train_step(graph, config)
        key = jax.random.key(0)
        ask = jax.jit(lambda batch: corrupt_batch(batch, key, config.diffusion))
        forward = jax.jit(lambda params, batch: train_loss(graph, params, batch, key, config))
        qkv = jax.random.normal(key, (*local.segments_BL.shape, config.model.heads, head_width))
        q = jax.device_put(qkv, jax.sharding.NamedSharding(mesh, jax.P(jax.typeof(batch.segments_BL).sharding.spec[0])))
        attend = jax.jit(jax.grad(lambda q, s: (attention(q, q, q, s, backend="chunked") ** 2).sum()))

        def one_step() -> Any:
            nonlocal state
            state, metrics = step(state, batch, np.float32(1e-3))
            return metrics

        parts = {
            "step": one_step,
            "noise and targets": lambda: ask(batch),
            "forward": lambda: forward(state.params, batch),
            "attention": lambda: attend(q, batch.segments_BL),
        }
        for part in parts.values():
            jax.block_until_ready(part())
        rate = product_rate()
        rows = [{"matmul": rate(), **{name: seconds(part) for name, part in parts.items()}} for _ in range(rounds)]
    share = [work / row["step"] / row["matmul"] for row in rows]
    return {
        "width": width,
        "depth": depth,
        "params": body,
        "params_total": total,
        "gflop_per_step": work / 1e9,
        "gflops": float(np.median([work / row["step"] / 1e9 for row in rows])),
        "matmul_gflops": float(np.median([row["matmul"] / 1e9 for row in rows])),
        "share_of_matmul_rate": float(np.median(share)),
        "share_range": [float(min(share)), float(max(share))],
        "time_shares": {
            "noise and targets": float(np.median([row["noise and targets"] / row["step"] for row in rows])),
            "forward without noise": float(
                np.median([(row["forward"] - row["noise and targets"]) / row["step"] for row in rows])
            ),
            "attention, both passes": float(np.median([depth * row["attention"] / row["step"] for row in rows])),
        },
    }


def recipe_step(width: int, depth: int, data: str) -> dict[str, float]:
    """Processor seconds of a step of the study's recipe (least of the rounds), its GFLOP, the loss after 20 steps."""
    import jax

    from configs import balls
    from data_pipelines.reading import pipeline
    from data_pipelines.reading.store import Dataset
    from launch.sweeps.grid import size
    from vdit import flops
    from vdit.config_dict import build
    from vdit.data import interface_of
    from vdit.parallel.mesh import make_mesh, to_global, use_mesh
    from vdit.training.step import init_state, make_train_step

    values: dict[str, Any] = balls.recipe()
    model = {name.removeprefix("model."): value for name, value in size(width, depth).items()}
    diffusion = {**values["diffusion"], "input_std": 0.25, "mean": (0.95,) * 3}
    config = build({**values, "data": {**values["data"], "path": data}, "model": model, "diffusion": diffusion}, Config)
    dataset = Dataset(data)
    interface, mesh = interface_of(dataset.meta), make_mesh(config.mesh)
    rows = pipeline.rows(dataset, config.data, dataset.patch, 0)
    local = [next(rows) for _ in range(20)]
    shape = flops.shape_of(config.model, interface.patch, interface.text)
    work = np.mean([flops.batch_training_flops(shape, batch.segments_BL, batch.text_index_BL) for batch in local])
    with use_mesh(mesh):
        graph, state = init_state(config, interface)
        step, batches = make_train_step(graph, config), [to_global(batch, mesh) for batch in local]
        took = []
        for number in range(1 + ROUNDS.value):
            start = time.process_time()
            for batch in batches:
                state, metrics = step(state, batch, np.float32(1e-3))
            jax.block_until_ready(state)
            took.append((time.process_time() - start) / len(batches))
            if not number:
                loss = float(metrics["loss"])
    return {"seconds": min(took[1:]), "gflop": float(work) / 1e9, "loss": loss}


def compare(sizes: list[tuple[int, int]]) -> None:
    """Prints the steps of an older commit and of this tree."""
    here = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            ["git", "worktree", "add", "--detach", folder, SINCE.value], cwd=here.parent, capture_output=True, text=True
        )
        if made.returncode:
            raise UserError(f"--since={SINCE.value}: {made.stderr.strip().splitlines()[-1]}")
        try:
            for width, depth in sizes:
                _compare_size(width, depth, {"before": folder, "after": str(here.parents[1])})
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=here.parent, check=True)


def _compare_size(width: int, depth: int, trees: dict[str, str]) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for _ in range(2):  # by turns
        for name, tree in trees.items():
            options = f"--sizes={width}x{depth}", f"--rounds={ROUNDS.value}", f"--data={Path(DATA.value).absolute()}"
            done = subprocess.run(
                [sys.executable, "-P", __file__, "--recipe", *options],
                env={**os.environ, "PYTHONPATH": tree},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise UserError(f"the step {name} fails: {done.stderr.strip().splitlines()[-1]}")
            found[name] += json.loads(done.stdout)
    least = {name: min(rows, key=lambda row: row["seconds"]) for name, rows in found.items()}
    for name, row in least.items():
        print(
            f"width {width:4} depth {depth:2} {name:6}  {1e3 * row['seconds']:7.2f} ms of processor time  "
            f"{row['gflop'] / row['seconds']:6.1f} GFLOP/s  loss {row['loss']:.9f}"
        )
    print(f"{'':24}{least['before']['seconds'] / least['after']['seconds']:.2f} times as fast", flush=True)


def _size(text: str) -> tuple[int, int]:
    width, _, depth = text.partition("x")
    if not (width.isdecimal() and depth.isdecimal()):
        raise UserError(f"--sizes={text} is not WIDTHxDEPTH, such as 64x2")
    return int(width), int(depth)


def main(argv: list[str]) -> None:
    del argv
    from vdit.parallel.runtime import cpu_devices_for, initialise

    initialise(cpu_devices_for(Config()))
    from configs.study import SIZES as OF_STUDY

    of_study = [(size["model.width"], size["model.depth"]) for size in OF_STUDY.values()]
    sizes = [_size(size) for size in SIZES.value or []] or [*of_study, (512, 4)]
    if SINCE.value:
        compare(sizes)
        return
    if RECIPE.value:
        print(json.dumps([recipe_step(width, depth, DATA.value) for width, depth in sizes]))
        return
    rows = []
    for width, depth in sizes:
        row = measure(width, depth, ROUNDS.value, DATA.value)
        rows.append(row)
        if not JSON.value:
            parts = ", ".join(f"{name} {share:.0%}" for name, share in row["time_shares"].items())
            print(
                f"width {width:4} depth {depth:2}  {row['params']:>10,} parameters  {row['gflops']:6.1f} GFLOP/s  "
                f"{row['share_of_matmul_rate']:.3f} of the matmul rate ({row['matmul_gflops']:.0f} GFLOP/s)  {parts}",
                flush=True,
            )
    if JSON.value:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    run_main(main)
