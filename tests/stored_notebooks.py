"""Notebooks as they are stored."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

PRIVATE = re.compile(r"/(home|root|work|tmp|Users)/")


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def read_smaller(path: Path, values: dict[str, str]) -> Any:
    """The notebook with other values in its cell of parameters, each of which must be there."""
    notebook = read(path)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for theirs, ours in values.items():
        assert theirs in parameters.source
        parameters.source = parameters.source.replace(theirs, ours)
    return notebook


def unfinished(notebook: Any) -> list[str]:
    """Code cells that were not run in order, or ended in an error."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        cell.id
        for number, cell in enumerate(cells, 1)
        if cell.execution_count != number or any(output.output_type == "error" for output in cell.outputs)
    ]


def private(notebook: Any) -> list[str]:
    """Outputs that name folders of the machine on which it was run."""
    texts = [(cell.id, str(output.get("text", ""))) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [name for name, text in texts if PRIVATE.search(text)]


def overwritten(notebook: Any) -> list[str]:
    """Cells that show lines of progress which overwrote each other."""
    texts = [(cell.id, str(output.get("text", ""))) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [name for name, text in texts if "\r" in text]


def pictures(notebook: Any) -> Iterator[bytes]:
    """The PNG files that it shows, in order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield base64.b64decode(output.data["image/png"])
