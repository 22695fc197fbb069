"""Named sets of compiler flags, and why each is there.

Every flag is tested to be one that the installed compilers know: libtpu and XLA stop at an unknown one. None changes
what is computed. A user's own LIBTPU_INIT_ARGS and XLA_FLAGS come after these and win.
"""

from __future__ import annotations

import dataclasses
import os

from vdit.errors import UserError


@dataclasses.dataclass(frozen=True)
class Flag:
    """One compiler flag."""

    name: str
    value: str
    why: str


_OVERLAP = (
    Flag(
        "xla_tpu_enable_async_collective_fusion",
        "true",
        "runs collectives in the background of the matmul fusions beside them: FSDP gathers a layer while one computes",
    ),
    Flag(
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
        "true",
        "includes all-gathers, which are what FSDP does most",
    ),
    Flag(
        "xla_tpu_enable_async_collective_fusion_multiple_steps",
        "true",
        "lets one collective span several fusions, where one is too short to hide it",
    ),
    Flag(
        "xla_tpu_overlap_compute_collective_tc",
        "true",
        "lets the TensorCore compute during a collective",
    ),
    Flag(
        "xla_enable_async_all_gather", "true", "splits all-gathers into start and done, so that they can be moved apart"
    ),
)
_SLICES = (
    Flag(
        "xla_tpu_enable_data_parallel_all_reduce_opt",
        "true",
        "schedules the gradient's all-reduce across slices (DCN is slow) beside the backward pass",
    ),
    Flag(
        "xla_tpu_data_parallel_opt_different_sized_ops",
        "true",
        "lets that pass pipeline all-reduces of different sizes: our weights differ in size",
    ),
)
_VMEM = Flag(
    "xla_tpu_scoped_vmem_limit_kib",
    "98304",
    "gives fusions 96 of the 128 MiB of vector memory, so that larger tiles of matmuls stay on chip",
)

SETS: dict[str, tuple[Flag, ...]] = {
    "v4": (*_OVERLAP, *_SLICES),
    "v5e": (*_OVERLAP, *_SLICES),
    "v5p": (*_OVERLAP, *_SLICES),
    "v6e": (*_OVERLAP, *_SLICES, _VMEM),
    "tpu7x": (*_OVERLAP, *_SLICES),
    "gpu": (
        Flag(
            "xla_gpu_enable_latency_hiding_scheduler",
            "true",
            "orders operations so that collectives of FSDP overlap with matmuls",
        ),
        Flag(
            "xla_gpu_enable_triton_gemm",
            "false",
            "leaves matmuls to cuBLAS: ours are large, and autotuning Triton's would take minutes at every start",
        ),
        Flag(
            "xla_gpu_all_gather_combine_threshold_bytes",
            "268435456",
            "gathers the weights of a whole layer in one message, which uses NVLink better than many small ones",
        ),
        Flag(
            "xla_gpu_reduce_scatter_combine_threshold_bytes",
            "134217728",
            "the same for its gradients",
        ),
    ),
    "none": (),
}


def environment(name: str) -> dict[str, str]:
    """The environment variables that set a named set of flags; empty for no name.

    Raises:
      UserError: for an unknown name.
    """
    if name and name not in SETS:
        raise UserError(f"flags={name!r} is not one of {', '.join(SETS)}")
    flags = SETS.get(name, ())
    if not flags:
        return {}
    variable = "XLA_FLAGS" if name == "gpu" else "LIBTPU_INIT_ARGS"
    own = os.environ.get(variable, "")
    return {variable: " ".join([*(f"--{flag.name}={flag.value}" for flag in flags), *own.split()])}
