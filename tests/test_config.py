"""Configs are checked where they enter: unknown fields, wrong types, values that cannot be."""

import json
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from vdit.config import Config, ModelConfig
from vdit.config_dict import build, to_dict
from vdit.errors import UserError


def test_missing_fields_take_their_default():
    assert build({}) == Config()
    assert build({"model": {"width": 96}}) == Config(model=ModelConfig(width=96))


def test_round_trip_through_json():
    config = build({"seed": 3, "train": {"keep_steps": (5, 9)}, "data": {"captions": ["short"]}})
    assert build(json.loads(json.dumps(to_dict(config)))) == config
    assert hash(config) == hash(build(to_dict(config)))


def test_a_config_dict_is_taken():
    assert build(ConfigDict({"model": {"width": 96}, "train": {"keep_steps": (1, 2)}}).to_dict()).model.width == 96


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "unknown config field modle; did you mean model?"),
        ({"model": {"widht": 64}}, "unknown config field model.widht; did you mean model.width?"),
        ({"mesh": {"zzz": 1}}, "unknown config field mesh.zzz; known: replica, fsdp, context, tensor"),
        ({"model": {"width": "64"}}, "config field model.width='64' should be of type int"),
        ({"model": {"width": 64.5}}, "config field model.width=64.5 should be of type int"),
        ({"model": {"width": True}}, "config field model.width=True should be of type int"),
        ({"model": {"dtype": 32}}, "config field model.dtype=32 should be of type str"),
        (
            {"optimizer": {"learning_rate": "1e-3"}},
            "config field optimizer.learning_rate='1e-3' should be of type float",
        ),
        ({"optimizer": {"learning_rate": True}}, "config field optimizer.learning_rate=True should be of type float"),
        ({"diffusion": {"size_shift": 1}}, "config field diffusion.size_shift=1 should be of type bool"),
        ({"train": {"keep_steps": (1, "x")}}, "config field train.keep_steps='x' should be of type int"),
        ({"train": {"keep_steps": None}}, "config field train.keep_steps=None should be "),
        ({"data": {"captions": ("short", 3)}}, "config field data.captions=3 should be of type str"),
        ({"data": {"path": None}}, "config field data.path=None should be of type str"),
        ({"model": 64}, "config field model=64 should "),
        ({"model": None}, "config field model=None should "),
        ({"model": {"width": 60}}, "model.width=60 is not a multiple of model.head_width=32"),
        ({"model": {"prediction": "e"}}, "model.prediction='e' is not one of x, v"),
        ({"model": {"dtype": "float16"}}, "model.dtype='float16' is not one of float32, bfloat16"),
        ({"model": {"remat": "all"}}, "model.remat='all' is not one of none, blocks"),
        ({"model": {"attention": "dense"}}, "model.attention='dense' is not one of "),
        (
            {"diffusion": {"modes": {"text": 0.5, "box": 0.2}}},
            "diffusion.modes must be shares that sum to 1, not text=0.5, box=0.2",
        ),
        ({"diffusion": {"modes": {}}}, "diffusion.modes must be shares that sum to 1, not all 0"),
        ({"diffusion": {"modes": {"image": 1.0}}}, "unknown config field diffusion.modes.image; "),
        ({"diffusion": {"forcing": 1.5}}, "diffusion.forcing=1.5 is not a share from 0 to 1"),
        ({"train": {"profile": (3,)}}, "train.profile takes two steps, such as (10, 13)"),
    ],
)
def test_mistakes_are_one_line(values, message):
    with pytest.raises(UserError) as raised:
        build(values)
    text = str(raised.value)
    assert text.startswith(message)
    assert "\n" not in text


def test_a_whole_number_is_a_float():
    rate = build({"optimizer": {"learning_rate": 1}}).optimizer.learning_rate
    assert rate == 1.0
    assert isinstance(rate, float)


def test_one_value_is_a_tuple_of_one():
    config = build({"train": {"keep_steps": 7}, "data": {"captions": "short"}, "diffusion": {"mean": 0.5}})
    assert config.train.keep_steps == (7,)
    assert config.data.captions == ("short",)
    assert config.diffusion.mean == (0.5,)


@pytest.mark.parametrize(("body", "status", "error"), [
    ("raise UserError('no such thing; try another')", 2, "error: no such thing; try another\n"),
    ("from vdit.errors import StorageError; raise StorageError('no answer')", 74, "error: no answer\n"),
    ("print('done')", 0, ""),
])  # fmt: skip
def test_a_user_error_is_one_line_and_its_status(body, status, error):
    imports = "from vdit.command.run import run_main\nfrom vdit.errors import UserError"
    code = f"{imports}\ndef main(argv):\n    {body}\nrun_main(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == status
    assert done.stderr == error


@pytest.mark.parametrize("path", ["optimizer.learning_rate", "train.spike", "diffusion.mean"])
def test_what_is_no_number_is_refused(path):
    """A comparison with it is never true, so that no check of a range would see it."""
    section, name = path.split(".")
    value = (0.0, float("nan")) if name == "mean" else float("nan")
    with pytest.raises(UserError, match=f"config field {path} is nan, which is not a number"):
        build({section: {name: value}})
