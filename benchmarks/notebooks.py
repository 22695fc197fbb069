"""Runs the notebooks and stores their outputs: `python -m benchmarks.notebooks [--only=data]`.

Each runs in an empty folder, as in a fresh session. What differs from machine to machine (times, paths) is not stored,
nor are lines of progress that overwrite each other, and of what is shown in two ways only the picture is: where
notebooks are read, scripts do not run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from absl import flags
from nbclient import NotebookClient
from nbformat import NotebookNode

from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

FOLDER = Path(__file__).parents[1] / "notebooks"


def execute(path: Path) -> None:
    """Runs a notebook and writes it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell began and ended
        if cell.cell_type == "code":
            cell.outputs = printed(cell.outputs)
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data.pop("text/html", None)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


def printed(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Outputs without stderr, which holds progress, and without lines that were overwritten on stdout."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if output.get("name") == "stdout" and kept and kept[-1].get("name") == "stdout":  # a line may come in pieces
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.get("name") == "stdout":
            lines = output.text.replace("\r\n", "\n").split("\n")
            output.text = "\n".join(line for line in lines if "\r" not in line)
    return [output for output in kept if output.get("text") != ""]


def main(argv: list[str]) -> None:
    no_arguments(argv)
    known = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    for name in flags.FLAGS.only or known:
        if name not in known:
            raise UserError(f"--only={name} is not one of {', '.join(known)}")
        started = time.monotonic()
        execute(known[name])
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    flags.DEFINE_list("only", None, "Names of notebooks; default: all.")
    run_main(main)
