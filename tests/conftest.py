"""Eight virtual CPU devices, fast compilation and repeatable examples for every test."""

import os
from importlib import metadata

# Unoptimised code: tests compile far longer than they compute (a gradient in 1 s instead of 10).
_FLAGS = "--xla_backend_optimization_level=0"
if metadata.version("jaxlib") < "0.12":  # later ones do not know it
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{_FLAGS} {os.environ.get('XLA_FLAGS', '')}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis  # noqa: E402
import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)

hypothesis.settings.register_profile("vdit", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("vdit")
