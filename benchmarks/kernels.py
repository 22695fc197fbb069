"""Cycles of the attention kernels by block size, as the TPU compiler schedules them: `python -m benchmarks.kernels`.

libtpu writes down the instruction bundles of every Pallas kernel that it compiles (a bundle is a cycle, if nothing
waits). Of the loop over blocks one branch does the products and the others open and close a row of blocks; what is
counted is the loop with that one branch. v5p, heads of 128. Waiting for memory is not in it, so this compares blocks,
no more.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import flags

from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

BLOCK = flags.DEFINE_integer("block", None, "Compile this block only, and leave what the compiler writes in --dump.")
DUMP = flags.DEFINE_string("dump", "", "See --block.")

BLOCKS = (128, 256, 512, 1024)
SLOTS, HEADS, WIDTH = 16_384, 8, 128
BRANCH = 35
"""Bundles of the smallest branch that does something to a block; smaller ones start or await copies, and nearly always
run."""


def compile_kernels(block: int) -> None:
    """Compiles both kernels for a chip of v5p."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from vdit.models.attention.splash import splash
    from vdit.planning.compile import describe

    whole = NamedSharding(Mesh(np.array(describe("v5p:2x2x1", 1)[:1]), "x"), PartitionSpec())

    def array(*shape: int, dtype: jnp.dtype = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

    x_BHLK, stats_BHL = array(1, HEADS, SLOTS, WIDTH, dtype=jnp.bfloat16), array(1, HEADS, SLOTS)
    ids_BL = array(1, SLOTS, dtype=jnp.int32)
    kernel = splash(block)
    jax.jit(kernel.forward).lower(x_BHLK, x_BHLK, x_BHLK, ids_BL, ids_BL).compile()
    jax.jit(kernel.backward).lower(x_BHLK, x_BHLK, x_BHLK, ids_BL, ids_BL, stats_BHL, stats_BHL, x_BHLK).compile()


def step_bundles(text: str) -> int:
    """Bundles of one step of a kernel's loop over blocks."""
    opened: dict[str, int] = {}
    regions: list[tuple[int, int]] = []
    for line in text.splitlines():
        if match := re.match(r"\s*(0x[0-9a-f]+|0)\s", line):
            at = int(match.group(1), 16)
            for kind, name in re.findall(r"(Start|End) region (\d+)", line):
                if kind == "Start":
                    opened[name] = at
                elif name in opened:
                    regions.append((opened[name], at))
    distinct = set(regions)
    for loop in sorted(distinct, key=_size):  # innermost first
        inside = [r for r in distinct if r != loop and _holds(loop, r) and _size(r) > BRANCH]
        branches = [r for r in inside if not any(r != other and _holds(other, r) for other in inside)]
        if len(branches) >= 3:
            return _size(loop) - sum(map(_size, branches)) + max(map(_size, branches))
    raise UserError("this libtpu writes kernels in another way than benchmarks.kernels understands")


def _size(region: tuple[int, int]) -> int:
    return region[1] - region[0]


def _holds(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def measure(block: int) -> dict[str, int]:
    """Bundles of a step of both kernels; compiles in a process of its own, to which the compiler's flags are given."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.kernels", f"--block={block}", f"--dump={folder}"],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "LIBTPU_INIT_ARGS": f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true",
            },
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise UserError(f"block {block} does not compile: {done.stderr.strip().splitlines()[-1]}")
        out = {}
        for kernel in ("fwd", "dkv"):
            found = [
                file
                for file in Path(folder).glob(f"*splash_mha_{kernel}*-final_bundles.txt")
                if "schedule-analysis" not in file.name
            ]
            out[kernel] = step_bundles(found[0].read_text())
        return out


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if BLOCK.value:
        compile_kernels(BLOCK.value)
        return
    table = {block: measure(block) for block in BLOCKS}
    whole = sum(table[512].values())
    for block, found in table.items():
        share = whole * (block / 512) ** 2 / sum(found.values())
        print(
            json.dumps({"block": block, "cycles of a step": found, "speed over that of 512": round(share, 3)}),
            flush=True,
        )


if __name__ == "__main__":
    run_main(main)
