"""Sweeps on this machine: the queue with a trainer that takes no time, and real runs that are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sweeping
import tiny
from waiting import wait_until

from launch import collect
from launch.sweeps import status
from launch.sweeps.grid import over, point
from launch.sweeps.state import Folder, State
from launch.targets import local, registry
from vdit.errors import UserError
from vdit.scaling.runs import read_csv, table


@pytest.fixture
def quick(tmp_path):
    with sweeping.stand_in(tmp_path):
        yield tmp_path


def order(folder: Folder, run_id: str, *tries) -> None:
    """What the stand-in does at each try."""
    folder.run(run_id).mkdir(parents=True, exist_ok=True)
    (folder.run(run_id) / "script").write_text(json.dumps(tries))


def tried(folder: Folder, run_id: str, process: int = 0) -> int:
    path = folder.run(run_id) / f"tried-{process}"
    return len(path.read_text()) if path.exists() else 0


def states(folder: Folder) -> list[str]:
    return [row.state for row in status.statuses(folder)]


def test_started_twice_it_starts_nothing_twice(quick):
    made = sweeping.sweep(over("seed", 1, 2, 3), quick)
    folder, failed = sweeping.launch(made, quick)
    assert failed == 0 and states(folder) == ["finished"] * 3
    longer = sweeping.sweep(over("seed", 3, 4), quick)
    assert sweeping.launch(longer, quick)[1] == 0
    assert [tried(folder, run.id) for run in (*made.runs, longer.runs[1])] == [1, 1, 1, 1]
    assert [row.label for row in status.statuses(folder)] == ["seed=1", "seed=2", "seed=3", "seed=4"]


def test_not_more_at_once_than_asked_and_each_with_its_own_gpus(quick):
    made = sweeping.sweep(over("seed", *range(5)), quick, at_once=2, gpus=2)
    folder = Folder(quick / made.name)
    for run, after in zip(made.runs, made.runs[1:], strict=False):  # each runs until the one after it does
        order(folder, run.id, {"until": str(folder.run(after.id) / "tried-0")})
    sweeping.launch(made, quick)
    spans = sorted((a["start"], a["end"]) for run in made.runs for a in folder.state(run.id).attempts)
    together = max(sum(start <= at < end for start, end in spans) for at, _ in spans)
    assert together == 2
    logs = [(folder.run(run.id) / "logs" / "0.log").read_text() for run in made.runs]
    assert {log.split()[-1] for log in logs} == {"0,1", "2,3"}


def test_failures_are_tried_again_until_there_is_no_hope(quick, capsys):
    made = sweeping.sweep(over("seed", 1, 2, 3, 4), quick, restarts=2)
    folder = Folder(quick / made.name)
    crashes, mistake, advances, preempted = (run.id for run in made.runs)
    order(folder, crashes, {"status": 1})
    order(folder, mistake, {"status": 2})
    order(folder, advances, *({"step": n, "status": -9} for n in range(1, 5)), {})
    order(folder, preempted, *[{"status": 75}] * 5, {})
    _, failed = sweeping.launch(made, quick)
    assert failed == 2 and states(folder) == ["failed", "failed", "finished", "finished"]
    assert [tried(folder, run.id) for run in made.runs] == [3, 1, 5, 6]
    assert folder.state(mistake).reason == "error: as told" and folder.state(crashes).reason == "ended with status 1"
    out = capsys.readouterr().out
    assert f"{mistake} failed: error: as told; see" in out and f"{advances} ended with status -9 at step 4" in out
    shown = status.table(status.statuses(folder), time.time())
    assert "seed=2  (error: as told)" in shown and "4 runs: 2 failed, 2 finished" in shown


def test_of_several_processes_none_is_left_when_one_dies(quick):
    made = sweeping.sweep(over("seed", 1), quick, processes=2)
    folder, run = Folder(quick / made.name), made.runs[0]
    order(folder, run.id, {"until": str(quick / "never")}, {})
    killer = threading.Thread(target=_kill_second, args=(folder, run.id))
    killer.start()
    sweeping.launch(made, quick)
    killer.join()
    assert tried(folder, run.id, 0) == tried(folder, run.id, 1) == 2
    assert folder.state(run.id).attempts[0]["status"] == -signal.SIGKILL


def _kill_second(folder: Folder, run_id: str) -> None:
    wait_until(lambda: tried(folder, run_id, 1) == 1 and len(folder.state(run_id).pids) == 2)
    os.kill(folder.state(run_id).pids[1], signal.SIGKILL)


def test_one_run_is_stopped_and_goes_on_later(quick):
    made = sweeping.sweep(over("seed", 1, 2), quick)
    folder, first = Folder(quick / made.name), made.runs[0].id
    order(folder, first, {"until": str(quick / "never")}, {})

    def stop_it() -> None:
        wait_until(lambda: tried(folder, first) == 1)
        assert registry.stop(folder, [first]) == f"asked to stop: {first}"
        with pytest.raises(UserError, match="has no run x"):
            registry.stop(folder, ["x"])

    stopper = threading.Thread(target=stop_it)
    stopper.start()
    sweeping.launch(made, quick)
    stopper.join()
    assert states(folder) == ["stopped", "finished"]
    assert (folder.run(first) / "tried-0-term").exists()
    sweeping.launch(made, quick)
    assert states(folder) == ["finished", "finished"] and [tried(folder, run.id) for run in made.runs] == [2, 1]


LAUNCHER = """
import sys
from pathlib import Path
sys.path[:0] = ["tests", "tests/launch"]
import sweeping
from launch.sweeps.grid import over
folder = Path(sys.argv[1])
with sweeping.stand_in(folder):
    sweeping.launch(sweeping.sweep(over("seed", 1, 2, 3), folder, at_once=2), folder)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_launcher_that_is_interrupted_leaves_all_resumable(quick, number):
    made = sweeping.sweep(over("seed", 1, 2, 3), quick, at_once=2)
    folder = Folder(quick / made.name)
    for run in made.runs[:2]:
        order(folder, run.id, {"until": str(quick / "go")}, {})
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(quick)], stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: [tried(folder, run.id) for run in made.runs] == [1, 1, 0], launcher)
        wait_until(lambda: states(folder) == ["running", "running", "planned"], launcher)
        with pytest.raises(UserError, match=f"is being run already, by process {launcher.pid}"):
            sweeping.launch(made, quick)
        launcher.send_signal(number)
        out, _ = launcher.communicate()
    finally:
        launcher.kill()
    if number == signal.SIGKILL:  # its runs go on; they are neither lost nor started a second time
        assert states(folder) == ["running", "running", "planned"]
        (quick / "go").touch()
        finished_by = [1, 1, 1]
    else:
        assert out.splitlines()[-1] == "stopped; the same command resumes from the checkpoints"
        assert states(folder) == ["stopped", "stopped", "planned"]
        finished_by = [2, 2, 1]
    assert sweeping.launch(made, quick)[1] == 0
    assert states(folder) == ["finished"] * 3
    assert [tried(folder, run.id) for run in made.runs] == finished_by


def test_a_finished_sweep_is_collected(quick):
    made = sweeping.sweep(over("seed", 1, 2), quick, price_per_hour=36000.0)
    folder = Folder(quick / made.name)
    folder.write_plan(made, "local", made.settings["local"])
    with pytest.raises(UserError, match="no run of .* is finished"):
        collect.collect(folder)
    order(folder, made.runs[1].id, {"status": 2})
    sweeping.launch(made, quick)
    result = {"loss": 0.25, "loss_interval": [0.2, 0.3], "flops": 1e9, "params": 100, "tokens": 5000, "kind": "grid"}
    (folder.run(made.runs[0].id) / "result.json").write_text(json.dumps(result | {"validation": {"loss": 1}}))
    path, count, left = collect.collect(folder)
    assert (count, left) == (1, 1)
    (row,) = read_csv(path)
    assert row["what"] == "seed=1" and row["cost"] > 0 and row["loss_low"] == 0.2 and row["run"] == made.runs[0].id
    assert table([row]).tokens[0] == 5000


HOSTILE = 'it\'s "here" $(touch {0}) `touch {0}`; touch {0} & *'


def test_values_and_names_stay_data(quick):
    trap = quick / "trap"
    text = HOSTILE.format(trap)
    name = text.replace("/", "").replace("*", "")
    made = sweeping.sweep(point({"data.split": text, "data.captions": (text, "a b")}), quick, name=name)
    folder, failed = sweeping.launch(made, quick)
    assert failed == 0 and folder.path.name == name
    told = (folder.run(made.runs[0].id) / "logs" / "0.log").read_text().splitlines()[1]
    arguments = json.loads(told.split(" ", 1)[1].rsplit(" ", 1)[0])
    assert arguments[2:] == [f"--config.data.split={text}", f"--config.data.captions={(text, 'a b')!r}"]
    line = local.describe(made, made.runs[0], folder, made.settings["local"])
    pasted = subprocess.run(["sh", "-c", line], env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True)
    assert pasted.returncode == 0 and not trap.exists() and tried(folder, made.runs[0].id) == 2


def launch_real(root: Path, meanwhile=lambda folder, run_id: None):
    """A sweep of one real run, `meanwhile` something happens to it: (folder, sweep)."""
    train = {"steps": 30, "checkpoint_every": 10, "log_every": 5}
    made = sweeping.sweep(over("optimizer.learning_rate", 3e-3), root, train=train, cpu_devices=2)
    folder = Folder(root / made.name)
    other = threading.Thread(target=meanwhile, args=(folder, made.runs[0].id))
    other.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.os, "environ", tiny.environment())
        _, failed = sweeping.launch(made, root)
    other.join()
    assert failed == 0, "\n".join(path.read_text() for path in folder.path.glob("runs/*/logs/*"))
    return folder, made


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return launch_real(tmp_path_factory.mktemp("real"))


@pytest.mark.nightly  # faults/test_kills.py kills a trainer every day, and restarts by the launcher are tested above
def test_a_run_that_was_killed_ends_as_an_undisturbed_one_bit_for_bit(tmp_path):
    def kill(folder: Folder, run_id: str) -> None:
        wait_until(lambda: folder.step(run_id) >= 1)
        os.kill(folder.state(run_id).pids[0], signal.SIGKILL)

    folder, made = launch_real(tmp_path, kill)
    run = made.runs[0]
    assert [attempt["status"] for attempt in folder.state(run.id).attempts] == [-9, 0]
    tiny.train(run.config, tmp_path / "undisturbed")
    tiny.assert_same_result(folder.run(run.id), tiny.result(tmp_path / "undisturbed", run.config), run.config)


def test_the_table_tells_how_a_real_run_fared(real):
    folder, _ = real
    (row,) = status.statuses(folder)
    assert (row.state, row.step, row.steps, row.attempts) == ("finished", 30, 30, 1)
    assert row.validation == folder.read(row.id, "result.json")["loss"] and row.loss != row.validation
    assert row.loss and row.hours > 0 and time.time() - row.seen < 3600
    path, _, left = collect.collect(folder)
    assert left == 0 and len(table(read_csv(path))) == 1


def test_logs_are_printed(real, capfd):
    import cli

    folder, made = real
    printed = cli.runner(capfd)("launch.logs", str(folder.path), made.runs[0].id, "--lines=3").out
    assert printed.startswith(f"==> {folder.run(made.runs[0].id)}/logs/0.log") and "step 30" in printed
    assert len(printed.splitlines()) == 4
    shown = cli.runner(capfd)("launch.status", str(folder.path)).out.splitlines()
    assert shown[0].split()[:3] == ["run", "state", "step"] and shown[-1].startswith("1 runs: 1 finished; 0.")
    listed = json.loads(cli.runner(capfd)("launch.status", str(folder.path), "--json").out)
    assert [row["id"] for row in listed] == [run.id for run in made.runs]
    assert Path(folder.run(listed[0]["id"])).is_dir()


def test_two_runs_beside_each_other(real, tmp_path, capfd):
    import cli

    folder, made = real
    run = made.runs[0]
    other = tmp_path / "other"
    shutil.copytree(folder.run(run.id), other, ignore=shutil.ignore_patterns("checkpoints"))
    config = json.loads((other / "config.json").read_text())
    config["optimizer"]["learning_rate"] = 0.5
    (other / "config.json").write_text(json.dumps(config))
    (other / "result.json").unlink()  # as if it still ran
    lines = cli.runner(capfd)(
        "launch.compare", str(folder.run(run.id)), str(other), f"--out={tmp_path}/c"
    ).out.splitlines()
    assert lines[0].split() == [run.id, "other"] and lines[1].split() == ["optimizer.learning_rate", "0.003", "0.5"]
    assert not any("seed" in line for line in lines)
    loss = folder.read(run.id, "result.json")["loss"]
    assert ["loss", f"{loss:.6g}"] in [line.split() for line in lines]
    last = json.loads((other / "metrics.jsonl").read_text().splitlines()[-2])
    assert ["loss", "at", "step", "30", *[f"{last['loss']:.6g}"] * 2] in [line.split() for line in lines]
    assert (tmp_path / "c.svg").stat().st_size > 1000
    assert "has no config.json" in cli.runner(capfd)("launch.compare", str(tmp_path), str(other)).error
    assert "has no run x; see" in cli.runner(capfd)("launch.compare", str(folder.path), run.id, "x").error


def test_watching_and_following_end_with_the_runs(quick):
    made = sweeping.sweep(over("seed", 1, 2, 3), quick, at_once=2)
    folder, run_id, gate = Folder(quick / made.name), made.runs[0].id, quick / "gate"
    order(folder, run_id, {"until": str(gate)})
    started = [subprocess.Popen([sys.executable, "-c", LAUNCHER, str(quick)], stdout=subprocess.DEVNULL)]

    def command(name: str, *arguments: str) -> subprocess.Popen:
        line = tiny.command(f"launch.{name}", str(folder.path), *arguments, "--every=0.1")
        started.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True))
        return started[-1]

    try:
        wait_until(lambda: tried(folder, run_id) == 1, started[0])
        watch, follow = command("status", "--watch"), command("logs", run_id, "--follow")
        first = next(line for line in watch.stdout if line.startswith("3 runs: "))
        assert "1 running" in first or "2 running" in first
        assert any("hello" in line for line in follow.stdout)
        gate.touch()  # only now may the run end
        totals = [line for line in watch.stdout if line.startswith("3 runs: ")]
        assert "3 finished" in totals[-1] and "hello" not in follow.stdout.read()
        assert [process.wait(60) for process in started] == [0, 0, 0]
    finally:
        for process in started:
            process.kill()


@pytest.mark.nightly
def test_two_processes_of_a_run_of_which_one_is_told_to_stop_and_one_is_killed(tmp_path):
    train = {"steps": 400, "checkpoint_every": 100, "log_every": 10}
    made = sweeping.sweep(over("seed", 5), tmp_path, train=train, processes=2, cpu_devices=1)
    folder, run = Folder(tmp_path / made.name), made.runs[0]

    def disturb() -> None:
        for number, process in ((signal.SIGTERM, 1), (signal.SIGKILL, 0)):
            attempt = 1 if number == signal.SIGTERM else 2
            wait_until(lambda n=attempt: len((folder.state(run.id) or State()).attempts) == n)
            before = folder.step(run.id)
            wait_until(lambda step=before: folder.step(run.id) > step)
            os.kill(folder.state(run.id).pids[process], number)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.os, "environ", tiny.environment())
        _, failed = sweeping.launch(made, tmp_path)
    disturber.join()
    log = (folder.run(run.id) / "logs" / "0.log").read_text()
    assert failed == 0, log
    statuses = [attempt["status"] for attempt in folder.state(run.id).attempts]
    # What is written is the status of whichever process ends first: the killed one, or the one that JAX then aborts.
    assert statuses[0] == 75 and statuses[1] in (-signal.SIGKILL, -signal.SIGABRT) and statuses[2:] == [0]
    assert log.count("stopped as asked, after step") == 1
    tiny.train(run.config, tmp_path / "alone")
    ours, theirs = tiny.read_metrics(folder.run(run.id)), tiny.read_metrics(tmp_path / "alone")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_dead_process_on_record_does_not_keep_the_others_from_being_stopped():
    dead = subprocess.Popen(["true"])
    dead.wait()
    alive = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    try:
        assert local._terminate([alive[0].pid, dead.pid, alive[1].pid])
        assert [process.wait(10) for process in alive] == [-signal.SIGTERM] * 2
    finally:
        for process in alive:
            process.kill()
    assert not local._terminate([dead.pid])
