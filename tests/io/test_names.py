"""`~` in flags of every command, and names that are no UTF-8."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vdit.errors import UserError
from vdit.io.names import printable, read_arguments


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
