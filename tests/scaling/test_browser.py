"""The report in a real browser: every figure is drawn, nothing is fetched, no script fails."""

import re
import shutil
import subprocess

import pytest

from vdit.scaling import report

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


seen = pytest.mark.skipif(
    CHROME is None, reason="no Chromium or Chrome on this machine: the report was NOT seen in a browser"
)


@pytest.mark.nightly
@seen
def test_wide_tables_scroll_in_their_own_boxes(make_study, tmp_path):
    page = tmp_path / "report.html"
    report.write_report(make_study(), page, bootstraps=20)
    measure = """<script>addEventListener("load", () => {
      const boxes = [...document.querySelectorAll(".scroll")], root = document.documentElement;
      const wider = boxes.filter(box => box.scrollWidth > box.clientWidth);
      wider.forEach(box => { box.scrollLeft = 1e6; });
      const ends = wider.every(box => box.querySelector("th:last-child").getBoundingClientRect().right <= innerWidth);
      document.title = `page ${root.scrollWidth - innerWidth} wider ${wider.length} ends ${ends}`;
    })</script>"""
    before, _, after = page.read_text().rpartition("</body>")  # the scripts of the page name it too
    page.write_text(f"{before}{measure}</body>{after}")
    command = [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=420,900", "--dump-dom"]
    dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=600).stdout
    found = re.search(r"<title>page (-?\d+) wider (\d+) ends (\w+)</title>", dom)
    assert found and int(found[1]) <= 0 and int(found[2]) >= 2 and found[3] == "true"


@pytest.mark.nightly
@seen
def test_every_figure_is_drawn(make_study, tmp_path):
    page = tmp_path / "report.html"
    report.write_report(make_study(), page, bootstraps=20)
    before, _, after = page.read_text().partition("<title>")  # before Vega, so that its failures are seen too
    watch = "<script>addEventListener('error', e => { document.title = 'FAILED ' + e.message })</script>"
    page.write_text(f"{before}{watch}<title>{after}")
    command = [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=600).stdout
    assert "<title>FAILED" not in dom
    figures = re.findall(r'id="figure-([\w-]+)"', page.read_text())
    drawn = re.findall(r'class="plot[^"]* drawn" data-figure="figure-([\w-]+)"', dom)
    assert len(figures) >= 10 and sorted(drawn) == sorted(figures)
    assert dom.count("<svg") >= len(figures) and 'aria-roledescription="legend"' in dom
    assert "the lowest loss over all sizes" in dom and "most influential runs" in dom
