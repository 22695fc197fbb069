"""Eight virtual CPU devices, fast compilation and repeatable examples for every test."""

import os
import signal
from importlib import metadata

# Unoptimised code, not split for more threads: tests compile far longer than they compute (a gradient in 1 s, not 10).
_FLAGS = "--xla_cpu_parallel_codegen_split_count=1"
if metadata.version("jaxlib") < "0.12":  # later ones know no other emitters, and round sums too coarsely at level 0
    _FLAGS += " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
else:
    _FLAGS += " --xla_backend_optimization_level=1"
os.environ["XLA_FLAGS"] = f"{_FLAGS} {os.environ.get('XLA_FLAGS', '')}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)

# Once, not before every test: the TPU compiler handles it, and its timer ends a process that does not.
signal.signal(signal.SIGPROF, signal.SIG_DFL)

hypothesis.settings.register_profile("vdit", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("vdit")


@pytest.fixture(autouse=True)
def usual_signals() -> None:
    """What a shell ignores or blocks (nohup, a job in the background, CI), or a library within an earlier test (Ray:
    SIGTERM), is inherited by the commands of tests as well."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


SLOW = """
parallel/test_equality planning/test_plan faults/test_kills models/test_attention parallel/test_two_processes
models/test_wan_dit faults/test_elastic training/test_autoencoder diagnostics/test_check launch/targets/test_local
faults/test_checkpoints faults/test_divergence launch/targets/test_machine training/test_resume
training/test_preemption training/test_step diffusion/test_corruption test_wan_cli test_sample_cli
training/optimization/test_optimizer training/test_loop training/recovery/test_checkpoint training/test_mixture_run
training/record/test_account training/record/test_workdir faults/test_data faults/test_processes faults/test_fuzz
faults/test_security parallel/test_mesh models/test_transformer models/test_causal_vae models/test_wan_vae
models/test_wan_pipeline models/test_t5 models/test_minilm models/test_clip_encoding generation/test_generator
generation/test_long generation/rows/test_schedule generation/test_notebook data_pipelines/test_latents
launch/targets/test_queued_resources scaling/test_fit data_pipelines/test_resume data_pipelines/test_build
scaling/test_notebook data_pipelines/test_notebook evaluation/test_validation evaluation/test_features
evaluation/test_permanence evaluation/test_physics data_pipelines/test_inspect scaling/laws/approaches/test_parametric
data_pipelines/test_engine test_packages test_evaluate_cli test_export_cli launch/experiments/runs/test_runner
launch/targets/test_flags test_train_cli training/record/test_trackers
""".split()
"""Files that take long or wait for processes, roughly the longest first; `pytest --durations=0` tells."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files come first: the processes of `make test` take whole files in this order, and end together."""
    rank = {f"tests/{name}.py": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.nodeid.split("::")[0], len(rank)))
