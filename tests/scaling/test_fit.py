import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vdit.scaling.laws.approaches.parametric import fit_law
from vdit.scaling.loading import load
from vdit.scaling.reporting import fit_words
from vdit.scaling.result import Asked, report
from vdit.scaling.runs import gather, table, write_csv

CHINCHILLA = Path(__file__).with_name("chinchilla.csv")


def test_chinchilla_without_its_five_highest_losses():
    found = report(load(CHINCHILLA, drop_highest=5), bootstraps=400)
    expected = {"A": 477.8, "B": 2143, "E": 1.817, "alpha": 0.3473, "beta": 0.3672}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.005)
    assert found["a"] == pytest.approx(0.514, abs=5e-4)
    low, high = found["a_interval"]
    assert low == pytest.approx(0.495, abs=0.008) and high == pytest.approx(0.542, abs=0.008)
    assert [line.replace(":", ",").split(",")[0] for line in found["warnings"]] == [
        "residuals are not noise",  # C was read off a figure
        "outliers",  # what five fewer leave
    ]
    # Budgets are clusters of C, some of few sizes: those without a minimum are marked, and too few to warn of.
    assert any(budget["edge"] for budget in found["approach2"]["budgets"])
    assert found["rows"] == 240 and "by construction" in found["cost"]["convention"]
    assert found["approach2"]["params"]["exponent"] == pytest.approx(0.5, abs=0.03)
    assert found["approach1"]["params"]["exponent"] == pytest.approx(0.5, abs=0.05)
    assert found["repetition"] is None and found["cost"]["a_if_6nd"] == found["a"]
    json.dumps(found, allow_nan=False)


def test_outliers_move_the_exponent():
    fitted = load(CHINCHILLA).fitted
    assert fit_law(fitted.params, fitted.tokens, fitted.loss, bootstraps=0).law.exponent() == pytest.approx(
        0.565, abs=1e-3
    )


def test_command_prints_json_or_words_and_names_mistakes(tmp_path, make_study):
    write_csv(tmp_path / "runs.csv", gather(make_study()).runs)

    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "vdit.scaling.fit", *arguments], capture_output=True, text=True)

    found = json.loads(run(str(tmp_path / "runs.csv"), "--json", "--bootstraps=50").stdout)
    assert {"A", "B", "E", "alpha", "beta", "a", "a_interval", "rows"} <= set(found)
    assert found["rows"] == 15  # the held-out run is judged, not fitted
    (judged,) = found["held_out"]
    assert judged["run"] == "big" and abs(judged["error"]) < 0.02 < judged["baseline_error"]
    words = run(str(tmp_path / "runs.csv"), "--bootstraps=50").stdout
    assert "held out big" in words and "C = 6 N D" in words
    for arguments in (["none.csv"], [], [str(CHINCHILLA), "--drop_highest=245"]):
        failed = run(*arguments)
        assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and failed.stderr.startswith("error: ")


def test_influence_names_a_spoilt_run(tmp_path, make_study):
    runs = [run for run in gather(make_study(held_out=False)).runs]
    runs[7] |= {"loss": runs[7]["loss"] * 1.3}
    write_csv(tmp_path / "runs.csv", runs)
    found = report(load(tmp_path / "runs.csv"), bootstraps=50)
    assert any("outliers" in line and runs[7]["run"] in line for line in found["warnings"])
    strongest = found["influence"][0]
    rest = table([run for run in runs if run["run"] != strongest["run"]])
    without = fit_law(rest.params, rest.tokens, rest.loss, bootstraps=0).law.exponent()
    assert strongest["a_moves"] == pytest.approx(without - found["a"], rel=1e-3) and abs(strongest["a_moves"]) > 1e-3


def test_repeats_metrics_and_conventions(tmp_path, make_study):
    runs = gather(make_study(held_out=False)).runs
    write_csv(tmp_path / "runs.csv", [run | {"unique_tokens": 1e6, "flops": 1.5 * run["flops"]} for run in runs])
    found = report(load(tmp_path / "runs.csv"), 10, asked=Asked(metrics=["velocity_in"], floor=0.01))
    assert found["repetition"]["repeated_rows"] == 14 and found["repetition"]["R_D"] > 0
    assert found["quality"][0]["trend"] == "falls"
    assert "1.50 to 1.50 times 6 N D" in found["cost"]["convention"]
    assert load(tmp_path / "runs.csv", convention="6nd").fitted.convention == "C = 6 N D"
    text = fit_words.describe(found)
    assert "R_D* =" in text and "velocity_in = 0.01 +" in text and "falls with compute" in text
    json.dumps(found, allow_nan=False)


def test_a_law_without_an_optimum_predicts_nothing_and_says_so(tmp_path):
    """Losses that rise with size: alpha ends at 0, the best size is 0 or infinite, and no answer is a number."""
    rng = np.random.default_rng(0)
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 4)))
    loss = 3 + 0.1 * np.log(n / 1e7) + rng.normal(0, 0.01, 20)
    rows = [
        {"flops": 6 * a * b, "params": a, "tokens": b, "loss": c} for a, b, c in zip(n, d, loss, strict=True)
    ]  # fmt: skip
    write_csv(tmp_path / "rising.csv", rows)
    found = report(load(tmp_path / "rising.csv"), 20, asked=Asked(budgets=[1e22], served=1e12))
    assert found["predictions"] == found["serving"] == [] and found["a_interval"] is None
    assert "the fitted law has no best size at C = 1e+22: nothing is predicted there" in found["warnings"]
    json.dumps(found, allow_nan=False)
    assert "warning: the fitted law has no best size" in fit_words.describe(found)


@pytest.mark.parametrize(("command", "arguments", "said"), [
    ("fit", ["none.csv"], "none.csv cannot be read"), ("report", ["none.csv"], "none.csv is not a directory"),
    ("fit", [str(CHINCHILLA), "--arms=optimizer"], "--arms=optimizer: there is no column optimizer; there are params"),
    ("fit", [str(CHINCHILLA), "--metrics=fid"], "--metrics=fid: there is no column fid; there are params"),
    ("fit", [str(CHINCHILLA), "--where=size > 1"], "no run has size"),
])  # fmt: skip
def test_refusals_come_before_what_takes_seconds(command, arguments, said):
    """Under a second of processor time: neither the fits, nor the slow parts of scipy, nor the charts are needed."""
    run = [sys.executable, "-X", "importtime", "-m", f"vdit.scaling.{command}", *arguments]
    failed = subprocess.run(run, capture_output=True, text=True)
    assert failed.returncode == 2 and said in failed.stderr
    assert not any(name in failed.stderr for name in ("scipy.stats", "scipy.interpolate", "altair"))


def test_what_repeats_do_not_determine_has_no_number():
    """As of Muennighoff et al.'s 182 runs, where R_N* runs to the edge of its range."""
    found = {
        "R_D": 25.2, "R_D_interval": (23.0, 28.0), "R_N": 1e12, "R_N_interval": None, "repeated_rows": 153,
        "objective": 0.00657, "half_value_epochs": 18.4, "tenth_value_epochs": 59.0,
        "warnings": ["R_N* is not determined: it ran to the edge of its range (1e+12)"],
    }  # fmt: skip
    line = fit_words._repetition(found)[0]
    assert "R_D* = 25.2   [23, 28], R_N* = not determined; 153 runs repeat" in line and "0.00657" in line
