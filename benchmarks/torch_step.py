"""Training steps beside PyTorch's, on the CPU, both with all cores.

    .venv-parity/bin/python -m benchmarks.torch_step [--size=384x4] [--tokens=1024] [--examples=128] [--keep] [--json]

(`make parity` makes that environment.) First one size: our step and one of diffusers' WanTransformer3DModel, of the
same width, depth and heads, on as many clips of the same numbers of patches and caption tokens; both with AdamW and
clipping, in float32. Wan's blocks attend to captions apart, which is more work: the comparison is made by FLOP, too.
Beside it stands what XLA's matrix products alone reach of PyTorch's, at the sizes of a block.

Then a mix: images and clips of many shapes. Ours in packed rows; PyTorch in buckets, each batch of one shape and filled
to the same number of tokens, as if every bucket held enough for that; and PyTorch with every example padded: each axis
to its longest, or all to the tokens of the longest clip. Rounds alternate, so that the machine's noise hits all;
medians are printed. Beside the clock's ratios stand those of processor time, which other work disturbs less
(with OMP_WAIT_POLICY=passive, without which PyTorch's threads also count while they wait for each other). --keep writes
them into docs/parallel.md.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from benchmarks import pages
from vdit.command.run import no_arguments, run_main
from vdit.config import Config, DataConfig, MeshConfig, ModelConfig
from vdit.errors import UserError
from vdit.patches import Grid, Patch

SIZE = flags.DEFINE_string("size", "384x4", "WIDTHxDEPTH of both models; heads of 64.")
TOKENS = flags.DEFINE_integer("tokens", 1024, "Patches of a clip of the first comparison, a square number.")
EXAMPLES = flags.DEFINE_integer("examples", 128, "Examples of the mix.")
ROUNDS = flags.DEFINE_integer("rounds", 9, "Measurements, half as many of the mix; medians are printed.")
KEEP = flags.DEFINE_bool("keep", False, "Write what is found between the marks of docs/parallel.md.")
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")

CHANNELS, PATCH = 16, Patch(1, 2, 2)
TEXT, WORDS = 128, 16
HEAD, ROWS = 64, 2
FRAMES = ((4, 4), (4, 6), (6, 4), (8, 8), (6, 10), (10, 6), (12, 12), (8, 16), (16, 8), (16, 16))
"""Rows and columns of patches of the mix's frames."""

LONGEST = 1024 - WORDS
TARGETS = {
    "steps over PyTorch's": pages.Target(0.75),
    "packed over buckets of one shape": pages.Target(1.0),
    "packed over padding": pages.Target(5.0),
}


def mixed_grids(count: int) -> list[Grid]:
    """Half images, half clips of 2 to 12 groups, of those that fit a row."""
    rng = np.random.default_rng(0)
    grids = []
    for number in range(count):
        y, x = FRAMES[rng.integers(len(FRAMES))]
        grids.append(Grid(1 if number % 2 else int(rng.integers(2, min(12, LONGEST // (y * x)) + 1)), y, x))
    return grids


def example(number: int, grid: Grid) -> Any:
    """Random latents and caption."""
    from vdit.batch import Example

    rng = np.random.default_rng(number)
    patches_LP = rng.normal(size=(grid.tokens, PATCH.size(CHANNELS))).astype(np.float32)
    return Example(number, patches_LP, grid, 4.0, rng.normal(size=(WORDS, TEXT)).astype(np.float32))


def packed(grids: Sequence[Grid], slots: int) -> list[Any]:
    """Batches of ROWS rows, each example in one of them; rows are packed and ordered as the pipeline does it."""
    from data_pipelines.packing.balance import order_rows, row_costs
    from data_pipelines.packing.best_fit import pack
    from vdit.batch import RowShape, pack_row, stack_rows

    tokens = np.array([grid.tokens + WORDS for grid in grids], np.int32)
    shape = RowShape(slots, slots // 32, slots // 2)
    words = np.full(len(tokens), WORDS, np.int32)
    rng = np.random.Generator(np.random.Philox(key=0))
    order, offsets = pack(tokens, words, shape, 4096, rng)
    rows = [
        pack_row([example(int(i), grids[i]) for i in order[offsets[row] : offsets[row + 1]]], shape, PATCH)
        for row in order_rows(row_costs(tokens[order], offsets), ROWS, 0, rng)
    ]
    rows += rows[: -len(rows) % ROWS]  # the last step is a whole one, too
    return [stack_rows(rows[i : i + ROWS]) for i in range(0, len(rows), ROWS)]


def now() -> np.ndarray:
    """Seconds of the clock, and of processor time of all threads."""
    return np.array([time.perf_counter(), time.process_time()])


def our_steps(width: int, depth: int, batches: Sequence[Any]) -> Callable[[], np.ndarray]:
    """A function that takes a step with every batch, and gives the seconds, see `now`."""
    import jax

    from vdit.data import Interface
    from vdit.parallel.mesh import make_mesh, to_global, use_mesh
    from vdit.training.step import init_state, make_train_step

    config = Config(model=ModelConfig(width=width, depth=depth, head_width=HEAD))
    mesh = make_mesh(MeshConfig())
    with use_mesh(mesh):
        graph, state = init_state(config, Interface(PATCH.size(CHANNELS), TEXT))
        step = make_train_step(graph, config)
    placed = [to_global(batch, mesh) for batch in batches]

    def run() -> np.ndarray:
        nonlocal state
        with use_mesh(mesh):
            start = now()
            for batch in placed:
                state, metrics = step(state, batch, np.float32(1e-3))
            jax.block_until_ready(state)
            took = now() - start
        assert np.isfinite(float(metrics["loss"]))
        return took

    run()
    return run


def torch_step(width: int, depth: int) -> Callable[[int, Grid], np.ndarray]:
    """A function that takes a step with so many clips of a grid, and gives the seconds, see `now`."""
    import torch
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = WanTransformer3DModel(
        num_attention_heads=width // HEAD,
        attention_head_dim=HEAD,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT,
        ffn_dim=4 * width,
        num_layers=depth,
        rope_max_seq_len=64,
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)

    def run(count: int, grid: Grid) -> np.ndarray:
        clean = torch.randn(count, CHANNELS, grid.t, PATCH.height * grid.y, PATCH.width * grid.x)
        text = torch.randn(count, WORDS, TEXT)
        start = now()
        noise, times = torch.randn_like(clean), torch.rand(count)
        mixed = torch.lerp(clean, noise, times.reshape(-1, 1, 1, 1, 1))
        loss = ((model(mixed, 1000 * times, text).sample - (noise - clean)) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        took = now() - start
        assert np.isfinite(float(loss.detach()))
        return took

    run(1, Grid(1, 4, 4))
    return run


def block_work(width: int, patches: int) -> tuple[float, float]:
    """Multiply-adds of a block of ours and of Wan's, for one clip."""
    ours = patches + WORDS
    projections, cross = 12 * width**2, 2 * width**2 * (patches + WORDS)
    return (
        ours * projections + 2 * ours**2 * width,
        patches * projections + 2 * patches**2 * width + cross + 2 * patches * WORDS * width,
    )


def products(width: int, tokens: int) -> dict[str, float]:
    """Speed of a block's matrix products, and of those of its gradient, in XLA over PyTorch.

    Every device has a row of ours, as in a step; PyTorch has all rows in one product.
    """
    import jax
    import torch

    rng = np.random.default_rng(0)
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]

    def arrays(rows: int) -> list[tuple[np.ndarray, ...]]:
        """Inputs, weight and gradient of the output of each product."""
        return [
            tuple(rng.normal(size=size).astype(np.float32) for size in ((rows, a), (a, b), (rows, b)))
            for a, b in shapes
        ]

    @jax.jit
    def multiply(parts: list[tuple[jax.Array, ...]]) -> list[tuple[jax.Array, ...]]:
        return [(x @ w, g @ w.T, x.T @ g) for x, w, g in parts]

    ours = [jax.device_put(arrays(tokens), device) for device in jax.devices()]
    theirs = [tuple(map(torch.from_numpy, part)) for part in arrays(tokens * len(ours))]

    def measure(run: Callable[[], Any]) -> np.ndarray:
        run()
        start = now()
        for _ in range(8):
            run()
        return now() - start

    rounds = np.array(
        [
            (
                measure(lambda: jax.block_until_ready([multiply(part) for part in ours])),
                measure(lambda: [(x @ w, g @ w.T, x.T @ g) for x, w, g in theirs]),
            )
            for _ in range(ROUNDS.value)
        ]
    )
    speed, speed_cpu = np.median(rounds[:, 1] / rounds[:, 0], 0)
    return {"matrix products over PyTorch's": speed, "matrix products, processor time": speed_cpu}


def one_size(width: int, depth: int, tokens: int, theirs: Callable[[int, Grid], np.ndarray]) -> dict[str, float]:
    """Seconds of a step of ROWS clips of one size."""
    from vdit.batch import RowShape, pack_row, stack_rows

    side = round(tokens**0.5)
    if side * side != tokens:
        raise UserError(f"--tokens={tokens} is not a square number; give 256, 1024 or 4096")
    grid, shape = Grid(1, side, side), RowShape(tokens + WORDS, 1, WORDS)
    batch = stack_rows([pack_row([example(i, grid)], shape, PATCH) for i in range(ROWS)])
    ours = our_steps(width, depth, [batch])
    theirs(ROWS, grid)
    rounds = np.array([(ours(), theirs(ROWS, grid)) for _ in range(ROUNDS.value)])
    mine, wan = block_work(width, tokens)
    speed, speed_cpu = np.median(rounds[:, 1] / rounds[:, 0], 0)
    ms = 1e3 * np.median(rounds[..., 0], 0)
    return {
        "our step, ms": ms[0],
        "PyTorch's step, ms": ms[1],
        "steps over PyTorch's": speed,
        "speed by FLOP over PyTorch's": speed * mine / wan,
        "the same in processor time": speed_cpu * mine / wan,
    }


def mix(width: int, depth: int, count: int, theirs: Callable[[int, Grid], np.ndarray]) -> dict[str, float]:
    """Examples per second of the mix, way by way."""
    grids = mixed_grids(count)
    slots = LONGEST + WORDS
    batches = packed(grids, slots)
    ours = our_steps(width, depth, batches)
    shapes = collections.Counter(grids)
    largest = Grid(*(max(axis) for axis in zip(*((g.t, g.y, g.x) for g in grids), strict=True)))

    longest = max(grids, key=lambda grid: grid.tokens)

    def buckets() -> np.ndarray:
        total = np.zeros(2)
        bar = tqdm(shapes.items(), "buckets", unit="shape", leave=False, disable=not sys.stderr.isatty())
        for grid, number in bar:
            size = max(1, ROWS * slots // (grid.tokens + WORDS))
            total += theirs(size, grid) / size * number
        return total

    def measure() -> list[np.ndarray]:
        return [ours(), buckets(), theirs(1, largest) * count, theirs(ROWS, longest) / ROWS * count]

    rounds = np.array([measure() for _ in range(max(1, ROUNDS.value // 2))])
    out: dict[str, float] = {
        "shapes": len(shapes),
        "fill of rows": sum(grid.tokens + WORDS for grid in grids) / (len(batches) * ROWS * slots),
    }
    names = ("buckets of one shape", "padding", "padding to the longest clip")
    speeds = count / np.median(rounds[..., 0], 0)
    for name, speed in zip(("packed rows", *(f"PyTorch, {name}" for name in names)), speeds, strict=True):
        out[f"{name}, examples/s"] = speed
    for i, name in enumerate(names, start=1):
        out[f"packed over {name}"], cpu = np.median(rounds[:, i] / rounds[:, 0], 0)
        out[f"packed over {name}, processor time"] = cpu
    return out


def verdict(name: str, value: float) -> str:
    """What a figure's target is, and whether it is met; empty where there is none."""
    return TARGETS[name].verdict(value) if name in TARGETS else ""


def keep(figures: dict[str, float]) -> None:
    """Puts the figures between the marks of docs/parallel.md."""
    asked = f"Width and depth {SIZE.value}, {ROWS} clips of {TOKENS.value} patches; a mix of {EXAMPLES.value} examples."
    rows = [[name, f"{value:.4g}", verdict(name, value)] for name, value in figures.items()]
    text = f"{asked}\n\n{pages.table(['', '', ''], rows, words=(2,))}"
    pages.put("parallel.md", "python -m benchmarks.torch_step --keep", text)


def main(argv: list[str]) -> None:
    """Measures and prints."""
    no_arguments(argv)
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        raise UserError(
            "PyTorch and diffusers are not here; run .venv-parity/bin/python (make parity makes it)"
        ) from error
    from vdit.parallel.runtime import cpu_devices_for, initialise

    initialise(cpu_devices_for(Config(data=DataConfig(rows_per_step=ROWS))))
    width, depth = map(int, SIZE.value.split("x"))
    theirs = torch_step(width, depth)
    figures: dict[str, float] = {"load average of the machine": os.getloadavg()[0]}
    for measured in (
        lambda: products(width, TOKENS.value),
        lambda: one_size(width, depth, TOKENS.value, theirs),
        lambda: mix(width, depth, EXAMPLES.value, theirs),
    ):
        figures |= (found := measured())
        for name, value in found.items():
            if not JSON.value:
                print(f"{name:<44} {value:>10.4g}   {verdict(name, value)}".rstrip(), flush=True)
    if KEEP.value:
        keep(figures)
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run_main(main)
