"""Data sets made of another one: square crops, or single pictures, of the same clips and captions.

    python -m data_pipelines.derive --of=data/physics --out=data/square --square=32
    python -m data_pipelines.derive --of=data/physics --out=data/stills --stills

A square crop is what a pipeline of one fixed size makes: the shorter side is scaled to the size asked for, and what
stands out over the longer side is cut off equally at both ends. Clips that know where their balls and walls are keep
knowing it. A still is the frame in the middle of a clip.
"""

from __future__ import annotations

from absl import flags

from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    if not values.of or not values.out:
        raise UserError("--of=DIR and --out=DIR are both needed")
    from data_pipelines.building.deriving import derive

    print(f"{values.out}: {derive(values.of, values.out, values.square, values.stills)} clips")


if __name__ == "__main__":
    flags.DEFINE_string("of", "", "data set to derive from")
    flags.DEFINE_string("out", "", "folder of the new one")
    flags.DEFINE_integer("square", 0, "side of square crops in pixels", lower_bound=0)
    flags.DEFINE_bool("stills", False, "the middle frame of every clip")
    run_main(main)
