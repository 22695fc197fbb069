import dataclasses
import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from vdit.render import charts, pages
from vdit.scaling import report
from vdit.scaling.reporting import figures, fit_words, law_section, words
from vdit.scaling.reporting.analysis import analyse, envelope, of_csv
from vdit.scaling.reporting.measures import measures
from vdit.scaling.runs import gather

FIGURES = {
    *("isoflop", "compute", "best-size", "best-data", "contours", "residuals", "velocity"),
    *("packing_tokens", "packing_rows", "curves"),
}
SECTIONS = ("scaling held-out law velocity samples-compute samples-film data curves runs limits machine").split()
VOID = {"meta", "img", "br", "link", "input", "source"}


class Reader(HTMLParser):
    """Checks that tags are nested, and collects what a test asks about."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.sources, self.text, self.figures, self.sections = [], [], [], "", {}, []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.sources += [attributes[name] for name in ("src", "href", "data", "poster") if name in attributes]
        if tag == "section":
            self.sections.append(attributes["id"])
        if tag == "script":
            self.script = attributes.get("id", "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            if self.script.startswith("figure-"):
                self.figures[self.script] = json.loads(data)
        elif not self.open or self.open[-1] != "style":
            self.text += data


def read(file):
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    return reader


def test_full_study(make_study, tmp_path):
    root = make_study()
    found = report.write_report(root, tmp_path / "out" / "report.html", bootstraps=50)
    page = read(tmp_path / "out" / "report.html")
    assert page.sections == SECTIONS
    assert set(page.figures) == {f"figure-{name}" for name in FIGURES}
    assert all(source.startswith(("data:", "#")) for source in page.sources), "nothing is fetched from elsewhere"
    assert page.tags.count("video") == 1 and page.tags.count("img") == 4
    assert "Balls & <film>" in page.text and "a red <b>ball</b>" in page.text
    assert page.text.count("not run yet") == 1  # the sample whose file is gone
    assert found.prediction.written == "" and abs(found.prediction.error) < 0.02
    assert "no prediction was written before" in page.text.lower()
    assert (root / "runs.csv").read_text().count("\n") == 17
    assert (tmp_path / "out" / "report.html").read_text().count(charts.scripts()) == 1
    assert (tmp_path / "out" / "report.html").stat().st_size < 2e6


def test_prediction_written_before_the_run(make_study, tmp_path):
    root = make_study()
    said = {
        "flops": 3.2e13,
        "run": "big",
        "params": 1.5e5,
        "tokens": 3.5e7,
        "predicted_loss": 0.2,
        "interval": [0.19, 0.21],
    }
    said["metrics"] = {"velocity_out": {"predicted": 0.66, "interval": [0.5, 0.8], "baseline": 0.9}}
    (root / "prediction.json").write_text(
        json.dumps({**said, "baseline_loss": 0.25, "written": "2025-01-01T00:00:00+00:00"})
    )
    found = analyse(gather(root), bootstraps=20).prediction
    assert (found.loss, found.interval, found.written[:4]) == (0.2, (0.19, 0.21), "2025")
    result = root / "runs" / "big" / "result.json"
    result.write_text(
        json.dumps(json.loads(result.read_text()) | {"started": "2024-12-31T00:00:00+00:00", "loss": 0.22})
    )
    report.write_report(root, tmp_path / "r.html", bootstraps=20)
    cells = " ".join(read(tmp_path / "r.html").text.split())
    assert "velocity_out" in cells and "0.6600" in cells and "+10.0%" in cells  # measured: 0.6
    found = analyse(gather(root), bootstraps=20).prediction
    assert found.written == "" and found.covered is False and found.baseline_error == pytest.approx(0.25 / 0.22 - 1)
    (root / "runs" / "big" / "result.json").unlink()
    report.write_report(root, tmp_path / "r.html", bootstraps=20)
    assert "it has not finished" in read(tmp_path / "r.html").text


@pytest.mark.parametrize("budgets", [(), (1e12,), (1e12, 3.2e12)])
@pytest.mark.parametrize("extras", [False, True])
def test_partial_studies(make_study, tmp_path, budgets, extras):
    report.write_report(make_study(budgets, held_out=False, extras=extras), tmp_path / "r.html", bootstraps=20)
    page = read(tmp_path / "r.html")
    assert set(page.sections) <= {*SECTIONS, "measures"} and {"scaling", "law", "runs", "limits"} <= set(page.sections)
    assert ("samples-film" in page.sections) == extras and ("not run yet" in page.text or budgets)
    assert ("figure-isoflop" in page.figures) == bool(budgets)
    assert ("figure-packing_rows" in page.figures) == extras
    assert "There is no law yet" in page.text or len(budgets) != 1


def test_a_page_is_replaced_whole_or_not_at_all(make_study, tmp_path, monkeypatch):
    out = tmp_path / "r.html"
    out.write_text("old")
    monkeypatch.setattr(pages, "html", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write_report(make_study(), out, bootstraps=5)
    assert out.read_text() == "old"


def test_edge_minima_are_confessed(make_study, tmp_path):
    root = make_study()
    for file in root.glob("runs/c1.0e+13*/result.json"):
        run = json.loads(file.read_text())
        if run["params"] < 1e5:
            file.unlink()
        if run["params"] == 1.25e5:  # a third size, so that there is a parabola with its minimum below all of them
            run |= {"run": "between", "params": 2e5, "loss": run["loss"] * 1.1}
            (root / "runs" / "between").mkdir()
            (root / "runs" / "between" / "result.json").write_text(json.dumps(run))
    report.write_report(root, tmp_path / "r.html", bootstraps=20)
    assert "takes no part in the power laws" in read(tmp_path / "r.html").text


def test_figures_are_written_as_files(make_study, tmp_path):
    found = analyse(gather(make_study()), 5)
    written = report.write_figures(found, tmp_path / "figures")
    assert {file.stem for file in written} == FIGURES and len(written) == 2 * len(FIGURES)
    assert all(file.stat().st_size > 1000 for file in written)


def test_what_stands_in_files_stays_text(make_study, tmp_path):
    hostile = "{{ scripts }}{{plotly}}</script><script>alert(1)</script>`**<b>x"
    root = make_study()
    for file in [*root.glob("runs/c1.0e+12*/result.json"), root / "study.json", root / "data" / "film.json"]:
        values = json.loads(file.read_text())
        values |= {"run": hostile, "title": hostile, "source": hostile, "licence": hostile}
        if "shapes" in values:
            values |= {"shapes": {"distinct_sizes": hostile}, "splits": {hostile: hostile}}
        file.write_text(json.dumps(values))
    samples = [
        sample | {"prompt": hostile, "label": hostile}
        for sample in json.loads((root / "samples/samples.json").read_text())
    ]
    (root / "samples" / "samples.json").write_text(json.dumps(samples))
    report.write_report(root, tmp_path / "r.html", bootstraps=5)
    page = read(tmp_path / "r.html")
    scripts = 3 + len(page.figures) + 1  # Vega, its themes, what draws and what plays
    assert (
        page.tags.count("script") == scripts and page.text.count("{{ scripts }}{{plotly}}</script><script>alert(1)") > 8
    )
    assert (tmp_path / "r.html").stat().st_size < 2e6


def test_runs_without_validation_say_so(make_study, tmp_path):
    root = make_study(held_out=False, extras=False)
    for file in root.glob("runs/*/result.json"):
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "loss": None, "loss_interval": None}))
    report.write_report(root, tmp_path / "r.html", bootstraps=5)
    text = read(tmp_path / "r.html").text
    assert "15 runs are finished" in text and "15 runs are without a validation loss" in text
    assert (
        "train.evaluate_every" in text
        and "No run has finished" not in text
        and "no run of the grid has finished" not in text
    )


def test_a_measure_that_nobody_described_has_a_figure(make_study, tmp_path):
    root = make_study(held_out=False, extras=False)
    for number, file in enumerate(sorted(root.glob("runs/*/result.json"))):
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "gripper_slip": 0.1 * number, "frames_seen": 4}))
    report.write_report(root, tmp_path / "r.html", bootstraps=5)
    page = read(tmp_path / "r.html")
    assert {"figure-gripper_slip", "figure-velocity"} <= set(page.figures) and "measures" in page.sections
    assert "The same for all runs: frames_seen 4" in page.text
    shown = json.dumps(page.figures["figure-gripper_slip"])
    assert '"value": 1.4' in shown or "1.4000000000000001" in shown


def test_a_table_of_others_reads_as_theirs(make_study, tmp_path):
    root = make_study(extras=False)
    for file in root.glob("runs/*/result.json"):
        values = json.loads(file.read_text())
        kept = ("kind", "params", "tokens", "flops", "loss", "learning_rate")
        file.write_text(json.dumps({name: values[name] for name in kept if name in values}))
    report.write_report(root, tmp_path / "r.html", bootstraps=5)
    text = read(tmp_path / "r.html").text.lower()
    for word in ("ball", "film", "patches", "desktop", "cpu", "physics", "tuned", "validation", "embeddings", "epochs"):
        assert word not in text, word


def test_a_csv_has_a_page_too(tmp_path):
    report.write_report("tests/scaling/chinchilla.csv", tmp_path / "r.html", bootstraps=5)
    page = read(tmp_path / "r.html")
    assert page.sections == ["scaling", "law", "runs", "limits"] and "Over 9,273 times the compute" in page.text
    assert (
        "From tests/scaling/chinchilla.csv" in page.text
        and "vdit.scaling.fit tests/scaling/chinchilla.csv" in page.text
    )
    assert "a, Akima" in page.text and "Huber's delta 0.01" in page.text and "Kaplan" in page.text
    assert "D is taken from C = 6 N D" in page.text and not (tmp_path / "runs.csv").exists()


def test_measures_of_a_csv_are_drawn_whatever_the_kind_of_run(tmp_path):
    report.write_report("tests/scaling/arms.csv", tmp_path / "r.html", bootstraps=5)
    page = read(tmp_path / "r.html")
    assert {"figure-kid", "figure-lost", "figure-velocity", "figure-loss_ood"} <= set(page.figures)
    points = [row for layer in page.figures["figure-kid"]["layer"] for row in layer["data"]["values"] if "run" in row]
    assert len(points) == 12  # nine of arms, three held out


def predict(root, loss, interval, measured):
    """Writes a prediction before the held-out run and what the run came to."""
    said = {"flops": 3.2e13, "run": "big", "params": 1.5e5, "tokens": 3.5e7, "baseline_loss": 0.25}
    said |= {"predicted_loss": loss, "interval": interval, "written": "2025-01-01T00:00:00+00:00"}
    (root / "prediction.json").write_text(json.dumps(said))
    result = root / "runs" / "big" / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"loss": measured}))


@pytest.mark.parametrize(
    ("interval", "measured", "said"),
    [
        ([0.001605, 0.005043], 0.001220, "predicted 0.00255 [0.0016, 0.0050], measured 0.00122"),
        ([0.001605, 0.005043], 0.002, "predicted 0.00255 [0.0016, 0.0050], measured 0.00200"),
        ([0.002541, 0.002551], 0.002547, "predicted 0.0025457 [0.002541, 0.002551], measured 0.0025470"),
        (None, 0.00123456, "predicted 0.002546, measured 0.001235"),
    ],
)
def test_the_opening_says_whether_the_prediction_held(make_study, interval, measured, said):
    root = make_study()
    predict(root, 0.0025457, interval, measured)
    found = analyse(gather(root), bootstraps=5)
    held = None if interval is None else "held" if interval[0] <= measured <= interval[1] else "missed"
    label, figure, remark = words.tiles(found)[0]
    assert (label, remark) == ("prediction of the held-out run", said)
    assert figure == (held or "off by 106%")
    (statement,) = (line for line in words.summary(found) if line.startswith("**Prediction"))
    assert statement.startswith(f"**Prediction {held}.**" if held else "**Prediction.**")
    limits = " ".join(words.limits(found))
    assert ("The law missed the held-out run" in limits) == (held == "missed")


def test_the_opening_is_a_few_short_statements(make_study, tmp_path):
    found = report.write_report(make_study(), tmp_path / "r.html", bootstraps=5)
    statements = words.summary(found)
    assert len(statements) <= 6 and all(len(line) < 220 for line in statements)
    page = (tmp_path / "r.html").read_text()
    opening = page[page.index("<header>") : page.index("</header>")]
    assert opening.count("<li>") == len(statements) - 1
    text = read(tmp_path / "r.html").text
    assert "Velocity error. At best from" in text and "Predicted only after the held-out run, by this report," in text


def test_a_prediction_made_afterwards_is_not_called_one_made_before(make_study):
    found = analyse(gather(make_study()), bootstraps=5)
    assert words.tiles(found)[0][0] == "held-out run, predicted only afterwards"


@pytest.mark.parametrize(
    ("moves", "said"),
    [
        ([0.0004, -0.0001], "left out, no run moves the exponent by 0.001"),
        ([-0.138, 0.0055, 0.0002], "left out, these move the exponent most: `0` -0.14; `1` +0.0055"),
    ],
)
def test_influential_runs_are_those_that_move_the_exponent(moves, said):
    assert law_section.influential([{"run": i, "a_moves": move} for i, move in enumerate(moves)]) == said


def test_measures_that_nobody_described_are_called_after_those_that_somebody_did():
    about = {"bounce_velocity": {"title": "velocity error of bouncing balls", "unit": "units/s"}, "bounce": {}}
    row = {"bounce_velocity_in": 1.0, "bounce_velocity_slow": 0.5, "loss_ood": 2.0, "gripper_slip": 3.0}
    titles = {each.name: (each.title, each.unit) for each in measures([row], about)}
    assert titles == {
        "bounce_velocity": ("velocity error of bouncing balls", "units/s"),
        "bounce_velocity_slow": ("velocity error of bouncing balls: slow", "units/s"),
        "loss_ood": ("loss, out of distribution", ""),
        "gripper_slip": ("gripper slip", ""),
    }


def test_the_exponent_is_not_made_the_coefficient(make_study):
    found = dataclasses.replace(analyse(gather(make_study()), 5), warnings=("a is ill-determined", "outliers: b"))
    assert words.limits(found)[:2] == ["The exponent a is ill-determined.", "Outliers: b."]


def test_one_budget_is_no_plural():
    assert fit_words.largest(1) == "the largest budget, predicted"
    assert fit_words.largest(3) == "the 3 largest budgets, each predicted"


def test_a_csv_without_its_highest_losses():
    found = of_csv("tests/scaling/chinchilla.csv", bootstraps=0, drop_highest=5)
    assert len(found.grid) == 240 and found.fit.law.exponent() == pytest.approx(0.514, abs=5e-4)
    assert sum("run" in row for row in drawn_points(figures.isoflop(found))) == 240


def drawn_points(chart):
    """Rows of all layers of a chart."""
    return [row for layer in charts.spec(chart)["layer"] for row in layer["data"].get("values", [])]


def test_envelope_keeps_new_lows():
    x, y = envelope([3, 1, 2, 4], [2.0, 5.0, 6.0, 1.0])
    assert (list(x), list(y)) == ([1, 3, 4], [5.0, 2.0, 1.0])


def test_command(tmp_path, make_study):
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "vdit.scaling.report", *arguments], capture_output=True, text=True)

    done = run(str(make_study((), held_out=False, extras=False)), f"--out={tmp_path}/r.html")
    assert done.returncode == 0 and "0 finished runs" in done.stdout
    failed = run(str(tmp_path / "nowhere"), f"--out={tmp_path}/n.html")
    assert failed.returncode == 2 and "nowhere" in failed.stderr and failed.stderr.count("\n") == 1
    assert not (tmp_path / "n.html").exists()
