import json
import re
import subprocess

import pytest
import tiny

from data_pipelines.reading.store import Dataset
from vdit.config_dict import to_dict
from vdit.errors import UserError
from vdit.io.files import read_json
from vdit.training.record import workdir as workdirs

CONFIG = tiny.tiny_config()


def meta() -> dict:
    return Dataset(tiny.dataset()).meta


@pytest.fixture
def claimed(tmp_path):
    workdirs.claim(tmp_path, CONFIG, meta())
    return tmp_path


@pytest.fixture
def trained(claimed):
    """A claimed workdir in which there is something to lose: a checkpoint."""
    (claimed / "checkpoints" / "1").mkdir(parents=True)
    return claimed


def contents(folder) -> dict:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_describes_itself(claimed):
    assert workdirs.read_config(claimed) == CONFIG
    assert read_json(claimed / "dataset.json") == meta()
    environment = read_json(claimed / "environment.json")
    assert set(workdirs.PACKAGES) <= environment["packages"].keys()
    assert environment["devices"] == ["cpu:cpu"] * 8 and environment["processes"] == 1
    assert environment["peak_source"] == "measured" and environment["peak_tflops"] > 0 and "git" in environment
    assert sorted(path.name for path in claimed.iterdir()) == ["config.json", "dataset.json", "environment.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"row_tokens": 128}}, "data.row_tokens=64, not 128;"),
        ({"data": {"captions": ("short",)}}, r"data.captions=\[\], not \['short'\];"),
        ({"model": {"width": 32, "head_width": 16}}, r"model.head_width=8, not 16 \(and 1 more\);"),
        ({"optimizer": {"learning_rate": 0.1}}, "optimizer.learning_rate=0.003, not 0.1;"),
        ({"diffusion": {"caption_dropout": 0.5}}, "diffusion.caption_dropout=0.1, not 0.5;"),
        ({"train": {"branch_from": "trunk"}}, "train.branch_from=, not trunk;"),
        ({"optimizer": {"cooldown": 3}}, "optimizer.cooldown=0, not 3"),
    ],
)
def test_another_run_is_refused(trained, changes, message):
    before = contents(trained)
    with pytest.raises(UserError, match=f"{trained} holds a run with {message}.* take another --workdir"):
        workdirs.check(trained, tiny.change(CONFIG, **changes), meta())
    assert contents(trained) == before


def test_who_wants_another_rate_is_told_how_to_go_on_from_here(trained):
    faster = tiny.change(CONFIG, optimizer={"learning_rate": 0.1})
    with pytest.raises(UserError, match=f"--config.init_from={trained} starts .*--config.train.branch_from={trained}"):
        workdirs.check(trained, faster, meta())


def test_the_commit_of_the_code_is_written_down(tmp_path):
    git = lambda *words: subprocess.run(  # noqa: E731
        ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", *words], check=True, capture_output=True
    )
    assert workdirs.commit(tmp_path) is None, "no clone"
    git("init")
    (tmp_path / "code.py").write_text("one")
    git("add", ".")
    git("commit", "--message=first")
    found = workdirs.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", found["commit"]) and not found["changed"]
    (tmp_path / "code.py").write_text("two")
    assert workdirs.commit(tmp_path) == {**found, "changed": True}


def test_the_length_of_a_cool_down_run_is_fixed(tmp_path):
    config = tiny.change(CONFIG, optimizer={"cooldown": 3})
    workdirs.claim(tmp_path, config, meta())
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    workdirs.check(tmp_path, config, meta())
    with pytest.raises(UserError, match="train.steps=6, not 7"):
        workdirs.check(tmp_path, tiny.change(config, train={"steps": 7}), meta())


@pytest.mark.parametrize(
    "changes",
    [
        {"mesh": {"fsdp": 2}},
        {"train": {"steps": 1000}},
        {"train": {"log_every": 7, "checkpoint_every": 9, "evaluate_every": 2, "keep": 5, "keep_steps": (1, 2)}},
        {"data": {"path": "moved"}},
    ],
)
def test_where_and_how_often_may_change(trained, changes):
    workdirs.check(trained, tiny.change(CONFIG, **changes), meta())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patch", [2, 8, 8]),
        ("channels", 4),
        ("autoencoder", {"name": "causal_vae"}),
        ("text_encoder", {"name": "random", "width": tiny.TEXT_WIDTH, "hash": "other weights"}),
    ],
)
def test_another_kind_of_data_is_refused(trained, key, value):
    with pytest.raises(UserError, match=f"{CONFIG.data.path} has {key}=.*but {trained} was trained with"):
        workdirs.check(trained, CONFIG, {**meta(), key: value})
    workdirs.check(trained, CONFIG, {**meta(), "licence": "another"})


def test_training_refuses_before_it_writes(tmp_path):
    tiny.train(tiny.tiny_config(steps=1), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="seed"):
        tiny.train(tiny.dataclasses.replace(tiny.tiny_config(steps=1), seed=6), tmp_path)
    other = tiny.write_dataset(tmp_path.parent / "other", 12, text_encoder={"name": "none", "width": 6, "hash": ""})
    mean = tuple(workdirs.read_config(tmp_path).diffusion.mean)
    changed = tiny.change(tiny.tiny_config(steps=1), data={"path": str(other)}, diffusion={"mean": mean})
    with pytest.raises(UserError, match="text_encoder"):
        tiny.train(changed, tmp_path)
    assert contents(tmp_path) == before


def test_files_are_whole_or_absent(tmp_path):
    with pytest.raises(UserError, match="config.json is missing; is this the workdir of a run"):
        workdirs.read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(CONFIG))[:50])
    with pytest.raises(UserError, match="config.json is damaged"):
        workdirs.read_config(tmp_path)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(UserError, match="config.json is damaged"):
        workdirs.check(tmp_path, CONFIG, meta())
