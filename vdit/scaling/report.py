"""Writes a study's report: `python -m vdit.scaling.report RUNS_DIR --out=report.html [--figures=DIR]`.

Works at any stage of a study; what has not been run says so. Also writes RUNS_DIR/runs.csv, the table behind the page.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from absl import flags

from vdit.command import run_main
from vdit.errors import UserError
from vdit.io.files import write_text
from vdit.scaling.reporting.analysis import Analysis, analyse
from vdit.scaling.reporting.figures import FIGURES
from vdit.scaling.reporting.page import Page
from vdit.scaling.reporting.sections import SECTIONS
from vdit.scaling.runs import gather, write_csv

PNG_SIZE = (900, 600)


def write_report(runs_dir: str | Path, out: str | Path, bootstraps: int = 1000) -> Analysis:
    """Gathers a RUNS_DIR and writes its page, replacing an older one whole.

    Returns:
      what the page is made of.

    Raises:
      UserError: if RUNS_DIR is not a directory or `out` cannot be written.
    """
    study = gather(runs_dir)
    found = analyse(study, bootstraps)
    out = Path(out)
    command = f"python -m vdit.scaling.report {shlex.quote(str(runs_dir))} --out={shlex.quote(str(out))}"
    page = Page(found, command).html(SECTIONS)
    try:
        if study.runs:
            write_csv(study.path / "runs.csv", study.runs)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}); give another --out") from error
    return found


def write_figures(found: Analysis, folder: str | Path) -> list[Path]:
    """Writes each figure that has data as PNG and SVG, on white.

    Raises:
      UserError: without kaleido, or without a Chrome for it to draw with.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in FIGURES.items():
        figure = make(found)
        if figure is None:
            continue
        figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
        files = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
        try:
            for file in files:
                figure.write_image(file, width=PNG_SIZE[0], height=PNG_SIZE[1], scale=2)
        except Exception as error:  # plotly and kaleido raise many kinds when either is missing
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"--figures={folder} needs kaleido and a Chrome (pip install kaleido; {type(error).__name__}: {reason})"
            ) from error
        written += files
    return written


def main(argv: list[str]) -> None:
    """Entry point."""
    if len(argv) != 2:
        raise UserError("give one directory: python -m vdit.scaling.report RUNS_DIR --out=report.html")
    found = write_report(argv[1], flags.FLAGS.out, flags.FLAGS.bootstraps)
    print(f"{flags.FLAGS.out}: {len(found.study.runs)} finished runs")
    if flags.FLAGS.figures:
        for file in write_figures(found, flags.FLAGS.figures):
            print(file)


if __name__ == "__main__":  # flags are defined here so that modules with like-named flags can be imported together
    flags.DEFINE_string("out", "report.html", "the page to write")
    flags.DEFINE_string("figures", "", "directory to write each figure to as PNG and SVG (needs kaleido and a Chrome)")
    flags.DEFINE_integer("bootstraps", 1000, "resamples for the intervals", lower_bound=0)
    run_main(main)
