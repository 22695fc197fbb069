import resource
import subprocess
import sys

import cli
import pytest
import tiny
from absl import flags
from ml_collections import ConfigDict

from launch.sweeps import compile_check, expand, status, tpu_slices
from launch.sweeps.grid import Points, chain, over, point, product, zipped
from vdit.command import config_flag
from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.training.record.identity import run_id


@pytest.fixture
def run(capfd):
    return cli.runner(capfd)


def write(folder, runs: str, **more):
    """A sweep file over the tiny experiment."""
    config = tiny.write_config(folder / "experiment.py", tiny.tiny_config())
    values = {"name": "a sweep", "config": str(config)} | more
    path = folder / "sweep.py"
    path.write_text(
        "from ml_collections import ConfigDict\nfrom launch.sweeps.grid import *\n\n\n"
        f"def get_config():\n    return ConfigDict({{**{values!r}, 'runs': {runs}}})\n"
    )
    return path


def test_products_zips_and_chains():
    widths, seeds = over("model.width", 16, 32), over("seed", 0, 1)
    assert list(product(widths, seeds)) == [{"model.width": w, "seed": s} for w in (16, 32) for s in (0, 1)]
    assert list(zipped(widths, seeds)) == [{"model.width": 16, "seed": 0}, {"model.width": 32, "seed": 1}]
    assert list(chain(point({"seed": 7}), seeds)) == [{"seed": 7}, {"seed": 0}, {"seed": 1}]
    assert len(product(widths, zipped(seeds, over("train.steps", 1, 2)), point({"data.split": "train"}))) == 4
    with pytest.raises(UserError, match=r"one length, not of 2, 3"):
        zipped(widths, over("seed", 0, 1, 2))
    with pytest.raises(UserError, match=r"two axes of a sweep set seed; chain\(\)"):
        product(seeds, over("seed", 3))


VALUES = {
    "data.captions": ('a red ball; it isn\'t "big"', "$(touch /tmp/x) `id`"),
    "data.split": 'it\'s "here" $(touch /tmp/x)\n*',
    "optimizer.learning_rate": 2.5e-4,
    "optimizer.warmup": 17,
    "diffusion.size_shift": False,
    "train.keep_steps": (2, 4),
    "train.branch_from": "a trunk/$HOME",
    "model.prediction": "v",
    "seed": 3,
}


@pytest.mark.parametrize("whole", [True, False])
def test_flags_give_the_config_that_was_planned(tmp_path, whole, monkeypatch):
    """Whether the experiment has the fields or leaves them out, and whatever is in the values."""
    path = tmp_path / "experiment.py"
    if whole:
        tiny.write_config(path, tiny.tiny_config())
    else:
        path.write_text("from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict()\n")
    (planned,) = expand.expand(str(path), point(VALUES))
    name = f"experiment{whole}"
    config_flag.define(name, "", "")
    try:
        arguments = [flag.replace("--config", f"--{name}", 1) for flag in planned.overrides]
        monkeypatch.setattr(sys, "argv", ["x", f"--{name}={path}", *arguments])  # where ml_collections looks, too
        flags.FLAGS.unparse_flags()
        flags.FLAGS(sys.argv)
        parsed = build(flags.FLAGS[name].value.to_dict(), Config)
    finally:
        for made in [flag for flag in flags.FLAGS if flag.split(".")[0] == name]:
            delattr(flags.FLAGS, made)
        flags.FLAGS.unparse_flags()
    assert parsed == planned.config and run_id(parsed) == planned.id
    assert parsed.data.captions == VALUES["data.captions"] and parsed.data.split == VALUES["data.split"]


def test_a_sweep_that_makes_no_sense(tmp_path):
    def error(runs, **more) -> str:
        with pytest.raises(UserError) as found:
            expand.build_sweep(expand.load(str(write(tmp_path, runs, **more))), "sweep.py")
        return str(found.value)

    assert "run --config.model.widht=3: unknown config field model.widht; did you mean" in error(
        "over('model.widht', 3)"
    )
    assert "--config.model.width=20: model.width=20 is not a multiple" in error("over('model.width', 16, 20)")
    assert "config field seed.x does not exist" in error("over('seed.x', 3)")
    assert "runs must be made with over" in error("[1, 2]")
    assert "two runs of the sweep are the same: seed=1; seed=1" in error("over('seed', 0, 1, 1)")
    assert "told apart by the names of their folders" in error("over('data.path', '/a/x', '/b/x')")
    assert "unknown field hardware" in error("over('seed', 1)", hardware=3)
    assert "must be fit for a folder" in error("over('seed', 1)", name="../up")
    assert "local.at_once=0 must be at least 1" in error("over('seed', 1)", local={"at_once": 0})
    assert "unknown config field gke.imagee; did you mean gke.image" in error("over('seed', 1)", gke={"imagee": ""})
    assert "max_spend needs" in error("over('seed', 1)", queued_resources={"max_spend": 3.0})
    assert "is a whole number, so it cannot be 0.5" in error("over('train.steps', 0.5)")


CLOUD = ("--to=queued_resources", "--dry_run", *(f"--sweep.queued_resources.{field}" for field in
         ("project=p", "zone=z", "topology=v5e:2x2", "bucket=gs://b")))  # fmt: skip


def test_a_run_that_cannot_start_is_refused_with_what_mends_it(run, tmp_path):
    path = write(tmp_path, "over('optimizer.learning_rate', 1e-3, 2e-3)")
    error = run("launch.sweep", f"--sweep={path}", *CLOUD, f"--out={tmp_path}").error
    assert "cannot start on v5e:2x2: 4 devices share the rows of a step" in error
    assert "data.rows_per_step=2 is not a multiple of 4; add --config.data.rows_per_step=4, or" in error
    mended = run("launch.sweep", f"--sweep={path}", *CLOUD, "--config.data.rows_per_step=4")
    assert mended.status == 0 and mended.out.count("--config.data.rows_per_step=4") == 2, mended.err
    two = (*CLOUD, "--sweep.queued_resources.slices=2", "--config.data.rows_per_step=12")
    assert "on 2 slices of v5e:2x2: 8 devices share" in run("launch.sweep", f"--sweep={path}", *two).error
    wide = run("launch.sweep", f"--sweep={path}", *CLOUD, "--config.mesh.fsdp=3").error
    assert "cannot start on v5e:2x2: config.mesh" in wide and "needs 3 devices, there are 4" in wide
    local = ("--to=local", "--dry_run", "--sweep.local.gpus=4")
    assert "on the 4 devices of a run on local" in run("launch.sweep", f"--sweep={path}", *local).error
    seven = ("--to=gke", "--dry_run", "--sweep.gke.topology=tpu7x:2x2x1", "--sweep.gke.image=i", "--sweep.gke.bucket=b")
    assert "8 devices share" in run("launch.sweep", f"--sweep={path}", *seven).error  # on 4 chips


def test_flags_set_fields_in_every_run(tmp_path):
    config = tiny.write_config(tmp_path / "experiment.py", tiny.tiny_config())
    given = [
        "train.steps=9",
        "data.split=it's $HOME",
        "diffusion.size_shift=false",
        "mesh.fsdp=2",
        "data.weights=(1.0,)",
    ]
    with expand.in_every_run([f"--config.{flag}" for flag in given]):
        first, second = expand.expand(str(config), over("seed", 1, 2))
        with pytest.raises(UserError, match="--config.train.steps sets what the sweep varies itself"):
            expand.expand(str(config), over("train.steps", 1, 2))
    for made in (first, second):
        found = made.config
        assert (found.train.steps, found.data.split, found.mesh.fsdp) == (9, "it's $HOME", 2)
        assert found.diffusion.size_shift is False and found.data.weights == (1.0,)
        assert "--config.data.split=it's $HOME" in made.overrides
    (alone, _) = expand.expand(str(config), over("seed", 1, 2))
    assert alone.config.train.steps != 9  # no longer


def test_status_shows_the_fields_that_differ():
    runs = [
        ("seed=1 train.steps=4", ["seed=1", "train.steps=4"]),
        ("seed=2 train.steps=4", ["seed=2", "train.steps=4"]),
    ]
    assert status.differing(runs) == ["seed=1", "seed=2"]
    assert status.differing(runs[:1]) == ["seed=1 train.steps=4"]
    assert status.differing([("grid, seed 0", []), *runs]) == ["grid, seed 0", *(label for label, _ in runs)]


def test_the_committed_sweeps_are_valid():
    for path in (
        "configs/sweeps/physics.py",
        "configs/sweeps/mup.py",
    ):  # isoflop.py needs built data: test_isoflop.py
        made = expand.build_sweep(expand.load(path), path)
        assert len(made.runs) == len({run.id for run in made.runs}) >= 2


def test_a_thousand_runs_are_listed_quickly(tmp_path):
    """The figure is in benchmarks/launch.py; here only that nothing grows out of hand."""
    path = write(tmp_path, "product(over('seed', *range(40)), over('train.steps', *range(100, 125)))")
    before = _processor_seconds()
    command = [sys.executable, "-m", "launch.sweep", f"--sweep={path}", "--to=local", f"--out={tmp_path}", "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert _processor_seconds() - before < 20
    assert done.stdout.count("-m vdit.train") == 1000 and "1000 runs of a sweep" in done.stdout
    assert not (tmp_path / "a sweep").exists()


def test_a_dry_run_that_a_shell_reads_executes_its_commands_only(run, tmp_path):
    """Names and values with line breaks stay comments, or arguments of the command."""
    path = write(tmp_path, "over('data.path', 'a\\ntouch pwned', '$(touch pwned)')")
    shown = run("launch.sweep", f"--sweep={path}", "--to=local", "--dry_run").out
    assert shown.count("-m vdit.train") == 2 and "touch pwned" in shown
    commands = shown.replace(sys.executable, "true")
    done = subprocess.run(["bash", "-c", commands], cwd=tmp_path, capture_output=True, text=True)
    assert not (tmp_path / "pwned").exists() and not done.returncode, done.stderr


def _processor_seconds() -> float:
    """Of the processes that were started here; it does not depend on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_mistakes_on_the_command_line(run, tmp_path):
    path = write(tmp_path, "over('seed', 1)")
    assert "are both needed" in run("launch.sweep", "--to=local").error
    assert "--sweep=/nowhere.py is not a file" in run("launch.sweep", "--sweep=/nowhere.py", "--to=local").error
    assert "--to=moon is not one of local" in run("launch.sweep", f"--sweep={path}", "--to=moon").error
    assert "--plan compiles for TPUs" in run("launch.sweep", f"--sweep={path}", "--to=local", "--plan").error
    for command in ("status", "stop", "logs", "collect"):
        assert "is not the folder of a sweep" in run(f"launch.{command}", str(tmp_path)).error
        assert "give the folder of a sweep" in run(f"launch.{command}").error


@pytest.mark.parametrize(
    ("text", "chips", "hosts", "per_host", "accelerator"),
    [
        ("v5e:1x1", 1, 1, 1, "v5litepod-1"),
        ("v5e:2x4", 8, 1, 8, "v5litepod-8"),
        ("v5e:4x4", 16, 4, 4, "v5litepod-16"),
        ("v5p:2x2x1", 4, 1, 4, "v5p-8"),
        ("v5p:8x8x8", 512, 128, 4, "v5p-1024"),
        ("v6e:16x16", 256, 64, 4, "v6e-256"),
        ("v4:2x2x4", 16, 4, 4, "v4-32"),
    ],
)
def test_slices(text, chips, hosts, per_host, accelerator):
    found = tpu_slices.parse(text)
    assert (found.chips, found.hosts, found.per_host, found.accelerator_type) == (chips, hosts, per_host, accelerator)


def test_what_is_no_slice():
    for text in ("", "v5e", "v5e:4", "v5e:4x4x4", "v9:2x2", "v5e-16"):
        with pytest.raises(UserError, match="topology"):
            tpu_slices.parse(text)
    with pytest.raises(UserError, match="GKE only"):
        _ = tpu_slices.parse("tpu7x:2x2x1").accelerator_type


def test_devices_of_slices():
    assert [tpu_slices.parse(text).devices for text in ("v5e:2x2", "v5p:2x2x1", "tpu7x:2x2x1")] == [4, 4, 8]
    assert [tpu_slices.parse(text).needs_workload_policy for text in ("v5p:4x4x4", "tpu7x:2x2x1", "tpu7x:4x4x4")] == [
        *(False, False),
        True,
    ]


PLANNER = """
import json, sys
width = int(next((a.split("=")[1] for a in sys.argv if a.startswith("--config.model.width")), 16))
assert "--topology=v5e:2x2" in sys.argv and "--json" in sys.argv and not any("seed" in a for a in sys.argv)
if width == 48:
    sys.exit("error: mesh sizes do not fit")
told = {"fits": width < 64, "hbm_gib_per_chip": width / 4, "hbm_gib_limit": 15.75, "model_tflops_per_step": 1.0}
print(json.dumps({**told, "step_seconds": 0.5, "mfu": 0.4, "tokens_per_second": 1e5, "collectives": {}}))
"""


@pytest.fixture
def planner(tmp_path, monkeypatch):
    """A stand-in for vdit.plan, of the same contract."""
    (tmp_path / "planner.py").write_text(PLANNER)
    real = subprocess.run

    def answer(command, **more):
        assert command[1:3] == ["-m", "vdit.plan"]
        return real([sys.executable, str(tmp_path / "planner.py"), *command[3:]], **more)

    monkeypatch.setattr(compile_check.subprocess, "run", answer)


def plan(tmp_path, runs, **more):
    tpu = {"topology": "v5e:2x2", "price_per_chip_hour": 1.5, **more}
    made = expand.build_sweep(expand.load(str(write(tmp_path, runs, queued_resources=tpu))), "sweep.py")
    return compile_check.plan(made, "queued_resources", made.settings["queued_resources"])


def test_a_plan_compiles_once_for_runs_of_one_shape(planner, tmp_path):
    text = plan(tmp_path, "product(over('model.width', 16, 32), over('seed', 0, 1), over('train.steps', 7200))")
    lines = text.splitlines()
    assert lines[0].split() == ["run", "HBM", "GiB", "of", "s/step", "MFU", "hours", "cost", "what"]
    assert lines[1].split()[1:7] == ["4.00", "15.75", "0.5", "40.0%", "1.00", "6.00"]
    assert lines[-1] == "4 runs, 2 compiled: 4.00 h, cost 24.00"


def test_a_plan_refuses_what_does_not_fit_or_cannot_be_planned(planner, tmp_path):
    with pytest.raises(UserError, match=r"does not fit v5e:2x2 \(and 1 more\): too little memory; nothing was started"):
        plan(tmp_path, "product(over('model.width', 16, 64), over('seed', 0, 1))")
    with pytest.raises(UserError, match="vdit.plan failed: mesh sizes do not fit"):
        plan(tmp_path, "over('model.width', 48)")
    with pytest.raises(UserError, match="queued_resources.topology is not set"):
        plan(tmp_path, "over('seed', 0)", topology="")


SMALL = """
from ml_collections import ConfigDict


def get_config():
    data = {"row_tokens": 512, "row_text": 64, "row_examples": 8, "rows_per_step": 4}
    plan = {"clips": ("5x32x32",), "words": 8, "stride": (1, 1, 1), "patch": (4, 8, 8), "channels": 3}
    return ConfigDict({"data": data, "plan": plan, "model": {"width": 128, "head_width": 128, "depth": 2}})
"""


@pytest.mark.nightly
def test_the_real_planner(tmp_path):
    (tmp_path / "small.py").write_text(SMALL)
    tpu = {"topology": "v5e:2x2", "price_per_chip_hour": 1.5}
    runs = "product(over('model.width', 128, 256), over('seed', 0, 1))"
    path = write(tmp_path, runs, config=str(tmp_path / "small.py"), queued_resources=tpu)
    made = expand.build_sweep(expand.load(str(path)), "sweep.py")
    lines = compile_check.plan(made, "queued_resources", made.settings["queued_resources"]).splitlines()
    assert len(lines) == 6 and lines[-1].startswith("4 runs, 2 compiled: ") and "cost" in lines[-1]
    memory = [float(line.split()[1]) for line in lines[1:5]]
    assert 0 < memory[0] == memory[1] < memory[2] == memory[3] < float(lines[1].split()[2])


def test_points_are_kept_by_a_config_dict():
    values = ConfigDict({"runs": over("seed", 1)})
    assert isinstance(values.runs, Points)
