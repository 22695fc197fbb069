"""Runs the notebooks and stores their outputs: `python -m benchmarks.notebooks [--only=data]`.

Each runs in an empty folder, as in a fresh session. What differs from machine to machine (times, paths) is not stored,
and of what is shown in two ways only the picture: where notebooks are read, scripts do not run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import nbformat
from absl import flags
from nbclient import NotebookClient

from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

FOLDER = Path(__file__).parents[1] / "notebooks"
ONLY = flags.DEFINE_list("only", None, "Names of notebooks; default: all.")


def execute(path: Path) -> None:
    """Runs a notebook and writes it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell began and ended
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]  # progress
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data.pop("text/html", None)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


def main(argv: list[str]) -> None:
    no_arguments(argv)
    known = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    for name in ONLY.value or known:
        if name not in known:
            raise UserError(f"--only={name} is not one of {', '.join(known)}")
        started = time.monotonic()
        execute(known[name])
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    run_main(main)
