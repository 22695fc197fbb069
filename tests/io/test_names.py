"""`~` in flags of every command, and names that are no UTF-8."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.sweeps.expand import build_sweep, load
from vdit.config import Config, DataConfig, TrainConfig
from vdit.errors import UserError
from vdit.generation.prompts import SampleRequest, read_sample_requests
from vdit.io.names import expand_home, printable, read_arguments


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--out=~/ds"], ["--out=/home/me/ds"]),
        (["--out=~"], ["--out=/home/me"]),
        (["-out", "~/ds"], ["-out", "/home/me/ds"]),
        (["~/a", "~/b,~/c"], ["/home/me/a", "/home/me/b,/home/me/c"]),
        (["--config.data.path=~/a,b,~/c"], ["--config.data.path=/home/me/a,b,/home/me/c"]),
        (["--source=tfds:~/a", "--autoencoder=causal_vae:~/run"], None),
        (["--out=~nobody-of-this-name/x", "--out=a/~/b", "--out=gs://b/~x", "--out=x~", "--scale=~x=~/y"], None),
        (["--prompt=~/not a path", "--prompt", "~/nor this", "--negative", "~"], None),
        (["--noflag", "~/a"], ["--noflag", "/home/me/a"]),
    ],
)
def test_home(monkeypatch: pytest.MonkeyPatch, given: list[str], wanted: list[str] | None) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    kept = {"tfds:~": "tfds:/home/me", "causal_vae:~": "causal_vae:/home/me"}
    if wanted is None:
        wanted = given
        for short, long in kept.items():
            wanted = [each.replace(short, long) for each in wanted]
    assert read_arguments(given) == wanted


def test_home_in_the_fields_of_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of configs and sweeps are Python, so that no command line is read for them."""
    monkeypatch.setenv("HOME", "/home/me")
    data = DataConfig(path="~/a, ~/b,c", autoencoder="causal_vae:~/run", text_encoder="t5:~/t5")
    assert data.paths == ("/home/me/a", "/home/me/b", "c")
    assert (data.autoencoder, data.text_encoder) == ("causal_vae:/home/me/run", "t5:/home/me/t5")
    assert Config(init_from="~/w").init_from == "/home/me/w"
    assert TrainConfig(branch_from="~/w").branch_from == "/home/me/w"
    assert dataclasses.replace(data, path="gs://bucket/~x").paths == ("gs://bucket/~x",)
    assert expand_home("~\0") == "~\0"


@pytest.mark.parametrize("target", ["queued_resources", "gke"])
def test_home_in_a_sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = "from ml_collections import ConfigDict\nfrom launch.sweeps.grid import over\ndef get_config():\n    return "
    (tmp_path / "c.py").write_text(file + "ConfigDict({'train': {'steps': 3}})\n")
    settings = {"bucket": "~/shared", "data": "~/data"}
    values = f"'name': 's', 'config': '~/c.py', 'runs': over('seed', 0, 1), '{target}': {settings}"
    (tmp_path / "s.py").write_text(file + f"ConfigDict({{{values}}}, convert_dict=False)\n")
    sweep = build_sweep(load("~/s.py"), "--sweep")
    assert sweep.config == f"{tmp_path}/c.py" and len(sweep.runs) == 2
    assert (sweep.settings[target].bucket, sweep.settings[target].data) == (f"{tmp_path}/shared", f"{tmp_path}/data")


def test_home_in_prompts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    prompts = tmp_path / "home" / "p.jsonl"
    prompts.parent.mkdir()

    def read(line: str) -> list[SampleRequest]:
        prompts.write_text(line)
        return read_sample_requests(prompts, {}, tmp_path / "out")

    assert read('{"image": "~/a.png"}')[0].image == f"{tmp_path}/home/a.png"
    with pytest.raises(UserError, match="does not lie below"):
        read('{"image": "~root/a.png"}')
    with pytest.raises(UserError, match="lies outside of --out"):
        read('{"out": "~/a.mp4"}')


def test_names_that_are_no_utf8_are_shown() -> None:
    assert printable(os.fsdecode(b"caf\xe9 \xe7\x86\x8a")) == "caf\\udce9 熊"
    assert printable("熊") == "熊"


@pytest.mark.parametrize("flag", ["--out=caf\udce9", "--workdir=/x/caf\udce9"])
def test_what_is_made_has_a_name_in_utf8(flag: str) -> None:
    with pytest.raises(UserError, match=r"is not UTF-8 .*caf.udce9\); choose another name"):
        read_arguments([flag])
    assert read_arguments(["--out", "café", flag.replace("out", "source").replace("workdir", "image")])


def test_commands_expand_flags_and_print_any_name(tmp_path: Path) -> None:
    """One place serves every command: `run_main`."""
    code = """
from absl import flags
from vdit.command.run import run_main
flags.DEFINE_string("source", "", "where")
run_main(lambda argv: print(flags.FLAGS.source, argv[1:]))
"""
    name = os.fsdecode(b"caf\xe9")
    command = [sys.executable, "-c", code, f"--source=~/{name}", "~/a"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/caf\\udce9 ['{tmp_path}/a']\n"


def test_a_build_at_home_makes_its_data_set_there(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "clips").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "clips" / "a.png")
    command = [sys.executable, "-m", "data_pipelines.build", "--source=~/clips", "--out=~/ds", "--text_encoder=none"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "ds"] and (tmp_path / "ds/vdit.json").exists()
