"""The report in a real browser: every figure is drawn, nothing is fetched, no script fails."""

import re
import shutil
import subprocess

import pytest

from vdit.scaling import report
from vdit.scaling.reporting.figures import FIGURES

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.nightly
@pytest.mark.skipif(
    CHROME is None, reason="no Chromium or Chrome on this machine: the report was NOT seen in a browser"
)
def test_every_figure_is_drawn(make_study, tmp_path):
    page = tmp_path / "report.html"
    report.write_report(make_study(), page, bootstraps=20)
    page.write_text(page.read_text().replace("</body>", "<script>addEventListener('error', e => { document.title ="
                    " 'FAILED ' + e.message })</script></body>"))  # fmt: skip
    command = [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    assert "<title>FAILED" not in dom
    drawn = re.findall(r'class="plot[^"]*" data-figure="figure-(\w+)".*?</div>', dom)
    assert set(drawn) == set(FIGURES)
    assert dom.count('class="main-svg"') >= 2 * len(FIGURES)  # plotly draws each plot in several layers
    assert "the lowest loss over all sizes" in dom and "hangs on single runs" in dom
