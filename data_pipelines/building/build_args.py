"""The arguments of a build."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipelines.building.build_flags import TIME_LIMIT
from data_pipelines.building.curation.captioner import captioner_identity, check_captioner
from data_pipelines.building.curation.detector import check_detector
from data_pipelines.building.encoders import PIXELS
from data_pipelines.media.clip import Options
from data_pipelines.media.filters import parse_filters
from data_pipelines.media.shots import require_detector
from data_pipelines.sources.registry import Source, find_source
from vdit.errors import UserError
from vdit.io.files import is_remote
from vdit.patches import Patch

_ALWAYS = ("limit", "max_tokens", "fps", "patch", "seed")
_PLACES = ("film", "stamps", "data_dir")
"""Options that say where things lie; the clips do not depend on them."""


@dataclasses.dataclass(frozen=True)
class BuildArgs:
    """What to build, and how.

    Attributes:
      source: as `sources.find_source` knows it.
      out: directory or URL to be made.
      options: for the source, with its defaults filled in.
      autoencoder: what turns pixels into what is stored, as `autoencoders.load_autoencoder` knows it; "pixels" keeps
        them.
      strides: pixels of one stored element; options.patch is a multiple of them.
      text_encoder: name in `text_encoders.TEXT_ENCODERS`.
      captioner: what captions the clips, see `captioner.Captioner`; empty = their source.
      detector: what finds their subjects, see `detector.Detector`; empty = nothing, or their source.
      embed: whether clips are embedded, see `curation.embedding`.
      workers: processes of the local engine; the result depends on nothing from here on.
      time_limit: seconds an input may go without giving a frame.
      reject_timeouts: whether inputs that exceed it every time are rejected rather than tried again the next time.
      engine: what runs the build, of `build_flags.ENGINES`.
      ray_address: of a Ray cluster; empty = as `ray_engine.RayEngine` has it.
    """

    source: str
    out: str
    options: Options = Options()
    autoencoder: str = PIXELS
    strides: tuple[int, int, int] = (1, 1, 1)
    text_encoder: str = "minilm"
    captioner: str = ""
    detector: str = ""
    embed: bool = False
    workers: int = 1
    time_limit: float = TIME_LIMIT
    reject_timeouts: bool = False
    engine: str = "local"
    ray_address: str = ""

    def __post_init__(self) -> None:
        for name in ("source", "out"):
            object.__setattr__(self, name, os.path.expanduser(getattr(self, name)))

    @property
    def stored_patch(self) -> Patch:
        """Extent of a patch in what is stored."""
        pixels = dataclasses.astuple(self.options.patch)
        return Patch(*(size // stride for size, stride in zip(pixels, self.strides, strict=True)))

    def identity(self, source: Source) -> dict[str, Any]:
        """All that the stored bytes depend on; options that are off are left out."""
        options, default = self.options, Options()
        names = [field.name for field in dataclasses.fields(Options) if field.name not in (*_ALWAYS, *_PLACES)]
        chosen = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(default, name)}
        return {
            "source": source.name,
            "version": source.version,
            "limit": options.limit,
            "max_tokens": options.max_tokens,
            "fps": options.fps,
            "patch": list(dataclasses.astuple(options.patch)),
            "seed": options.seed,
            "autoencoder": self.autoencoder,
            "text_encoder": self.text_encoder,
            **captioner_identity(self.captioner),
            **({"detector": self.detector} if self.detector else {}),
            **({"embed": True} if self.embed else {}),
            **{name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()},
        }

    def check(self, source: Source) -> None:
        """Raises UserError if an argument is wrong, or means nothing to the source."""
        if not self.out:
            raise UserError("--out is missing: name the directory to build")
        places = [os.path.realpath(place) for place in (self.source, self.out)]
        if source.name == "folder" and not is_remote(self.source) and places[0] in (places[1], *_parents(places[1])):
            raise UserError(
                f"--out={self.out} lies in --source={self.source}, so it would be read as well; choose another place"
            )
        options, default = self.options, Options()
        for field in dataclasses.fields(Options):
            value = getattr(options, field.name)
            if value != getattr(default, field.name) and field.name not in (*source.takes, "patch"):
                raise UserError(f"--{field.name}={value} does not apply to --source={self.source}; leave it out")
        for name, value in {**dataclasses.asdict(options), "time_limit": self.time_limit}.items():
            if isinstance(value, float) and not math.isfinite(value) and name != "val":
                raise UserError(f"--{name}={value:g} is not a number; leave it out for the default")
        if not 0 <= options.val < 1:
            raise UserError(f"--val={options.val} is not a share of the inputs; choose one from 0 to below 1")
        for name, value, least in (
            ("workers", self.workers, 1),
            ("min_frames", options.min_frames, 1),
            ("max_frames", options.max_frames, 0),
            ("hop", options.hop, 0),
        ):
            if value < least:
                raise UserError(f"--{name}={value} is too small; choose at least {least}")
        if self.ray_address and self.engine != "ray":
            raise UserError(f"--ray_address={self.ray_address} does not apply to --engine={self.engine}; leave it out")
        if self.time_limit <= 0:
            raise UserError(f"--time_limit={self.time_limit:g} gives no time; choose seconds above 0")
        if 0 < options.max_frames < options.min_frames:
            raise UserError(f"--max_frames={options.max_frames} is less than --min_frames={options.min_frames}")
        if options.hop and not options.max_frames:
            raise UserError(f"--hop={options.hop} needs --max_frames, the length of the pieces")
        parse_filters(options.reject)
        check_captioner(self.captioner)
        check_detector(self.detector)
        if options.shots:
            require_detector()


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in Path(path).parents]


def parse_patch(text: str) -> Patch:
    """Reads "time,height,width".

    Raises:
      UserError: if it is not three positive whole numbers.
    """
    try:
        time_, height, width = (int(part) for part in text.split(","))
        if min(time_, height, width) < 1:
            raise ValueError
    except ValueError:
        raise UserError(f"--patch={text!r} is not three positive whole numbers time,height,width, as 4,8,8") from None
    return Patch(time_, height, width)


def make_args(values: Callable[[str], Any]) -> BuildArgs:
    """Build arguments from flag values by name; None takes the source's default.

    Raises:
      UserError: if a value is out of range.
    """
    name = values("source")
    source = find_source(name)
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(Options):
        value = values(field.name)
        if isinstance(value, int | float) and value < 0:
            raise UserError(f"--{field.name}={value} is negative; leave it out for the default")
        chosen[field.name] = os.path.expanduser(value) if field.name in _PLACES else value
    autoencoder = values("autoencoder")
    strides = (1, 1, 1)
    if autoencoder != PIXELS:
        from vdit.models.autoencoders.registry import strides_of  # here, as a build of pixels does without JAX

        strides = strides_of(autoencoder)
    patch = parse_patch(chosen["patch"] or ("4,8,8" if autoencoder == PIXELS else "1,2,2"))
    chosen["patch"] = Patch(*(size * stride for size, stride in zip(dataclasses.astuple(patch), strides, strict=True)))
    chosen["reject"] = parse_filters(chosen["reject"])
    for default in ("max_tokens", "fps"):
        if chosen[default] is None:
            chosen[default] = getattr(source, default)
    return BuildArgs(
        source=name,
        out=values("out"),
        options=Options(**chosen),
        autoencoder=autoencoder,
        strides=strides,
        text_encoder=values("text_encoder"),
        workers=values("workers"),
        time_limit=values("time_limit"),
        reject_timeouts=values("reject_timeouts"),
        captioner=values("captioner"),
        detector=values("detector"),
        embed=values("embed"),
        engine=values("engine"),
        ray_address=values("ray_address"),
    )
