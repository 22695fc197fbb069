"""Builds a data set: clips of a source, stored with their captions' features, an index and a ledger.

    python -m data_pipelines.build --source=film --out=data/film
    python -m data_pipelines.build --source=physics --out=data/physics --limit=2000

A build is complete or absent: it grows in OUT.partial and is renamed at the end. The same arguments give the same
bytes, and an OUT built with them before is left as it is.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags
from etils import epath
from tqdm import tqdm

from data_pipelines.clip import Clip, Options, Rejection
from data_pipelines.index import META_FILE, load_meta
from data_pipelines.ledger import Entry, Ledger
from data_pipelines.records import Record
from data_pipelines.sources import Source, find_source
from data_pipelines.store import Dataset
from data_pipelines.writer import DatasetWriter, partial_directory
from vdit.config import UserError, run_main
from vdit.models.text_encoders import load_text_encoder
from vdit.models.token_encoder import TextEncoder
from vdit.patches import Patch

AUTOENCODERS = ("pixels",)
CHUNK_CLIPS, CHUNK_BYTES = 4096, 256 << 20  # clips that wait in memory: captions are encoded in large batches
LOG_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class BuildArgs:
    """What to build.

    Attributes:
      source: name in `sources.SOURCES`.
      out: directory to be made.
      options: for the source, with its defaults filled in.
      autoencoder: what turns pixels into what is stored; "pixels" keeps them.
      text_encoder: name in `text_encoders.TEXT_ENCODERS`.
    """

    source: str
    out: str
    options: Options = Options()
    autoencoder: str = "pixels"
    text_encoder: str = "minilm"

    def identity(self, source: Source) -> dict[str, Any]:
        """All that the stored bytes depend on."""
        options = self.options
        return {
            "source": self.source,
            "version": source.version,
            "limit": options.limit,
            "max_tokens": options.max_tokens,
            "fps": options.fps,
            "patch": list(dataclasses.astuple(options.patch)),
            "seed": options.seed,
            "autoencoder": self.autoencoder,
            "text_encoder": self.text_encoder,
        }


def build(args: BuildArgs, encoder: TextEncoder | None = None) -> Ledger | None:
    """Builds the data set, or finds that it is there.

    Args:
      args: what to build.
      encoder: text encoder to use instead of loading `args.text_encoder`.

    Returns:
      the ledger; None if the data set was there already.

    Raises:
      UserError: if an argument is wrong, `args.out` holds something else, or no clip was accepted.
    """
    source = find_source(args.source)
    if args.autoencoder not in AUTOENCODERS:
        raise UserError(f"--autoencoder={args.autoencoder!r} is unknown; choose one of {', '.join(AUTOENCODERS)}")
    if not args.out:
        raise UserError("--out is missing: name the directory to build")
    out = epath.Path(args.out)
    if _is_built(out, args.identity(source)):
        print(f"{out} is already built with these arguments")
        return None
    started = time.monotonic()
    encoder = encoder or load_text_encoder(args.text_encoder)
    with partial_directory(out) as part:
        writer, ledger = DatasetWriter(part, args.source, args.options.patch), Ledger()
        clips = _progress(source.clips(args.options), source.count(args.options), args.source)
        _write_clips(clips, writer, ledger, encoder)
        if not any(entry.status != "rejected" for entry in ledger.entries):
            print(ledger.table())
            reasons = sorted({entry.reason for entry in ledger.entries})
            raise UserError(f"--source={args.source}: no clip was accepted ({'; '.join(reasons[:3]) or 'no inputs'})")
        ledger.save(part / "ledger.csv")
        writer.finish(
            {
                "source": args.source,
                "licence": source.licence,
                "autoencoder": {"name": args.autoencoder},
                "text_encoder": {"name": encoder.name, "width": encoder.width, "hash": encoder.hash},
                "build": args.identity(source),
            }
        )
    print(ledger.table())
    print(f"built {out} in {time.monotonic() - started:.1f} s")
    return ledger


def _is_built(out: epath.Path, identity: dict[str, Any]) -> bool:
    """Whether the very data set is there; raises UserError if something else is."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / META_FILE).exists():
        raise UserError(f"--out={out} exists and is not a data set; choose another directory")
    found = load_meta(out).get("build", {})
    differing = [f"{key} {found.get(key)!r}" for key, value in identity.items() if found.get(key) != value]
    if differing:
        raise UserError(f"--out={out} is a data set with {', '.join(differing)}; choose another --out or remove it")
    Dataset(out)  # raises if a shard is missing or cut short
    return True


def _write_clips(
    clips: Iterable[Clip | Rejection], writer: DatasetWriter, ledger: Ledger, encoder: TextEncoder
) -> None:
    """Writes clips in order; captions are encoded chunk by chunk, each text once."""
    features: dict[str, np.ndarray] = {}
    for chunk in _chunks(clips):
        kept = [clip for clip in chunk if isinstance(clip, Clip)]
        texts = dict.fromkeys(text for clip in kept for text in clip.captions.values())
        new = [text for text in texts if text not in features]
        features.update(zip(new, encoder.encode(new), strict=True))
        for clip in chunk:
            if isinstance(clip, Rejection):
                ledger.add(Entry(clip.item, clip.split, "rejected", clip.reason, clip.shape_before))
                continue
            text = {kind: features[caption] for kind, caption in clip.captions.items()}
            writer.add(clip.split, Record(clip.id, clip.video_TYXC, clip.fps, clip.captions, text, clip.extra))
            ledger.add(_accepted(clip))


def _accepted(clip: Clip) -> Entry:
    after = clip.video_TYXC.shape[:3]
    before = clip.shape_before or after
    status = "scaled" if before[1:] != after[1:] else "accepted"
    return Entry(clip.item, clip.split, status, "; ".join(clip.notes), before, after)


def _chunks(clips: Iterable[Clip | Rejection]) -> Iterator[list[Clip | Rejection]]:
    """Groups clips up to `CHUNK_CLIPS` or `CHUNK_BYTES`."""
    chunk: list[Clip | Rejection] = []
    size = 0
    for clip in clips:
        chunk.append(clip)
        size += clip.video_TYXC.nbytes if isinstance(clip, Clip) else 0
        if len(chunk) >= CHUNK_CLIPS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _progress(items: Iterable[Any], total: int, name: str) -> Iterator[Any]:
    """Passes items on, with a bar on a terminal and a line every `LOG_SECONDS` in a log."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=name, unit="clip")
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_SECONDS:
            last, rate = now, done / (now - started)
            left = (total - done) / rate
            print(f"{name}: {done}/{total} clips, {rate:.1f}/s, {left:.0f} s left", file=sys.stderr, flush=True)


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
    for flag in ("limit", "max_tokens", "fps", "seed"):
        if (values(flag) or 0) < 0:
            raise UserError(f"--{flag}={values(flag)} is negative; leave it out for the default")
    options = Options(
        patch=parse_patch(values("patch")),
        max_tokens=source.max_tokens if values("max_tokens") is None else values("max_tokens"),
        fps=source.fps if values("fps") is None else values("fps"),
        limit=values("limit"),
        seed=values("seed"),
        film=values("film"),
        workers=values("workers"),
    )
    return BuildArgs(name, values("out"), options, values("autoencoder"), values("text_encoder"))


def _define_flags() -> None:
    flags.DEFINE_string("source", "", "where clips come from: film or physics")
    flags.DEFINE_string("out", "", "directory of the data set")
    flags.DEFINE_integer("limit", 0, "most training clips, 0 = all; the other splits shrink with it")
    about = "most spatial patches of a frame group, 0 = no limit; larger clips are scaled down (film: 45)"
    flags.DEFINE_integer("max_tokens", None, about)
    flags.DEFINE_float("fps", None, "frames kept per second, 0 = all (film: 12)")
    flags.DEFINE_string("patch", "4,8,8", "frames, rows and columns of a patch")
    flags.DEFINE_string("autoencoder", "pixels", "what encodes pixels: " + ", ".join(AUTOENCODERS))
    flags.DEFINE_string("text_encoder", "minilm", "what encodes captions: minilm or none")
    flags.DEFINE_integer("seed", 0, "seed of generated clips")
    flags.DEFINE_string("film", "", "the film's file, if it is not to be fetched")
    flags.DEFINE_integer("workers", 2, "processes that make clips; the result does not depend on it")


def _main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; write --name=value")
    build(make_args(lambda name: flags.FLAGS[name].value))


if __name__ == "__main__":
    _define_flags()
    run_main(_main)
