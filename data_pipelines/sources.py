"""The sources of clips by name."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import multiprocessing
from collections.abc import Callable, Iterator

from data_pipelines import film, physics
from data_pipelines.clip import Clip, Options, Rejection
from vdit.config import UserError

PHYSICS_COUNTS = {"train": 12_000, "val": 256, "ood": 256}
_PHYSICS_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class Source:
    """Where clips come from.

    Attributes:
      licence: of what is stored.
      captions: kinds of caption that every clip has.
      max_tokens, fps: defaults of the options of these names.
      version: raised when the same options give other clips than before.
      count: number of clips and rejections that `clips` yields.
      clips: yields clips that fit the options' patch, in an order of its own that never changes.
    """

    licence: str
    captions: tuple[str, ...]
    max_tokens: int
    fps: float
    version: int
    count: Callable[[Options], int]
    clips: Callable[[Options], Iterator[Clip | Rejection]]


def physics_counts(limit: int) -> dict[str, int]:
    """Clips of each split: `limit` for train (0 = default), the others in proportion but at least an eighth of it.

    They are never more than their default.
    """
    train = limit or PHYSICS_COUNTS["train"]
    others = {split: min(count, max(1, train // 8)) for split, count in PHYSICS_COUNTS.items() if split != "train"}
    return {"train": train, **others}


def _physics_clips(options: Options) -> Iterator[Clip | Rejection]:
    """Makes the clips in chunks, in processes where there are many; the order does not depend on that."""
    _check_physics(options)
    chunks = [
        (options.seed, split, start, min(start + _PHYSICS_CHUNK, count))
        for split, count in physics_counts(options.limit).items()
        for start in range(0, count, _PHYSICS_CHUNK)
    ]
    if options.workers < 2 or len(chunks) < 16:
        for chunk in chunks:
            yield from _physics_chunk(*chunk)
        return
    # Forking is not safe beside JAX's threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        todo = iter(chunks)
        pending: collections.deque[concurrent.futures.Future[list[Clip]]] = collections.deque()
        for chunk in itertools.islice(todo, 4 * options.workers):  # no more than these wait in memory
            pending.append(pool.submit(_physics_chunk, *chunk))
        while pending:
            yield from pending.popleft().result()
            for chunk in itertools.islice(todo, 1):
                pending.append(pool.submit(_physics_chunk, *chunk))


def _physics_chunk(seed: int, split: str, start: int, stop: int) -> list[Clip]:
    return [_physics_clip(split, i, physics.make_clip(seed, split, i)) for i in range(start, stop)]


def _physics_clip(split: str, i: int, made: physics.PhysicsClip) -> Clip:
    extra = {name: value for name, value in made.truth().items() if name != "fps"}  # which is a feature already
    return Clip(f"{split} {i:06d}", made.id, split, made.video_TYXC, made.fps, made.captions, extra)


def _check_physics(options: Options) -> None:
    """Raises UserError for options that would change the pixels and so the truth about them."""
    patch, most = options.patch, max(physics.SIDES)
    sides = [side % step for side in physics.SIDES for step in (patch.height, patch.width)]
    if any(sides) or any((frames - 1) % patch.time for frames in physics.FRAMES):
        raise UserError(
            f"--patch={patch.time},{patch.height},{patch.width} does not divide the physics clips "
            f"(lengths {physics.FRAMES}, sides {physics.SIDES}); choose 4,8,8"
        )
    tokens = (most // patch.height) * (most // patch.width)
    if 0 < options.max_tokens < tokens:
        raise UserError(f"--max_tokens={options.max_tokens}: physics clips have up to {tokens} and are not scaled")
    if options.fps not in (0, physics.FPS):
        raise UserError(f"--fps={options.fps:g}: physics clips have {physics.FPS:g} frames/s; leave the flag out")


SOURCES: dict[str, Source] = {
    "film": Source(
        licence=film.LICENCE,
        captions=film.CAPTIONS,
        max_tokens=film.MAX_TOKENS,
        fps=film.FPS,
        version=1,
        count=film.count,
        clips=film.clips,
    ),
    "physics": Source(
        licence="Apache-2.0 (generated)",
        captions=("short",),
        max_tokens=0,
        fps=0.0,
        version=1,
        count=lambda options: sum(physics_counts(options.limit).values()),
        clips=_physics_clips,
    ),
}


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
      UserError: if there is none.
    """
    if name not in SOURCES:
        raise UserError(f"--source={name!r} is unknown; choose one of {', '.join(sorted(SOURCES))}")
    return SOURCES[name]
