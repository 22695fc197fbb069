import subprocess
import sys

import pytest
import tiny

from vdit.config import Config, DataConfig
from vdit.config_dict import build
from vdit.training.record.identity import plain, run_id

CONFIG = tiny.change(Config(), data={"path": "data/physics"}, model={"width": 128})


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"mesh": {"replica": 4, "fsdp": 2}},
        {"data": {"path": "/mnt/staged/physics"}},
        {"data": {"path": "gs://bucket/data/physics"}},
        {"train": {"log_every": 7, "checkpoint_every": 3, "keep": 9, "keep_steps": (4,), "profile": (1, 2)}},
        {"model": {"attention": "reference", "remat": "blocks", "context": "ring"}},
    ],
)
def test_the_same_run_elsewhere_has_the_same_id(elsewhere):
    assert run_id(tiny.change(CONFIG, **elsewhere)) == run_id(CONFIG)


def test_what_is_computed_is_in_the_id():
    others = [
        tiny.change(CONFIG, **parts)
        for parts in (
            {"model": {"width": 64}},
            {"data": {"path": "data/film"}},
            {"data": {"rows_per_step": 4}},
            {"optimizer": {"learning_rate": 1e-3}},
            {"train": {"steps": 1001}},
            {"diffusion": {"caption_dropout": 0.2}},
        )
    ]
    assert len({run_id(config) for config in (CONFIG, *others)}) == 7


def test_the_id_is_a_constant():
    """A change of this value would start every run of every sweep anew."""
    assert run_id(CONFIG) == "1dcd330b63"
    spelled_out = build(plain(CONFIG), Config)
    assert run_id(spelled_out) == run_id(CONFIG)
    assert run_id(Config(data=DataConfig("physics"))) != run_id(CONFIG)


def test_it_needs_no_jax():
    code = "import sys; import vdit.training.record.identity; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
