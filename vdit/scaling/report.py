"""Writes a study's report: `python -m vdit.scaling.report RUNS_DIR|RUNS.csv --out=report.html [--figures=DIR]`.

Works at any stage of a study; what has not been run says so. Also writes RUNS_DIR/runs.csv, the table behind the page.
Any csv of finished runs gets a page.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from vdit.command.run import run_main
from vdit.errors import UserError
from vdit.io.files import write_text
from vdit.io.formatting import many

if TYPE_CHECKING:
    from vdit.scaling.reporting.analysis import Analysis


def write_report(runs_dir: str | Path, out: str | Path, bootstraps: int = 1000) -> Analysis:
    """Gathers a RUNS_DIR, or the runs of a csv, and writes their page, replacing an older one whole.

    Returns:
      what the page is made of.

    Raises:
      UserError: if `runs_dir` cannot be read or `out` cannot be written.
    """
    from vdit.scaling.reporting.analysis import analyse, of_csv
    from vdit.scaling.runs import gather, write_csv

    out, is_table = Path(out), Path(runs_dir).is_file()
    found = of_csv(runs_dir, bootstraps) if is_table else analyse(gather(runs_dir), bootstraps)

    from vdit.render import pages
    from vdit.scaling.reporting import sections

    study = found.study
    command = f"python -m vdit.scaling.report {shlex.quote(str(runs_dir))} --out={shlex.quote(str(out))}"
    page = pages.html(sections.page(found, command))
    try:
        if study.runs and not is_table:
            write_csv(study.path / "runs.csv", study.runs)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}); give another --out") from error
    return found


def write_figures(found: Analysis, folder: str | Path) -> list[Path]:
    """Writes each figure of the page that has data as SVG and PNG, on white."""
    from vdit.render import charts, pages
    from vdit.scaling.reporting import sections

    drawn = pages.charts_of(sections.page(found, ""))
    return [file for each in drawn if each.chart for file in charts.save(each.chart, Path(folder) / each.name)]


def main(argv: list[str]) -> None:
    """Entry point."""
    if len(argv) != 2:
        raise UserError("give one directory or csv: python -m vdit.scaling.report RUNS_DIR --out=report.html")
    found = write_report(argv[1], flags.FLAGS.out, flags.FLAGS.bootstraps)
    print(f"{flags.FLAGS.out}: {many(len(found.study.runs), 'finished run')}")
    if flags.FLAGS.figures:
        for file in write_figures(found, flags.FLAGS.figures):
            print(file)


if __name__ == "__main__":  # flags are defined here so that modules with like-named flags can be imported together
    flags.DEFINE_string("out", "report.html", "the page to write")
    flags.DEFINE_string("figures", "", "directory to write each figure to as PNG and SVG")
    flags.DEFINE_integer("bootstraps", 1000, "draws for the intervals", lower_bound=0)
    run_main(main)
