import csv
import json

import numpy as np
import pytest

from vdit.errors import UserError
from vdit.scaling.columns import amount, recognise
from vdit.scaling.loading import load
from vdit.scaling.reading import MOST_ROWS, read_runs

RUNS = [(1e17, 6e6, 2.7e9, 4.65), (1e17, 1.2e7, 1.35e9, 4.41), (1e17, 2.4e7, 6.7e8, 4.35)]


def text(header, delimiter=",", rows=RUNS):
    return "\n".join([delimiter.join(header), *(delimiter.join(map(str, row)) for row in rows)]) + "\n"


@pytest.mark.parametrize("header", [
    ["C", "N", "D", "L"], ["compute", "model_size", "data", "loss"],
    ["train_flops", "n_params", "n_tokens", "val_loss"],
    ["Flops", "Params", "Tokens", "Loss"], ["train/flops", "model/params", "data/tokens", "val/loss"],
    ["trainingCompute", "numParams", "trainTokens", "evalLoss"],
    ["throughput/flops", "parameter_count", "throughput/total_tokens", "eval/paloma/macro_loss"],
    ["Compute (C)", "Model params (N)", "Training tokens (D)", "Loss (L)"], ["Ｃ", "Ｎ", "Ｄ", "Ｌ"],
    ["C (FLOPs)", "num_non_embedding_params", "train_tok", "loss_c4_val"],
])  # fmt: skip
def test_usual_names_of_columns(tmp_path, header):
    (tmp_path / "r.csv").write_text(text(header))
    found = read_runs(tmp_path / "r.csv")
    assert [[run[k] for k in ("flops", "params", "tokens", "loss")] for run in found.runs] == [list(r) for r in RUNS]
    assert len(found.notes) == sum(name not in ("flops", "params", "tokens", "loss") for name in header)


@pytest.mark.parametrize("content", [
    "﻿" + text(["flops", "params", "tokens", "loss"]),
    text(["flops", "params", "tokens", "loss"], "\t"),
    text(["flops", "params", "tokens", "loss"], ";").replace("4.65", "4,65"),
    "# of a project\n" + text(["flops", "params", "tokens", "loss"], "|"),
    "\n".join(json.dumps({"flops": c, "model": {"params": n}, "tokens": d, "val": {"loss": y}}) for c, n, d, y in RUNS),
    json.dumps([{"flops": c, "params": n, "tokens": d, "loss": y} for c, n, d, y in RUNS]),
])  # fmt: skip
def test_forms_of_file(tmp_path, content):
    (tmp_path / "r").write_text(content, encoding="utf-8")
    runs = read_runs(tmp_path / "r").runs
    assert [[run[k] for k in ("flops", "params", "tokens", "loss")] for run in runs] == [list(r) for r in RUNS]


def test_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = dict(zip(("C", "N", "D", "loss"), map(list, zip(*RUNS, strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), tmp_path / "r.parquet")
    assert [run["params"] for run in read_runs(tmp_path / "r.parquet").runs] == [row[1] for row in RUNS]


def test_units_and_amounts():
    found = recognise(["N (M)", "tokens_b", "total_gflops", "Final Loss", "tflops"])
    assert found["params"] == ("N (M)", 1e6) and found["tokens"] == ("tokens_b", 1e9)
    assert found["flops"] == ("total_gflops", 1e9) and found["loss"] == ("Final Loss", 1)
    # In this project's own tables tflops is a speed; beside a column flops it is never taken for C.
    assert recognise(["flops", "tflops", "params", "loss"])["flops"] == ("flops", 1)


@pytest.mark.parametrize(("name", "wanted", "factor"), [
    ("Model Size (M params)", "params", 1e6), ("Data (B tokens)", "tokens", 1e9), ("D (in billions)", "tokens", 1e9),
    ("Compute (1e18 FLOPs)", "flops", 1e18), ("C (x10^20 FLOP)", "flops", 1e20), ("C (10¹⁹ FLOPs)", "flops", 1e19),
    ("flops_e21", "flops", 1e21), ("PF-days", "flops", 8.64e19), ("petaflop/s-days", "flops", 8.64e19),
])  # fmt: skip
def test_units_of_columns(name, wanted, factor):
    found = recognise(["loss", name])
    assert set(found) == {"loss", wanted} and found[wanted] == (name, pytest.approx(factor))


@pytest.mark.parametrize(
    "name", ["log10_params", "log N", "embedding_params", "tokens_per_param", "aux_loss", "loss_std"]
)
def test_columns_that_hold_something_else(name):
    assert recognise([name]) == {}


@pytest.mark.parametrize("better", ["eval/c4_en/loss", "val_loss", "final_loss", "loss (c4)"])
def test_a_training_loss_is_the_last_choice(better):
    for names in (["train/loss", "train_loss", better], [better, "training loss"]):
        assert recognise(names)["loss"][0] == better
    assert recognise(["active_params", "total_params"])["params"][0] == "active_params"


def test_amounts_in_words_and_missing_flops(tmp_path):
    (tmp_path / "r.csv").write_text('params,tokens,loss\n125M,"2,500,000,000",3.5\n1.3B,26B,2.6\n')
    found = read_runs(tmp_path / "r.csv")
    assert found.runs[0]["params"] == 125e6 and found.runs[0]["tokens"] == 2.5e9
    assert found.runs[1]["flops"] == pytest.approx(6 * 1.3e9 * 26e9)
    assert found.notes == ("there is no column of FLOPs: C is 6 N D",)
    assert [amount(word) for word in ("1.5 billion", "3x10^20", "70 bn", "12 GB")] == [1.5e9, 3e20, 7e10, None]


def test_columns_by_hand_and_what_is_there_when_refused(tmp_path):
    (tmp_path / "r.csv").write_text(text(["a", "b", "tokens", "score"]))
    with pytest.raises(UserError, match="It has a, b, tokens, score; say which is which by --columns"):
        read_runs(tmp_path / "r.csv")
    runs = read_runs(tmp_path / "r.csv", {"flops": "a", "params": "b", "loss": "score"}).runs
    assert runs[0]["params"] == 6e6
    with pytest.raises(UserError, match="there is no column x; there are a, b"):
        read_runs(tmp_path / "r.csv", {"params": "x"})


def test_tables_too_large_are_refused_in_a_line(tmp_path):
    (tmp_path / "r.csv").write_text("flops,params,loss\n" + "1e17,1e7,3\n" * (MOST_ROWS + 1))
    with pytest.raises(UserError, match="not training curves"):
        read_runs(tmp_path / "r.csv")


def write(path, runs):
    names = list(dict.fromkeys(name for run in runs for name in run))
    lines = [",".join(str(run.get(name, "")) for name in names) for run in runs]
    path.write_text("\n".join([",".join(names), *lines]))


def grid(noise=0.003):
    rng = np.random.default_rng(0)
    runs = []
    for c in np.geomspace(1e17, 1e19, 4):
        for factor in (0.25, 0.5, 1, 2, 4):
            n = 0.1 * c**0.5 * factor
            d = c / (6 * n)
            loss = (1.8 + 480 / n**0.35 + 2000 / d**0.37) * np.exp(rng.normal(0, noise))
            runs.append({"run": f"r{len(runs)}", "flops": c, "params": n, "tokens": d, "loss": loss})
    return runs


def test_exports_of_wandb_hold_dictionaries_and_boxed_values(tmp_path):
    """The table of wandb's guide to exports: a column of summaries, one of configurations, as Python prints them."""
    rows = [
        (str({"val": {"loss": y}, "tokens": d, "_step": 9, "best": float("nan")}), str({"n_params": n}), f"r{place}")
        for place, (_, n, d, y) in enumerate(RUNS)
    ]
    with (tmp_path / "w.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("", "summary", "config", "name"), *((i, *row) for i, row in enumerate(rows))])
    boxed = [{"config": {"n_params": {"value": n, "desc": None}}, "tokens": d, "loss": y} for _, n, d, y in RUNS]
    (tmp_path / "w.json").write_text(json.dumps(boxed))
    for name in ("w.csv", "w.json"):
        runs = read_runs(tmp_path / name).runs
        assert [[run[k] for k in ("params", "tokens", "loss")] for run in runs] == [list(r[1:]) for r in RUNS]


def test_spreadsheets_leave_empty_columns_and_a_note(tmp_path):
    """Excel says "sep=;" and ends each line with the delimiters of columns that once were."""
    lines = text(["flops", "params", "tokens", "loss"], ";").splitlines()
    (tmp_path / "r.csv").write_text("sep=;\r\n" + "".join(f"{line};;\r\n" for line in lines))
    assert [run["loss"] for run in read_runs(tmp_path / "r.csv").runs] == [row[3] for row in RUNS]


def test_diverged_unfinished_and_repeated_runs_are_left_out_and_named(tmp_path):
    runs = grid()
    for place in (2, 7, 13):
        runs[place] |= {"loss": 11.0}
    runs[5] |= {"loss": "nan"}
    write(tmp_path / "r.csv", [*runs, runs[0], runs[0]])
    loaded = load(tmp_path / "r.csv")
    assert len(loaded.fitted) == 16
    assert loaded.warnings[0].endswith("no final loss: r5") and loaded.warnings[1].startswith("2 rows repeat another")
    assert loaded.warnings[2].endswith("seem to have diverged: r2, r7, r13")


def test_clean_and_undertrained_runs_stay(tmp_path):
    """A large model that saw few tokens ends high, lawfully."""
    runs = grid()
    for n, d in ((3e9, 1e8), (6e9, 1e8)):
        runs.append({"flops": 6 * n * d, "params": n, "tokens": d, "loss": 1.8 + 480 / n**0.35 + 2000 / d**0.37})
    write(tmp_path / "r.csv", runs)
    loaded = load(tmp_path / "r.csv")
    assert len(loaded.fitted) == 22 and loaded.warnings == ()


@pytest.mark.parametrize(("column", "value"), [
    ("kind", "held-out"), ("kind", "HoldOut"), ("split", "test"), ("held_out", "True"), ("heldout", "1"),
    ("is_heldout", "yes"), ("run is held out", "1.0"), ("for_holdout_only", "True"), ("phase", "Held-out run"),
    ("what for", "extrapolation"), ("Hold-out?", "Y"), ("subset", "unseen"), ("role", "eval"), ("extrapolate", "t"),
])  # fmt: skip
def test_held_out_in_any_spelling(tmp_path, column, value):
    runs = grid()
    write(tmp_path / "r.csv", [*runs[:-1], runs[-1] | {column: value}])
    loaded = load(tmp_path / "r.csv")
    assert loaded.held_out.names == ("r19",) and len(loaded.fitted) == 19


def test_numbers_of_folds_hold_nothing_out(tmp_path):
    write(tmp_path / "r.csv", [run | {"split": place % 4} for place, run in enumerate(grid())])
    loaded = load(tmp_path / "r.csv")
    assert loaded.held_out is None and len(loaded.fitted) == 20


def test_held_out_by_what_is_fitted_and_by_validation(tmp_path):
    runs = grid()
    write(tmp_path / "f.csv", [run | {"used_for_fit": str(place < 18)} for place, run in enumerate(runs)])
    write(tmp_path / "v.csv", [run | {"split": "train" if place < 18 else "val"} for place, run in enumerate(runs)])
    for name in ("f.csv", "v.csv"):
        assert load(tmp_path / name).held_out.names == ("r18", "r19")
    write(tmp_path / "l.csv", [run | {"split": "validation"} for run in runs])  # what the losses are of
    assert load(tmp_path / "l.csv").held_out is None and len(load(tmp_path / "l.csv").fitted) == 20


def test_runs_of_other_kinds_are_counted(tmp_path):
    runs = [run | {"kind": "trunk" if place < 2 else "grid"} for place, run in enumerate(grid())]
    write(tmp_path / "r.csv", runs)
    loaded = load(tmp_path / "r.csv")
    assert len(loaded.fitted) == 18 and loaded.notes == ("neither fitted nor held out: 2 of kind trunk",)


def test_contradicting_budgets_and_flops_are_not_believed(tmp_path):
    runs = grid()
    write(tmp_path / "b.csv", [run | {"budget": 1e18} for run in runs])
    loaded = load(tmp_path / "b.csv")
    assert np.isnan(loaded.fitted.budgets).all() and "found from the flops" in loaded.warnings[0]
    write(tmp_path / "w.csv", [run | {"budget": "small"} for run in runs])
    assert "holds words" in load(tmp_path / "w.csv").notes[0]
    rng = np.random.default_rng(0)
    write(tmp_path / "f.csv", [run | {"flops": rng.lognormal(40, 8)} for run in runs])
    loaded = load(tmp_path / "f.csv")
    assert loaded.fitted.convention == "C = 6 N D" and "without any order" in loaded.warnings[0]
    write(tmp_path / "u.csv", [run | {"params": run["params"] / 1e6} for run in runs])
    assert "are units mixed (a factor 1e6)" in load(tmp_path / "u.csv").warnings[0]


def test_rows_of_one_name_keep_their_own_columns(tmp_path):
    """Names of wandb repeat; rows of one name and size at several D may be checkpoints."""
    runs = [run | {"run": "same", "arm": place % 2} for place, run in enumerate(grid())]
    write(tmp_path / "r.csv", runs)
    loaded = load(tmp_path / "r.csv", drop_highest=3)
    assert [run["loss"] for run in loaded.runs] == list(loaded.fitted.loss) and len(loaded.runs) == 17
    assert len({run["arm"] for run in loaded.runs}) == 2 and loaded.warnings == ()
    curve = [{"run": "a", "params": 1e8, "tokens": d, "loss": 2 + 1e3 / d**0.3} for d in np.geomspace(1e9, 1e11, 5)]
    write(tmp_path / "c.csv", [*runs, *curve])
    assert any(line.startswith("runs have rows at several D (a)") for line in load(tmp_path / "c.csv").warnings)


def test_perplexities_are_read_as_their_logs_and_said(tmp_path):
    rows = [(c, n, d, np.exp(y)) for c, n, d, y in RUNS]
    (tmp_path / "r.csv").write_text(text(["flops", "params", "tokens", "eval/ppl"], rows=rows))
    for columns in (None, {"loss": "eval/ppl"}):
        found = read_runs(tmp_path / "r.csv", columns)
        assert [run["loss"] for run in found.runs] == pytest.approx([row[3] for row in RUNS])
        assert "loss is the log of column eval/ppl" in found.notes
    assert recognise(["train_loss", "val_perplexity", "eval/bpb"])["loss"][0] == "eval/bpb"
    assert recognise(["train_loss", "val_perplexity"])["loss"][0] == "val_perplexity"


def test_where(tmp_path):
    write(tmp_path / "r.csv", grid())
    loaded = load(tmp_path / "r.csv", where="tokens/params > 20 and not run == 'r0'")
    assert (loaded.fitted.tokens / loaded.fitted.params > 20).all() and "r0" not in loaded.fitted.names
    assert len(load(tmp_path / "r.csv", where="D/N >= 0 or L < 1").fitted) == 20
    for condition, message in [
        ("__import__('os')", "no run has __import__"), ("loss.real > 1", "only"), ("(lambda: 1)()", "only"),
        ("loss >", "not a condition"), ("size > 1", "no run has size; they have"), ("loss > 99", "met by none"),
        ("9**9**9**9 > loss", "met by none"), ("[loss for loss in 1]", "only"), ("loss > 'a'", "only"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match="--where.*" + message):
            load(tmp_path / "r.csv", where=condition)


def test_unfinished_runs_of_wandb(tmp_path):
    write(tmp_path / "w.csv", [{"State": "crashed" if i == 3 else "finished", **run} for i, run in enumerate(grid())])
    found = read_runs(tmp_path / "w.csv")
    assert len(found.runs) == 19 and found.notes == ("left out, as their state is not finished: r3",)
