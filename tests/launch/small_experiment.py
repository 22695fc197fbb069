"""A small experiment on the tiny data set, and training that takes no time, for the tests of experiments."""

import tiny

from launch.experiments.runs.runner import Runner
from launch.experiments.spec import Arm, Experiment, Figure
from launch.sweeps import budget
from vdit.config_dict import to_dict
from vdit.render.pages import Page, Section, markdown
from vdit.scaling.laws.law import Law


def small(**changes) -> Experiment:
    base = to_dict(tiny.tiny_config(log_every=2))
    arms = [Arm("half", {"data.fraction": 0.5}, 1e9, group="a"), Arm("all", {}, 1e9, group="b")]
    values = {
        "name": "small",
        "title": "Half of the data",
        "claim": "Half is enough.",
        "question": "Is it?",
        "data": {"tiny": ("data_pipelines.build", "--source=none")},
        "base": base,
        "arms": arms,
        "measures": ("loss",),
        "figures": (Figure("epochs", ("loss",), "loss"), Figure("arm", ("loss",), "loss", log_y=False)),
        "compare": [("loss", "half", "all")],
    }
    return Experiment(**{**values, **changes})


def fake_train(config, workdir):
    """A run that takes no time: the loss falls with the share of the data, and differs by seed."""
    sums = budget.sums_per_step(config)
    patches = sums.patches * config.train.steps
    loss = 0.3 + 0.1 * (1 - config.data.fraction) + 0.01 * config.seed
    workdir.mkdir(parents=True, exist_ok=True)
    return {
        **{"step": config.train.steps, "patches": patches, "text": 0, "examples": 9, "data_wait": 0.0, "seconds": 3.0},
        **{"params": 100, "params_total": 120, "flops": budget.flops_per_step(config) * config.train.steps},
        **{"epochs": patches / budget.unique_patches(config), "train_seconds": 3.0, "unique_tokens": 10},
        "validation": {"loss": loss, "loss_interval": [loss, loss]},
    }


def runner_of(made, out, encoder="none"):
    docs = out / "docs"
    docs.mkdir(exist_ok=True)
    return Runner(made, out, encoder, docs)


def rows_of(runner):
    return list(runner.rows(runner.trials.plan()))


def as_text(blocks):
    """Parts of a page as they stand on it."""
    return markdown(Page("", [], [Section("", "", blocks)]))


def a_grid():
    law = Law(A=3.0, B=55.0, E=0.09, alpha=0.33, beta=0.42)
    rows = [
        {"kind": "grid", "run": f"{n}-{c}", "flops": c, "params": n, "tokens": c / 6 / n, "width": 4, "depth": 1}
        | {"loss": float(law.loss(n, c / 6 / n)), "budget": c}
        for c in (1e8, 4e8, 1.6e9)
        for n in (1e3, 4e3, 1.6e4)
    ]
    return law, rows
