"""Writes a run's weights as safetensors: `python -m vdit.export --workdir=W --out=DIR`.

DIR is what `--config.init_from=DIR` starts a run from, and `vdit.sample --workdir=DIR` samples. Of a run with
config.lora it holds the adapters, which `vdit.sample --lora=DIR` and diffusers add to other weights; --merge adds them.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
OUT = flags.DEFINE_string("out", None, "Folder to write: weights, config.json, dataset.json and export.json.")
RAW = flags.DEFINE_bool("raw", False, "Write the weights themselves, not their moving average.")
MERGE = flags.DEFINE_bool("merge", False, "Write whole weights with the adapters of config.lora added to them.")
HALF = flags.DEFINE_bool("half", False, "Write half precision (float16): half the size, enough to sample from.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to export; default: the newest.")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if WORKDIR.value is None or OUT.value is None:
        raise UserError(
            f"{'--out' if WORKDIR.value else '--workdir'} is needed: python -m vdit.export "
            f"--workdir={WORKDIR.value or 'runs/physics'} --out={OUT.value or 'weights/mine'}"
        )
    from vdit.io.files import read_json
    from vdit.parallel.runtime import cpu_devices_for, initialise
    from vdit.training.record.workdir import EXPORT, read_config

    initialise(cpu_devices_for(read_config(WORKDIR.value)))
    import jax

    from vdit.generation.restore import load_run
    from vdit.training.export import write_weights

    write_weights(load_run(WORKDIR.value, STEP.value), Path(OUT.value), RAW.value, MERGE.value, HALF.value)
    if jax.process_index() == 0:
        about = read_json(Path(OUT.value) / EXPORT)
        print(f"{OUT.value}: {about['tensors']} tensors, {about['parameters']:,} parameters of step {about['step']}")


if __name__ == "__main__":
    run_main(main)
