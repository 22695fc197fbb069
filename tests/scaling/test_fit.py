import json
import subprocess
import sys
from pathlib import Path

import pytest

from vdit.scaling import fit
from vdit.scaling.runs import gather, write_csv

CHINCHILLA = Path(__file__).with_name("chinchilla.csv")


def test_chinchilla_without_its_five_highest_losses():
    fitted, held_out = fit.load(CHINCHILLA, drop_highest=5)
    found = fit.report(fitted, held_out, bootstraps=400)
    expected = {"A": 477.8, "B": 2143, "E": 1.817, "alpha": 0.3473, "beta": 0.3672}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.005)
    assert found["a"] == pytest.approx(0.514, abs=5e-4)
    low, high = found["a_interval"]
    assert low == pytest.approx(0.495, abs=0.008) and high == pytest.approx(0.542, abs=0.008)
    assert found["rows"] == 240 and not found["warnings"] and "by construction" in found["cost"]["convention"]
    assert found["approach2"]["params"]["exponent"] == pytest.approx(0.5, abs=0.03)
    json.dumps(found, allow_nan=False)


def test_outliers_move_the_exponent():
    fitted, _ = fit.load(CHINCHILLA)
    assert fit.fit_law(fitted.params, fitted.tokens, fitted.loss, bootstraps=0).law.exponent() == pytest.approx(
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
