"""How commands end: help, mistakes, storage that fails, requests to stop, a reader that goes away; one line each."""

from __future__ import annotations

import dataclasses
import os
import pty
import resource
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import cli
import pytest

from vdit.command import config_reference
from vdit.config import Config
from vdit.config_dict import to_dict
from vdit.lora_config import LoraConfig

ROOT = Path(__file__).parents[1]
FOLDERS = ("vdit", "data_pipelines", "launch", "benchmarks")
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if path.stem != "__main__" and "\n    run_main(main)" in path.read_text()
)


HEAVY = {"jax", "scipy", "tensorflow_datasets", "av", "grain", "orbax", "flax", "altair", "cv2"}


def start(body: str, **more: object) -> subprocess.Popen[str]:
    """A command whose `main` does `body`."""
    code = "import os, sys, time\nfrom vdit.command.run import run_main\nfrom vdit.command.stopping import *\n"
    code += "def main(argv):\n    " + body.replace("\n", "\n    ") + "\nrun_main(main)\n"
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    return subprocess.Popen([sys.executable, "-c", code], **piped)  # type: ignore[call-overload]


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """(status, out, err) of a process that ends by itself."""
    try:
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    return process.returncode, out or "", err or ""


def test_all_commands_are_known():
    assert {"vdit.train", "data_pipelines.build", "launch.study", "vdit.scaling.fit", "benchmarks.faults"} <= {
        *COMMANDS
    }


@pytest.mark.parametrize("module", [name for name in COMMANDS if not name.startswith("benchmarks.")])
def test_help_waits_for_no_library_that_takes_long(module):
    code = "import atexit, runpy, sys\natexit.register(lambda: print('MODULES', *sys.modules))\n"
    code += f"sys.argv = ['{module}', '--help']\nrunpy.run_module('{module}', run_name='__main__')"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert not {*done.stdout.rpartition("MODULES ")[2].split()} & HEAVY
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1


@pytest.mark.parametrize("module", COMMANDS)
def test_help_lists_all_flags_with_status_0(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr, done.stderr
    source = "".join(path.read_text() for path in _sources(module))
    assert done.stdout.count("\n  --") >= source.count("flags.DEFINE_") + source.count("config_flag.define(")
    assert ("Flags:" in done.stdout) == ("\n  --" in done.stdout)


def _sources(module: str) -> list[Path]:
    """The file of a command, and that of its flags."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    return [path, *([ROOT / "data_pipelines/building/build_flags.py"] if module == "data_pipelines.build" else [])]


def test_help_lists_the_fields_of_a_config_with_its_values(tmp_path):
    config = tmp_path / "c.py"
    config.write_text(
        "from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({'seed': 7})\n"
    )
    command = [sys.executable, "-m", "vdit.train", f"--config={config}", "--config.train.steps=9", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr
    assert "\n  --config.seed=7\n" in done.stdout and "\n  --config.train.steps=9\n" in done.stdout
    assert done.stdout.count("\n  --config.") == len(list(config_reference.fields()))
    assert f"\n  --config.train.keep={Config().train.keep}\n      newest checkpoints kept.\n" in done.stdout


def test_help_of_a_config_that_is_not_there_says_so(tmp_path):
    command = [sys.executable, "-m", "vdit.train", f"--config={tmp_path / 'none.py'}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "none.py is not a file" in done.stderr


def test_the_page_of_fields_is_up_to_date_and_complete():
    page = (ROOT / "docs" / "config.md").read_text()
    assert page == config_reference.markdown() + "\n", (
        "print it: python -m vdit.command.config_reference > docs/config.md"
    )
    named = {field.name for field in config_reference.fields()}
    lora = {f"lora.{field.name}" for field in dataclasses.fields(LoraConfig)}  # None where it is not asked for
    assert named - lora == {*_leaves(to_dict(Config()))} - {"lora"} and lora < named


def _leaves(values: dict, prefix: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        found += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found


@pytest.mark.parametrize(("number", "name"), [
    (signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP"),
])  # fmt: skip
def test_a_request_to_stop_is_one_line_and_status_75(number, name):
    process = start("try:\n    print('on', flush=True)\n    time.sleep(60)\nfinally:\n    print('saved')")
    assert process.stdout and process.stdout.readline() == "on\n"
    process.send_signal(number)
    assert end(process) == (75, "saved\n", f"stopped by {name}\n")


def test_work_that_must_come_to_a_good_place_notes_the_request():
    body = """
with noted() as request:
    print('on', flush=True)
    while not request.asked:
        time.sleep(.01)
    print('saved')
"""
    process = start(body)
    assert process.stdout and process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGHUP)
    assert end(process) == (0, "saved\n", "")


def test_a_second_ctrl_c_does_not_wait_for_a_good_place():
    body = """
with noted() as request:
    print('on', flush=True)
    while True:
        time.sleep(.01)
        if request.asked:
            print('x', flush=True)
"""
    process = start(body)
    assert process.stdout and process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout and process.stdout.readline() == "x\n"
    process.send_signal(signal.SIGINT)
    status, _, err = end(process)
    assert (status, err) == (75, "stopped at once by a second Ctrl-C\n")


def test_a_library_that_does_not_come_back_is_not_waited_for():
    body = """
import ctypes, vdit.command.stopping
vdit.command.stopping.GRACE = .2
library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
library.pthread_mutex_lock(mutex)
print('on', flush=True)
library.pthread_mutex_lock(mutex)  # never returns, and no handler of Python is called meanwhile: as in a compiler
"""
    process = start(body)
    assert process.stdout and process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGTERM)
    assert end(process) == (75, "", "stopped by SIGTERM\n")


def test_a_hang_up_that_is_ignored_stays_so():
    body = "print('on', flush=True)\ntime.sleep(.5)\nprint('done')"
    process = start(body, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
    assert process.stdout and process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGHUP)
    assert end(process) == (0, "done\n", "")


@pytest.mark.parametrize("where", ["in the main thread", "in another thread", "at the end"])
def test_output_that_nobody_reads_asks_to_stop(where):
    say = "while True:\n    print('line', flush=True)\n    time.sleep(.01)"
    bodies = {
        "in the main thread": say,
        "in another thread": "import threading\ndef say():\n    " + say.replace("\n", "\n    ")
        + "\nthreading.Thread(target=say, daemon=True).start()\ntime.sleep(60)",
        "at the end": "import select\nprint('line', flush=True)\nclosed = select.poll()\nclosed.register(1, 0)\n"
        "closed.poll()\nprint('line')",
    }  # fmt: skip
    process = start(bodies[where])
    assert process.stdout and process.stdout.readline() == "line\n"
    process.stdout.close()
    process.stdout = None
    status, _, err = end(process)
    reason = "by SIGTERM" if where == "in another thread" else "as nobody reads what it prints"
    assert (status, err) == (75, f"stopped {reason}\n")


def test_a_thread_may_print_while_the_command_ends():
    body = "import threading\ndef say():\n    while True:\n        print('line', flush=True)\n"
    process = start(body + "threading.Thread(target=say, daemon=True).start()\ntime.sleep(60)")
    assert process.stdout and process.stdout.readline() == "line\n"
    process.stdout.close()
    process.stdout = None
    assert end(process) == (75, "", "stopped by SIGTERM\n")


@pytest.mark.parametrize(("body", "status"), [("while True:\n    print('line')", 75), ("open('/nowhere')", 2)])
def test_a_line_that_nobody_reads_keeps_its_status(body, status):
    read, write = os.pipe()
    os.close(read)  # both outputs go to a reader that is gone, as with 2>&1 | head -1
    assert end(start(body, stdout=write, stderr=write))[0] == status
    os.close(write)


def test_a_terminal_that_closes_is_a_request_to_stop(tmp_path):
    ours, terminal = pty.openpty()
    body = f"""
try:
    while True:
        print('line', flush=True)
        time.sleep(.01)
finally:
    open('{tmp_path / "saved"}', 'w').close()
"""
    process = start(body, stdout=terminal, stderr=terminal, stdin=terminal)
    os.close(terminal)
    assert os.read(ours, 4) == b"line"
    os.close(ours)  # no SIGHUP, as it is no terminal of this process: what it writes fails
    assert end(process)[0] == 75 and (tmp_path / "saved").exists()


def test_output_that_nobody_reads_is_a_noted_request_too():
    body = """
with noted() as request:
    while not request.asked:
        print('line', flush=True)
        time.sleep(.01)
    print('saved', file=sys.stderr)
"""
    process = start(body)
    assert process.stdout and process.stdout.readline() == "line\n"
    process.stdout.close()
    process.stdout = None
    assert end(process) == (0, "", "saved\n")


@pytest.mark.parametrize(("raised", "status", "line"), [
    ("OSError(28, os.strerror(28), '/full/file')", 2, "/full/file: No space left on device; make room, and"),
    ("PermissionError(13, os.strerror(13), '/closed')", 2, "/closed: Permission denied; give permission"),
    ("OSError(30, os.strerror(30), '/ro')", 2, "/ro: Read-only file system; give permission"),
    ("OSError(5, os.strerror(5), '/bad')", 74, "/bad: Input/output error; is its storage there?"),
    ("RuntimeError('write() failed: No space left on device')", 2, "write() failed: No space left on device; make"),
    ("ValueError('UNAVAILABLE: no bucket')", 74, "UNAVAILABLE: no bucket; is its storage there?"),
    ("ExceptionGroup('many', [ValueError('x'), OSError(28, os.strerror(28), '/full')])", 2, "/full: No space left"),
    ("FileNotFoundError(2, os.strerror(2), 'gone')", 2, "gone: No such file or directory; name another place"),
])  # fmt: skip
def test_storage_that_fails_is_one_line_and_its_status(raised, status, line):
    found, out, err = end(start(f"raise {raised}"))
    assert (found, out) == (status, "") and err.startswith(f"error: {line}") and err.count("\n") == 1, err


def test_storage_that_fails_in_a_thread_prints_no_traceback():
    body = "import threading\ndef fail(): raise OSError(28, os.strerror(28), '/full')\n"
    body += "thread = threading.Thread(target=fail)\nthread.start()\nthread.join()\nraise OSError(28, 'x', '/full')"
    status, _, err = end(start(body))
    assert status == 2 and err.count("\n") == 1


def test_a_fault_of_the_program_keeps_its_traceback():
    status, _, err = end(start("raise ValueError('unforeseen')"))
    assert status == 1 and "Traceback" in err and "ValueError: unforeseen" in err


def test_a_full_disk_below_the_output_is_one_line():
    if not os.path.exists("/dev/full"):
        pytest.fail("this system has no /dev/full, which Linux has")
    with open("/dev/full", "w") as full:
        status, _, err = end(start("print('x')", stdout=full))
    assert status == 2 and "No space left on device" in err and err.count("\n") == 1, err


def test_a_command_that_was_imported_before_runs_in_this_process_without_a_warning(capfd):
    import launch.status

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of runpy, about a module that would be there twice
        assert "nowhere" in cli.runner(capfd)("launch.status", "nowhere").error
    assert sys.modules["launch.status"] is launch.status
