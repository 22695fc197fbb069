"""What makes a run the run it is: the part of its config that must not change, and the id made from it.

Nothing here imports JAX, so that a launcher can plan a thousand runs in a moment.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any

from vdit.config import Config
from vdit.config_dict import to_dict

NOT_IDENTITY = {
    "mesh": None,
    "plan": None,
    "data": {"path"},
    "model": {"remat", "keep_weights", "attention", "attention_block", "context"},
    "optimizer": {"accumulate"},
    "train": {
        "log_every",
        "checkpoint_every",
        "evaluate_every",
        "keep",
        "keep_steps",
        "profile",
        "tracker",
        "sample_clips",
        "spike",
        "accept_new_data",
    },
}
"""Fields that change where, how or how often, not what is computed: a run may resume with other values of them."""


def identity(values: dict[str, Any]) -> dict[str, Any]:
    """The part of a config dictionary that must not change within a workdir."""
    out = _lasting(values)
    if not values["optimizer"]["cooldown"]:
        out["train"].pop("steps")  # a constant-rate run may be made longer
    return out


def run_id(config: Config) -> str:
    """Ten hex digits that name a run: the same wherever and however often it is started.

    Two configs differ in it if they differ in model, data, optimiser, budget (train.steps) or seed. A data set counts
    by the name of its folder, since it may be staged elsewhere. Fields at their default do not count, so that a new
    field does not rename the runs of old sweeps.
    """
    values, default = (flat(_lasting(plain(c))) for c in (config, Config()))
    named = {name: value for name, value in values.items() if value != default.get(name)}
    named["data"] = [PurePosixPath(path).name for path in config.data.paths]
    text = json.dumps(named, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def plain(config: Config) -> dict[str, Any]:
    """The config as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(to_dict(config)))


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    if not isinstance(values, dict):
        return {prefix: values}
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}.{name}" if prefix else name)
    return out


def _lasting(values: dict[str, Any]) -> dict[str, Any]:
    """The values without `NOT_IDENTITY`."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        drop = NOT_IDENTITY.get(name, set())
        if drop is not None:
            out[name] = {k: v for k, v in value.items() if k not in drop} if isinstance(value, dict) else value
    return out
