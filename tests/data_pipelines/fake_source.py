"""Sources for the tests of the builder; in a module of their own, since worker processes import it."""

import os
import pathlib
import time
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.media.clip import Clip, Cut, Input, Options, Outcome, Rejection, stable_id


class FakeEncoder:
    """One feature row a word, and a count of what was asked."""

    name, width, hash = "fake", 3, "f00d"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.seen += texts
        return [np.array([[len(word)] * 3 for word in text.split()], np.float16).reshape(-1, 3) for text in texts]


HANG = 300  # seconds, of which none is waited for


def some_inputs(options: Options) -> list[Input]:
    splits = ("train", "val", "train", "train")
    return [Input(f"clip {i}", splits[i % 4], data=i) for i in range(options.limit or 12)]


def some_clips(options: Options, source: Input) -> Iterator[Outcome]:
    i = source.data
    if i % 4 == 3:
        yield Rejection(f"clip {i}", "train", "broken", (9, 20, 20))
        return
    video = np.full((5, 16, 24, 3), i, np.uint8)
    shape = (11, 32, 48) if i % 4 == 2 else None
    notes = ("halved",) if shape else ()
    captions = {"short": f"number {i % 2}"}
    yield Clip(
        f"clip {i}", stable_id("some", i), source.split, video, 8.0, captions, {"n": np.int32(i)}, shape, 16.0, notes
    )


def no_inputs(options: Options) -> list[Input]:
    return [Input("clip 0", "train")]


def no_clips(options: Options, source: Input) -> Iterator[Outcome]:
    yield Rejection("clip 0", "train", "too dark")


def noisy_inputs(options: Options) -> list[Input]:
    return [Input(f"clip {i}", "train" if i % 5 else "val", data=i) for i in range(options.limit or 12)]


def noisy_clips(options: Options, source: Input) -> Iterator[Outcome]:
    """Clips that do not compress, of several per input, to two splits."""
    for n in range(2):
        rng = np.random.default_rng((source.data, n))
        frames = 1 + 4 * int(rng.integers(4))
        video = rng.integers(0, 256, (frames, 32, 48, 3), np.uint8)
        identity = stable_id("noisy", source.data, n)
        yield Clip(f"{source.item} [{n}]", identity, source.split, video, 8.0, {"short": f"noise {source.data}"})
    yield Cut(source.item, source.split, "cut into 2 pieces, 2 of them stored")


def bad_clips(options: Options, source: Input) -> Iterator[Outcome]:
    """Crashes on inputs called crash, hangs on inputs called hang, and once only on inputs called crash-once: PATH."""
    kind, _, place = source.item.partition(": ")
    if kind == "crash":
        os.abort()
    if kind == "hang":
        time.sleep(HANG)
    if kind.endswith("once") and not pathlib.Path(place).exists():
        pathlib.Path(place).touch()
        os.abort() if kind == "crash-once" else time.sleep(HANG)
    if kind == "fault":
        raise ZeroDivisionError("a fault of the program")
    split = "val" if kind == "stray" else "train"
    caption = "\udc80" if kind == "surrogate" else "fine"
    video = np.full((5, 8, 8, 3), len(source.item), np.uint8)
    yield Clip(source.item, stable_id("bad", source.item), split, video, 8.0, {"short": caption})
    if kind == "many":
        yield Clip(f"{source.item} [1]", stable_id("bad", source.item, 1), split, video, 8.0, {"short": caption})
        os.abort()


def sources():
    """The fake sources by name."""
    from data_pipelines.sources.registry import Source

    clips = {"some": (some_inputs, some_clips), "none": (no_inputs, no_clips), "noisy": (noisy_inputs, noisy_clips)}
    return {name: Source(name, "free", 1, ("limit",), *both, listed=False) for name, both in clips.items()}
