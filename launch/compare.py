"""Two runs beside each other: `python -m launch.compare sweeps/NAME ID ID [--out=curves]`.

Prints the fields in which they differ, what they reached, and their training losses at equal steps; --out draws the
curves. Runs of different sweeps are given by their workdirs: `python -m launch.compare WORKDIR WORKDIR`.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from launch.sweeps import compare
from launch.targets import registry
from vdit.command.run import run_main
from vdit.errors import UserError


def workdirs(argv: list[str]) -> list[Path]:
    """The two workdirs that a command line names.

    Raises:
      UserError: if it does not name two.
    """
    if len(argv) == 3:
        return [Path(part) for part in argv[1:]]
    if len(argv) != 4:
        raise UserError("give a sweep and two of its runs: python -m launch.compare sweeps/NAME ID ID; or two workdirs")
    folder = registry.open_folder(argv[:2], "compare")
    known = [entry["id"] for entry in folder.plan()["runs"]]
    for run_id in argv[2:]:
        if run_id not in known:
            raise UserError(f"{folder.path} has no run {run_id}; see launch.status {folder.path}")
    return [folder.run(run_id) for run_id in argv[2:]]


def main(argv: list[str]) -> None:
    one, other = map(compare.read, workdirs(argv))
    print(compare.text(one, other))
    if flags.FLAGS.out:
        from vdit.render import charts, panels

        for path in charts.save(panels.beside([compare.panel(one, other)]), flags.FLAGS.out):
            print(path)


if __name__ == "__main__":
    flags.DEFINE_string("out", "", "Draw the training losses to this path, with .svg and .png added.")
    run_main(main)
