"""A tiny data set and a tiny run on it, for the tests of training and of the commands."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from etils import epath

import vdit.train
from data_pipelines.building.dataset_writer import DatasetWriter
from data_pipelines.reading.mixture import open_data
from data_pipelines.reading.records import Record
from vdit.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from vdit.diagnostics import check
from vdit.parallel.mesh import make_mesh
from vdit.patches import Patch
from vdit.training import export, loop, run, step
from vdit.training.record.metrics import read_metrics
from vdit.training.timing import TIMES

PATCH = Patch(4, 8, 8)
TEXT_WIDTH = 6
ROW_TOKENS, ROW_EXAMPLES, ROW_TEXT = 64, 8, 24


def write_dataset(
    path: Path, examples: int = 48, seed: int = 0, held_out: tuple[str, ...] = ("val",), **meta: Any
) -> Path:
    """Writes moving gradients of varied size to `train` and a sixth as many to `held_out`; captions say their way."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(2, TEXT_WIDTH)).astype(np.float16)
    path.mkdir(parents=True)
    writer = DatasetWriter(epath.Path(path), "tiny", PATCH)
    for split, count in (("train", examples), *((split, examples // 6) for split in held_out)):
        for i in range(count):
            frames = 1 + 4 * int(rng.integers(0, 3))
            height, width = 8 * rng.integers(1, 4, 2)
            left = int(rng.integers(2))
            t, y, x, c = np.meshgrid(*map(np.arange, (frames, height, width, 3)), indexing="ij")
            wave = np.sin((x + (2 * left - 1) * t) / 6 + y / 9 + c + rng.uniform(0, 6))
            video = np.uint8(128 + 100 * wave)
            words = directions[[left] * int(rng.integers(1, 4))]
            identity = int(rng.integers(2**63)) * 2 + i % 2
            caption = f"a wave moves {('right', 'left')[left]}"
            writer.add(split, Record(identity, video, 12.0, {"short": caption}, {"short": words}, {}))
    about = {
        "source": "tiny",
        "licence": "none",
        "autoencoder": {"name": "pixels"},
        "text_encoder": {"name": "random", "width": TEXT_WIDTH, "hash": ""},
        "build": {},
    }
    writer.finish({**about, **meta})
    return path


@functools.cache
def folder() -> Path:
    """A folder of this test run, removed at its end."""
    path = Path(tempfile.mkdtemp(prefix="vdit-tests-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def dataset() -> Path:
    """The data set that the tests share."""
    return write_dataset(folder() / "data")


def tiny_config(steps: int = 6, rows: int = 2, **train: Any) -> Config:
    """A run of about 40,000 parameters: every step is logged and saved, validation comes at the end."""
    return Config(
        seed=5,
        data=DataConfig(str(dataset()), "train", ROW_TOKENS, ROW_EXAMPLES, ROW_TEXT, rows, max_frames=9),
        model=ModelConfig(width=16, depth=2, head_width=8, base_width=16, attention_block=32),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup=3),
        train=TrainConfig(**{"steps": steps, "log_every": 1, "checkpoint_every": 1, "keep": 2, **train}),
    )


def change(config: Config, **parts: dict[str, Any]) -> Config:
    """The config with fields of its parts replaced: change(config, model={"width": 32})."""
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **values) for name, values in parts.items()}
    )


@functools.cache
def _initial(config: Config, interface: Any) -> Any:
    graph, state = step.init_state(config, interface)
    return graph, jax.tree.map(np.asarray, state), jax.tree.map(lambda x: x.sharding, state)


def _init_state(config: Config, interface: Any) -> Any:
    """As the real one, which compiles anew for every run."""
    graph, arrays, shardings = _initial(Config(config.seed, model=config.model, lora=config.lora), interface)
    return graph, jax.tree.map(jax.device_put, arrays, shardings)


@contextlib.contextmanager
def two_devices() -> Iterator[None]:
    """Runs use two of the devices only: that is enough, and faster than all eight."""
    mesh = lambda config: make_mesh(config, jax.devices()[:2])  # noqa: E731
    with contextlib.ExitStack() as patches:
        for module in (loop, run, export, check):
            patches.enter_context(mock.patch.object(module, "make_mesh", mesh))
        patches.enter_context(mock.patch.object(run, "init_state", _init_state))
        yield


def train(config: Config, workdir: Path, progress: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """`vdit.train.train` on two devices; a run that compiles its step a second time is an error."""
    with two_devices():
        before = _compilations()
        result = vdit.train.train(config, workdir, progress)
        assert _compilations() - before <= 1, "the step was compiled twice"
        return result


def _compilations() -> int:
    return sum(step._cache_size() for step in run._compiled_steps.values())


def copy_now(workdir: Path, to: Path) -> None:
    """Copies a workdir while the run writes to it: what would be on disk if the run were killed at this moment."""
    with contextlib.suppress(shutil.Error):  # of files that were renamed or removed meanwhile
        shutil.copytree(workdir, to)


@functools.cache
def long_run() -> tuple[Config, Path]:
    """(config, workdir) of a finished run of 60 steps, for tests that only look at it."""
    config, workdir = tiny_config(steps=60, checkpoint_every=15), folder() / "long"
    train(config, workdir)
    return config, workdir


def recorded(config: Config, copies: Path) -> tuple[Config, Path, Any]:
    """(config, folder of copies of the workdir made after every row, result) of a run that nothing happens to."""
    rows = []

    def progress(row: Any) -> None:
        rows.append(row)
        copy_now(copies / "run", copies / str(len(rows)))

    train(config, copies / "run", progress)
    return config, copies, result(copies / "run", config)


def restored(workdir: Path, config: Config, step: int | None = None) -> run.Run:
    """The run at its newest checkpoint, or at `step`."""
    with two_devices():
        return run.open_run(config, workdir, open_data(config.data).meta, step)


def result(workdir: Path, config: Config) -> tuple[dict[str, np.ndarray], dict[str, Any], list[dict[str, Any]]]:
    """What must not depend on interruptions: arrays of the newest checkpoint, data position, rows of metrics."""
    opened = restored(workdir, config)
    leaves = jax.tree_util.tree_leaves_with_path(opened.state)
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in read_metrics(workdir)]
    return arrays, dataclasses.asdict(opened.position), rows


def assert_same_result(workdir: Path, expected: Any, config: Config) -> None:
    """Compares with what `result` gave for another run, bit for bit."""
    arrays, position, rows = result(workdir, config)
    assert position == expected[1]
    assert rows == expected[2]
    assert arrays.keys() == expected[0].keys()
    for name, array in expected[0].items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def write_config(path: Path, config: Config) -> Path:
    """Writes the config as an experiment file."""
    values = dataclasses.asdict(config)
    path.write_text(
        f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({values!r})\n"
    )
    return path


def command(module: str, *arguments: str) -> list[str]:
    """A command of the project, for a process of its own."""
    return [sys.executable, "-m", module, *arguments]


def environment(devices: int = 2, **values: str) -> dict[str, str]:
    """Environment of such a process."""
    cache = str(folder() / "cache")
    return {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "VDIT_CACHE": cache, **values}
