"""The rows to plan with: those of the data set where it is there, else rows of the clips that the config expects."""

from __future__ import annotations

import re

import numpy as np

from data_pipelines.packing.index import Index
from data_pipelines.packing.packing import Plan
from data_pipelines.reading import pipeline
from data_pipelines.reading.mixture import open_data
from vdit.config import Config, DataConfig, PlanConfig
from vdit.data import Interface, RowLengths, interface_of
from vdit.errors import UserError
from vdit.patches import Patch

CLIPS = 4096
"""Fewest clips drawn from config.plan."""

STEPS = 4
"""Fewest steps that they fill."""


def row_lengths(config: Config) -> RowLengths:
    """An epoch of data.path if that is a data set, else of clips drawn from config.plan.

    Raises:
      UserError: if there is neither, or a clip does not fit its stride, patch or row.
    """
    if config.data.path:
        try:
            dataset = open_data(config.data)
        except UserError:
            if not config.plan.clips:
                raise
        else:
            meta, index = dataset.meta, dataset.index(config.data.split)
            plan = pipeline.make_plan(dataset, config.data, dataset.patch, config.seed)
            return _of_epoch(plan, index, config.data, interface_of(meta), meta["dtype"] == "uint8")
    if not config.plan.clips:
        raise UserError(
            "the config names neither a data set (data.path) nor the clips to expect; set "
            'config.plan.clips = ("81x480x832",), see vdit.config.PlanConfig'
        )
    interface = Interface(int(np.prod(config.plan.patch)) * config.plan.channels, config.plan.text_width)
    index = _expected(config)
    plan = Plan(index, config.data, Patch(*config.plan.patch), config.seed)
    return _of_epoch(plan, index, config.data, interface, config.plan.stride == (1, 1, 1))


def _of_epoch(plan: Plan, index: Index, data: DataConfig, interface: Interface, pixels: bool) -> RowLengths:
    epoch = plan.epoch(0)
    words = epoch.caption_tokens(index)
    return RowLengths(interface, pixels, epoch.tokens - words, words, epoch.offsets)


def _expected(config: Config) -> Index:
    """An index, in latents, of clips drawn by their shares."""
    plan, data = config.plan, config.data
    sizes, shares = zip(*(_clip(text, plan) for text in plan.clips), strict=True)
    share = np.array(shares) / sum(shares)
    tokens = np.array([_tokens(size, plan) for size in sizes])
    if tokens.max() > data.row_tokens or plan.words > data.row_text:
        raise UserError(
            f"the largest of plan.clips takes {tokens.max()} slots and {plan.words} of text, a row holds "
            f"{data.row_tokens} and {data.row_text}; raise data.row_tokens or data.row_text"
        )
    clips_of_row = min(data.row_examples, data.row_tokens / (share @ tokens))
    count = max(CLIPS, int(STEPS * data.rows_per_step * clips_of_row))
    drawn = np.array(sizes, np.int32)[np.random.default_rng(0).choice(len(sizes), count, p=share)]
    return Index(
        id=np.arange(count, dtype=np.uint64),
        frames=drawn[:, 0],
        height=drawn[:, 1],
        width=drawn[:, 2],
        fps=np.full(count, 24, np.float32),
        text_tokens=np.full((count, 1), plan.words, np.int32),
    )


def _tokens(size: tuple[int, int, int], plan: PlanConfig) -> int:
    """Slots of one clip with its caption."""
    return Patch(*plan.patch).grid(*size).tokens + plan.words


def _clip(text: str, plan: PlanConfig) -> tuple[tuple[int, int, int], float]:
    """((frames, height, width) in latents, share) of a clip such as "81x720x1280" or "1x256x256:3"."""
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?::(\d+(?:\.\d+)?))?", text)
    if not match:
        raise UserError(f'plan.clips: {text!r} is not frames x height x width, such as "81x720x1280" or "1x256x256:3"')
    frames, height, width = map(int, match.groups()[:3])
    time, row, column = plan.stride
    if frames < 1 or (frames - 1) % time or height % row or width % column:
        raise UserError(f"plan.clips: {text} is not 1 + k*{time} frames of multiples of {row} x {column} (plan.stride)")
    size = 1 + (frames - 1) // time, height // row, width // column
    try:
        Patch(*plan.patch).grid(*size)
    except ValueError as error:
        raise UserError(f"plan.clips: the latents of {text} do not divide into plan.patch: {error}") from error
    return size, float(match.group(4) or 1)
