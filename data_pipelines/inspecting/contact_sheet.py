"""Contact sheets: a few clips of a data set with their captions, or pairs of near duplicates, as one picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.inspecting.fonts import Text
from data_pipelines.inspecting.ledger_names import names_of
from data_pipelines.inspecting.pairs import Pair, read_pairs
from data_pipelines.reading.mixture import Mixture
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError

FRAMES, FRAME_HEIGHT, MAX_WIDTH = 5, 96, 176  # pictures of a clip, and the size they are drawn at
PAIR_FRAMES = 3  # of each clip of a pair
TEXT_WIDTH, TEXT_SIZE, LINE, GAP, BORDER = 616, 12, 17, 8, 2


def contact_sheet(
    data: Dataset | Mixture, split: str, count: int = 12, by: str = "", keeps_N: np.ndarray | None = None
) -> Image.Image:
    """Draws about `count` clips: evenly spaced frames, the file, the size, and every kind of caption.

    They are spread evenly over the split, with at least two of each data set of a mixture.

    Args:
      data, split: what is drawn.
      count: clips.
      by: column of the index by which each data set is ordered: its quantiles from the least on are drawn. Empty = in
        the order of the split.
      keeps_N: which examples of the split count; None = all.

    Raises:
      UserError: if a data set has no such column, or its value is known of no clip.
    """
    strips, text = [], Text(TEXT_SIZE)
    keeps_N = np.ones(data.size(split), bool) if keeps_N is None else keeps_N
    sizes = [dataset.size(split) if split in dataset.splits else 0 for dataset in data.datasets]
    for dataset, keeps_n in zip(data.datasets, np.split(keeps_N, np.cumsum(sizes)[:-1]), strict=True):
        if not keeps_n.any():
            continue
        share = max(2, round(count * keeps_n.sum() / keeps_N.sum()))
        column = _column(dataset, split, by) if by else np.arange(len(keeps_n))
        members = np.flatnonzero(keeps_n & ~np.isnan(column))
        order = members[np.argsort(column[members], kind="stable")]
        places = np.unique(np.linspace(0, len(order) - 1, min(share, len(order))).astype(int))
        numbers = order[places].tolist()
        names = names_of(dataset.path, split, sorted(numbers), len(keeps_n))
        for place, i in zip(places, numbers, strict=True):
            said = f"{by} {column[i]:.4g}, quantile {place / max(1, len(order) - 1):.2f}" if by else ""
            strips.append(_strip(dataset, split, i, (names.get(i, ""), said), text))
    if not strips:
        raise UserError(f"--sheet: no clip of {data.path} is to be drawn{f'; of none {by} is known' * bool(by)}")
    return _stacked(strips)


def pairs_sheet(data: Dataset | Mixture, count: int = 12) -> Image.Image:
    """Draws about `count` pairs of near duplicates side by side, spread evenly from the most alike on.

    Raises:
      UserError: if no data set has any, or a list of them is damaged.
    """
    pairs = [(dataset, pair) for dataset in data.datasets for pair in read_pairs(dataset.path)]
    if not pairs:
        raise UserError(f"--pairs: the build of {data.path} found no near duplicates")
    pairs.sort(key=lambda each: each[1].difference)
    places = np.unique(np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int))
    text = Text(TEXT_SIZE)
    return _stacked([_pair(dataset, pair, text) for dataset, pair in (pairs[place] for place in places)])


def _pair(dataset: Dataset, pair: Pair, text: Text) -> Image.Image:
    """Two clips beside each other: what both have in common above, frames, and the text of each below."""
    similar = "" if pair.similarity is None else f", cosine of the embeddings {pair.similarity:.3f}"
    said = f"{pair.difference:.1%} of the bits differ{', mirrored' * pair.mirrored}{similar}"
    width = PAIR_FRAMES * (MAX_WIDTH + BORDER) + 2 * GAP
    sides = []
    for split, i in pair.clips:
        name = names_of(dataset.path, split, [i], dataset.size(split)).get(i, "")
        sides.append((_frames(dataset, split, i, PAIR_FRAMES), _lines(dataset, split, i, (name,), text, width - GAP)))
    top = LINE + max(frames.height for frames, _ in sides) + BORDER
    height = top + LINE * max(len(lines) for _, lines in sides) + GAP
    drawn = Image.new("RGB", (2 * width, height), "white")
    draw = ImageDraw.Draw(drawn)
    text.draw(draw, 0, 0, said)
    for n, (frames, lines) in enumerate(sides):
        drawn.paste(frames, (n * width, LINE))
        for k, line in enumerate(lines):
            text.draw(draw, n * width, top + k * LINE, line)
    return drawn


def _stacked(strips: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height + GAP for s in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + GAP
    return sheet


def encoded(picture: Image.Image, kind: str) -> bytes:
    """The picture as a file of Pillow's `kind`: "PNG", or "WEBP", which is smaller."""
    file = io.BytesIO()
    picture.save(file, kind, quality=80)
    return file.getvalue()


def _column(dataset: Dataset, split: str, name: str) -> np.ndarray:
    columns = dataset.index(split).columns()
    if name not in columns:
        raise UserError(f"--sheet_by={name} is not a column of {dataset.path}; it has {', '.join(sorted(columns))}")
    return columns[name]


def _strip(dataset: Dataset, split: str, i: int, said: tuple[str, ...], text: Text) -> Image.Image:
    """One clip: frames on the left, text on the right."""
    frames, lines = _frames(dataset, split, i, FRAMES), _lines(dataset, split, i, said, text, TEXT_WIDTH)
    left = FRAMES * (MAX_WIDTH + BORDER) + GAP
    strip = Image.new("RGB", (left + TEXT_WIDTH, max(FRAME_HEIGHT, LINE * len(lines))), "white")
    strip.paste(frames, (0, 0))
    draw = ImageDraw.Draw(strip)
    for n, line in enumerate(lines):
        text.draw(draw, left, n * LINE, line)
    return strip


def _lines(dataset: Dataset, split: str, i: int, said: tuple[str, ...], text: Text, width: float) -> list[str]:
    """What is said beside a clip, in lines of at most `width` pixels."""
    example = dataset.example(split, i)
    index = dataset.index(split)
    frames, size = int(index.frames[i]), f"{index.width[i]}x{index.height[i]}"
    length = "image" if frames == 1 else f"{frames} frames, {frames / example['fps']:.3g} s"
    lines = [f"{dataset.path.name} {split} {i}: {size}, {length}"]
    for line in (*said, *(f"{kind}: {example[f'caption_{kind}']}" for kind in dataset.meta["captions"])):
        lines += text.wrap(line, width) if line else []
    return lines


def _frames(dataset: Dataset, split: str, i: int, count: int) -> Image.Image:
    """Evenly spaced frames of a clip beside each other."""
    video_TYXC = dataset.read_clip(split, i).video_TYXC
    frames, height, width = video_TYXC.shape[:3]
    scale = min(FRAME_HEIGHT / height, MAX_WIDTH / width)
    drawn = (max(1, round(width * scale)), max(1, round(height * scale)))
    chosen = np.unique(np.linspace(0, frames - 1, min(count, frames)).astype(int))
    step = drawn[0] + BORDER
    strip = Image.new("RGB", (len(chosen) * step - BORDER, drawn[1]), "lightgray")
    for n, frame in enumerate(chosen):
        picture = Image.fromarray(_as_rgb(video_TYXC[frame])).resize(drawn, Image.Resampling.NEAREST)
        strip.paste(picture, (n * step, 0))
    return strip


def _as_rgb(frame_YXC: np.ndarray) -> np.ndarray:
    """Pixels as they are; of latents the first three channels, stretched to 0..255."""
    picture = np.repeat(frame_YXC, 3, axis=-1)[..., :3] if frame_YXC.shape[-1] < 3 else frame_YXC[..., :3]
    if picture.dtype == np.uint8:
        return picture
    picture = picture.astype(np.float32)
    low, high = picture.min(), picture.max()
    return ((picture - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
