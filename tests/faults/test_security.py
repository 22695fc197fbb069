"""What is read from data, checkpoints and the network runs nothing and writes nowhere else; secrets are not kept."""

import ast
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny
from sweeping import sweep

from data_pipelines.packing.index import is_plain
from data_pipelines.reading.store import Dataset
from launch.sweeps.grid import over
from launch.sweeps.settings import Local
from launch.sweeps.state import Folder
from vdit.errors import UserError
from vdit.training.record.workdir import claim, environment

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for name in ("vdit", "data_pipelines", "launch") for path in (ROOT / name).rglob("*.py"))

FORBIDDEN = {
    "eval", "exec", "compile", "os.system", "os.popen",
    "pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "marshal.load", "marshal.loads",
    "dill.load", "joblib.load", "shelve.open", "torch.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load",
    "yaml.full_load", "shutil.unpack_archive",
}  # fmt: skip
METHODS = {"extractall"}
OWN = {"listing.py"}
"""Unpickles what the same process pickled into a temporary file without a name, that nobody else can open."""


def calls_of(path: Path):
    """(name as written, node) of every call."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def faults_of(path: Path) -> list[str]:
    found = []
    for name, node in calls_of(path):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in FORBIDDEN or name.split(".")[-1] in METHODS:
            found.append(f"{path}:{node.lineno} {name}")
        if name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
            found.append(f"{path}:{node.lineno} {name} unpickles")
        if keywords.get("shell", "False") != "False":
            found.append(f"{path}:{node.lineno} {name} goes through a shell")
    return found


def test_nothing_that_is_read_is_run():
    assert len(SOURCES) > 100
    assert [fault for path in SOURCES if path.name not in OWN for fault in faults_of(path)] == []
    (own,) = (path for path in SOURCES if path.name in OWN)
    assert {fault.split()[-1] for fault in faults_of(own)} == {"pickle.loads"}
    assert 'sqlite3.connect("",' in (ROOT / "vdit/io/disk_dict.py").read_text(encoding="utf-8")  # without a name


def test_the_scan_sees_what_it_forbids(tmp_path):
    bad = tmp_path / "bad.py"
    lines = [
        "pickle.loads(x)",
        "yaml.load(x)",
        "eval(x)",
        "np.load(x, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
    ]
    bad.write_text("\n".join([*lines, "tar.extractall(x)"]))
    assert len(faults_of(bad)) == 6


def test_only_loaders_of_configs_run_files():
    """Configs are code, and said to be; the one reader of pickles refuses all that is no part of a state dict."""
    running = {path.name for path in SOURCES for name, _ in calls_of(path) if name.endswith("exec_module")}
    assert running == {"expand.py"}
    pickles = {path.name for path in SOURCES if "import pickle" in path.read_text(encoding="utf-8")}
    assert pickles == {"pth.py", *OWN}
    for page in ("docs/reliability.md", "vdit/train.py"):
        assert "configs are code" in (ROOT / page).read_text(encoding="utf-8").lower(), page


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "..", "", "a\\b", "a\0"])
def test_names_of_shards_lead_nowhere_else(tmp_path, name):
    assert not is_plain(name)
    folder = Path(shutil.copytree(tiny.dataset(), tmp_path / "data"))
    meta = json.loads((folder / "vdit.json").read_text())
    meta["splits"]["train"]["shards"][0]["file"] = name
    (folder / "vdit.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="vdit.json is damaged .*is no file of its folder"):
        Dataset(folder)


def test_objects_of_a_bucket_stay_below_the_cache(tmp_path, monkeypatch):
    from data_pipelines.reading import store
    from vdit.io.storage import remote

    monkeypatch.setattr(store, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(remote, "read_bytes", lambda url: b"{}")
    monkeypatch.setattr(remote, "walk", lambda url: iter([("vdit.json", 2), ("../../outside.npz", 3)]))
    monkeypatch.setattr(remote, "fetch", lambda url, target: Path(target).parent.mkdir(parents=True, exist_ok=True))
    with pytest.raises(UserError, match="outside.npz.* would be written elsewhere"):
        Dataset("gs://bucket/data")


def test_no_secret_is_written_down(tmp_path, monkeypatch):
    """Whatever is in the environment: not in what a run writes of itself, nor in a sweep's plan."""
    secret = "hunter2-7f3a"
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "WANDB_API_KEY"):
        monkeypatch.setenv(name, secret)
    assert secret not in json.dumps(environment())
    config = tiny.tiny_config()
    claim(tmp_path / "run", config, Dataset(config.data.path).meta)
    made = sweep(over("seed", 1), tmp_path)
    Folder(tmp_path / made.name).write_plan(made, "local", Local())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("says", "status", "told"),
    [
        ("No known vulnerabilities found", 0, "No known vulnerabilities found"),
        ("Found 1 known vulnerability in 1 package", 1, "error: raise these pins in constraints.txt"),
        (
            "ERROR:pip_audit._cli:six: Dependency not found on PyPI and could not be audited",
            1,
            "error: PyPI's advisories",
        ),
        (
            "requests.exceptions.ConnectionError: no route to host",
            1,
            "error: PyPI's advisories cannot be read from here",
        ),
    ],
)
def test_an_audit_that_learns_nothing_fails_and_says_so(tmp_path, says, status, told):
    """pip-audit itself passes over what it cannot look up, and would end with 0."""
    tools = tmp_path / "v-audit" / "bin"
    tools.mkdir(parents=True)
    for name, script in {
        "pip": "exit 0",
        "pip-audit": f'case "$*" in *--strict*constraints.txt*) echo "{says}" >&2; exit {status};; esac',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["make", "audit", f"VENV={tmp_path / 'v'}", "PYTHON=true"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode != 0) == bool(status)
    assert told in done.stdout and says in done.stdout
