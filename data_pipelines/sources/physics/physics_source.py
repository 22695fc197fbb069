"""Source `physics` as the builder sees it: which clips there are, and each of them."""

from __future__ import annotations

from collections.abc import Iterator

from data_pipelines.media.clip import Clip, Input, Options
from data_pipelines.sources.physics import clips as physics
from data_pipelines.sources.physics.variants import VARIANTS
from data_pipelines.sources.physics.world import parse_world
from vdit.errors import UserError

PHYSICS_COUNTS = {"train": 12_000, "val": 256, "ood": 256}
_WEIGHT = 1 << 19
"""Of one clip: a job makes 128."""


def physics_counts(limit: int) -> dict[str, int]:
    """Clips of each split: `limit` for train (0 = default), the others in proportion but at least an eighth of it.

    They are never more than their default.
    """
    train = limit or PHYSICS_COUNTS["train"]
    others = {split: min(count, max(1, train // 8)) for split, count in PHYSICS_COUNTS.items() if split != "train"}
    return {"train": train, **others}


def inputs(options: Options) -> list[Input]:
    """All clips, split by split.

    Raises:
      UserError: for options that would change the pixels and so the truth about them.
    """
    _check(options)
    return [
        Input(f"{split} {i:06d}", split, weight=_WEIGHT, data=i)
        for split, count in physics_counts(options.limit).items()
        for i in range(count)
    ]


def clips(options: Options, source: Input) -> Iterator[Clip]:
    """Makes one clip."""
    made = physics.make_clip(options.seed, source.split, source.data, parse_world(options.world))
    extra = {name: value for name, value in made.truth().items() if name != "fps"}  # which is a feature already
    yield Clip(source.item, made.id, source.split, made.video_TYXC, made.fps, made.captions, extra)


def variant_clips(name: str, options: Options, source: Input) -> Iterator[Clip]:
    """Makes one clip of a variant of the balls."""
    made = VARIANTS[name](options.seed, source.split, source.data)
    truth = made.truth() if isinstance(made, physics.PhysicsClip) else made.clip.truth() | made.extra
    clip = made if isinstance(made, physics.PhysicsClip) else made.clip
    extra = {key: value for key, value in truth.items() if key != "fps"}
    yield Clip(source.item, clip.id, source.split, clip.video_TYXC, clip.fps, clip.captions, extra)


def _check(options: Options) -> None:
    patch, world = options.patch, parse_world(options.world)
    sides = [side % step for side in world.sides for step in (patch.height, patch.width)]
    if any(sides) or any((frames - 1) % patch.time for frames in world.frames):
        raise UserError(
            f"--patch={patch.time},{patch.height},{patch.width} does not divide the physics clips (lengths less 1 of "
            f"{', '.join(map(str, world.frames))}, sides {', '.join(map(str, world.sides))})"
        )
    if world.given < patch.frames(2):
        raise UserError(
            f"--patch={patch.time},...: two groups are {patch.frames(2)} frames, but only {world.given} are "
            f"sure to show the balls; choose --patch={world.given - 1},... or --world='...; given={patch.frames(2)}'"
        )
    tokens = (max(world.sides) // patch.height) * (max(world.sides) // patch.width)
    if 0 < options.max_tokens < tokens:
        raise UserError(f"--max_tokens={options.max_tokens}: physics clips have up to {tokens} and are not scaled")
    if options.fps not in (0, world.fps):
        raise UserError(
            f"--fps={options.fps:g}: this world has {world.fps:g} frames/s; say so with --world='...; fps=N'"
        )
