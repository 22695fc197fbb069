"""Prints what a run has written: `python -m launch.logs sweeps/NAME ID [--lines=50]`."""

from __future__ import annotations

from absl import flags

from launch.status import open_folder
from launch.targets import registry
from vdit.command import run_main
from vdit.errors import UserError


def main(argv: list[str]) -> None:
    folder = open_folder(argv, "logs")
    known = [entry["id"] for entry in folder.plan()["runs"]]
    if len(argv) != 3 or argv[2] not in known:
        raise UserError(f"give one run of the sweep: python -m launch.logs {folder.path} {known[0]}")
    target, settings = registry.settings_of(folder)
    if target != "local":
        registry.of(target).fetch_logs(folder, settings, argv[2])
    logs = sorted((folder.run(argv[2]) / "logs").glob("*.log"))
    if not logs:
        raise UserError(f"{argv[2]} has no logs yet")
    for log in logs:
        print(f"==> {log}")
        print("\n".join(log.read_text(errors="replace").splitlines()[-flags.FLAGS.lines :]))


if __name__ == "__main__":
    flags.DEFINE_integer("lines", 50, "last lines of each log", lower_bound=1)
    run_main(main)
