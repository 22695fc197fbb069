"""The GPU path on the machine at hand: `python -m benchmarks.gpu [--keep]`, on a CUDA machine, under ten minutes.

1. Attention backends against dense attention on the CPU in float32, in value and gradient, on packings that are hard.
2. The numerics guard of `vdit.train --check` for `b` at a small depth.
3. A training step of `b`, `l` and `xl` on rows of mixed images and clips: tokens and FLOPs a second, the share of the
   chip's bfloat16 peak (MFU), memory.
4. Sampling with `b`: seconds for one denoising step of a full set of rows.

--keep writes what is found, with the machine's name, into docs/gpu.md. --smoke runs all of it at a tiny size wherever
it is started; what it prints says nothing of speed.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from benchmarks import pages
from vdit.batch import Example, PackedBatch, RowShape, pack_row, stack_rows
from vdit.command.run import no_arguments, run_main
from vdit.config import Config, DataConfig, DiffusionConfig, MeshConfig, ModelConfig
from vdit.errors import UserError
from vdit.patches import Grid, Patch

KEEP = flags.DEFINE_bool("keep", False, "Write what is found between the marks of docs/gpu.md.")
SMOKE = flags.DEFINE_bool("smoke", False, "Tiny sizes, on whatever devices there are.")
ROUNDS = flags.DEFINE_integer("rounds", 10, "Steps that are timed, after two that are not; medians are printed.")

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "B200": 2250e12, "L40S": 362e12}
"""Dense bfloat16 FLOP/s of the SXM (or only) form, by NVIDIA's data sheets; a name that holds a key has its peak."""

SIZES = {"b": (768, 12, 64), "l": (1024, 24, 64), "xl": (1152, 28, 72)}
"""Width, depth and head width of DiT (Peebles & Xie 2022)."""

CHANNELS, TEXT, WORDS = 16, 128, 16
PACKINGS = {
    "one long segment": lambda slots: [slots],
    "segments of one token": lambda slots: [1] * slots,
    "odd lengths and padding": lambda slots: [slots // 2 - 3, 1, slots // 4 + 1, 17],
    "an empty row": lambda slots: [],
}


def main(argv: list[str]) -> None:
    no_arguments(argv)
    import jax

    from vdit.parallel.runtime import initialise

    initialise(1)
    device = jax.devices()[0]
    if device.platform != "gpu" and not SMOKE.value:
        raise UserError(f"there is no GPU here, JAX has {device.device_kind}; install jax[cuda13] on a CUDA machine")
    text = "\n\n".join((f"{device.device_kind}, JAX {jax.__version__}.", backends(), guard(), steps(), sampling()))
    print(text)
    if KEEP.value:
        if device.platform != "gpu":
            raise UserError("--keep writes figures of a GPU, and there is none here")
        pages.put("gpu.md", "python -m benchmarks.gpu --keep", text)


def backends() -> str:
    """The largest difference of each backend, over the largest value, by packing and dtype."""
    import jax.numpy as jnp

    from vdit.diagnostics.check import BACKENDS
    from vdit.diagnostics.first_step import attender, plain_config, plain_mesh
    from vdit.parallel.mesh import make_mesh

    slots, heads, width = (64, 2, 16) if SMOKE.value else (4096, 8, 64)
    mesh, rng, rows = make_mesh(MeshConfig()), np.random.default_rng(0), []
    for name, lengths in PACKINGS.items():
        segments_BL = np.zeros((mesh.size, slots), np.int32)
        sizes = lengths(slots)
        segments_BL[:, : sum(sizes)] = np.repeat(np.arange(len(sizes), dtype=np.int32) + 1, sizes)
        real = (segments_BL > 0)[:, None, :, None]
        for dtype in ("float32", "bfloat16"):
            model = ModelConfig(width=heads * width, head_width=width, dtype=dtype)
            config = Config(model=model)
            draws = rng.standard_normal((4, mesh.size, heads, slots, width), np.float32)
            inputs = [x.astype(jnp.dtype(dtype)) for x in draws]
            inputs[3] = np.where(real, inputs[3], np.zeros_like(inputs[3]))
            expected = attender(plain_config(config), plain_mesh(), "reference")(
                [x.astype(np.float32) for x in inputs], segments_BL
            )
            for backend in BACKENDS[mesh.devices.flat[0].platform]:
                found = [x.astype(np.float32) for x in attender(config, mesh, backend)(inputs, segments_BL)]
                found[0] = np.where(real, found[0], 0)
                off = [np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in zip(found, expected, strict=True)]
                rows.append([f"{name}, {dtype}, {backend}", *(f"{value:.1e}" for value in off)])
    return pages.table(["attention off by", "out", "dq", "dk", "dv"], rows)


def guard() -> str:
    """What `vdit.train --check` says of a model of the width of `b`."""
    from vdit.data import TrainingData
    from vdit.diagnostics.check import check

    config = config_of("b")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, depth=2))
    meta = {"patch": (1, 2, 2), "channels": CHANNELS, "text_encoder": {"width": TEXT}}

    def forever(step: int, part: int, parts: int) -> Iterator[Any]:
        del step, part, parts
        while True:
            yield batch_of(config)

    with tempfile.TemporaryDirectory() as folder:
        off = check(config, folder, TrainingData(meta, forever))
    return f"`vdit.train --check` on two blocks of `b`: {off or 'all within what is allowed'}."


def steps() -> str:
    """A training step of each size."""
    import jax

    from vdit import flops
    from vdit.data import Interface
    from vdit.parallel.mesh import make_mesh, to_global, use_mesh
    from vdit.training.step import init_state, make_train_step

    rows = []
    for name in ("b",) if SMOKE.value else SIZES:
        config, mesh = config_of(name), make_mesh(MeshConfig())
        local = batch_of(config)
        interface = Interface(4 * CHANNELS, TEXT)
        work = flops.batch_training_flops(
            flops.shape_of(config.model, interface.patch, interface.text), local.segments_BL, local.text_index_BL
        )
        with use_mesh(mesh):
            graph, state = init_state(config, interface)
            step, batch, times = make_train_step(graph, config), to_global(local, mesh), []
            for _ in range(2 + ROUNDS.value):
                start = time.perf_counter()
                state, metrics = step(state, batch, np.float32(1e-4))
                loss = float(jax.block_until_ready(metrics)["loss"])
                times.append(time.perf_counter() - start)
        seconds, device = statistics.median(times[2:]), mesh.devices.flat[0]
        rate = work / seconds / mesh.size
        peak = next((value for key, value in reversed(PEAKS.items()) if key in device.device_kind), None)
        memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
        rows.append(
            [
                name,
                f"{seconds:.4g}",
                f"{(local.segments_BL > 0).sum() / seconds:,.0f}",
                f"{rate / 1e12:.4g}",
                f"{rate / peak:.3f}" if peak else "",
                f"{memory / 2**30:.3g}" if memory else "",
                f"{loss:.4f}",
            ]
        )
    head = ["training step", "seconds", "tokens/s", "TFLOP/s a device", "MFU", "peak GiB", "loss"]
    return pages.table(head, rows)


def sampling() -> str:
    """A denoising step of `b`."""
    from vdit.data import Interface
    from vdit.generation import Generator, Request
    from vdit.parallel.mesh import make_mesh, use_mesh
    from vdit.training.step import init_state

    config, mesh = config_of("b"), make_mesh(MeshConfig())
    with use_mesh(mesh):
        graph, state = init_state(config, Interface(4 * CHANNELS, TEXT))
    generator = Generator(graph, state.params, config, mesh, Patch(1, 2, 2), CHANNELS, latents=True)
    side, count = (4, 2) if SMOKE.value else (32, 8)
    requests = [Request(np.zeros((4, TEXT), np.float32), 5, side, side, 4.0, seed) for seed in range(count)]
    times = []
    for number in (2, 2, 12):  # the first compiles; the difference of the others is ten steps
        start = time.perf_counter()
        generator.generate(requests, steps=number)
        times.append(time.perf_counter() - start)
    seconds = (times[2] - times[1]) / 10
    return (
        f"Sampling with `b`, {count} clips of 5 x {side} x {side} latents: {seconds:.4g} s for a denoising step of all."
    )


def config_of(name: str) -> Config:
    """A run of a size: bfloat16 but for --smoke, the backend of the devices, a row a device."""
    from vdit.parallel.mesh import make_mesh

    width, depth, head = (32, 1, 16) if SMOKE.value else SIZES[name]
    slots = 128 if SMOKE.value else 16_384
    return Config(
        data=DataConfig(
            row_tokens=slots,
            row_examples=slots // 16,
            row_text=slots,
            rows_per_step=make_mesh(MeshConfig()).size,
        ),
        model=ModelConfig(
            width=width,
            depth=depth,
            head_width=head,
            dtype="float32" if SMOKE.value else "bfloat16",
            remat="none" if name == "b" else "attention",
        ),
        diffusion=DiffusionConfig(mean=(0.0,)),
    )


def batch_of(config: Config) -> PackedBatch:
    """Rows of random latents, images and clips of mixed sizes one after another until a row is full; one batch."""
    data, rng = config.data, np.random.default_rng(0)
    shape, side = RowShape(data.row_tokens, data.row_examples, data.row_text), 3 if SMOKE.value else 16
    rows = []
    for _ in range(data.rows_per_step):
        row: list[Example] = []
        while True:
            y, x = rng.integers(side // 2, side + 1, 2)
            grid = Grid(1 if rng.random() < 0.5 else int(rng.integers(2, 8)), int(y), int(x))
            if sum(one.tokens for one in row) + grid.tokens + WORDS > shape.tokens:
                break
            text_ME = rng.standard_normal((WORDS, TEXT), np.float32)
            patches_LP = rng.standard_normal((grid.tokens, 4 * CHANNELS), np.float32)
            row.append(Example(int(rng.integers(2**62)), patches_LP, grid, 4.0, text_ME))
        rows.append(pack_row(row, shape, Patch(1, 2, 2)))
    return stack_rows(rows)


if __name__ == "__main__":
    run_main(main)
