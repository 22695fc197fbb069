"""Builds a data set: clips of a source, stored with their captions' features, an index and a ledger.

    python -m data_pipelines.build --source=clips/ --out=data/clips --max_tokens=256
    python -m data_pipelines.build --source=film --out=data/film
    python -m data_pipelines.build --source=physics --out=data/physics --limit=2000

A build is complete or absent: it grows in OUT.partial and is renamed at the end. One that was stopped, however, goes on
when it is started again with the same arguments. The same arguments give the same bytes, and an OUT built with them
before is left as it is. With --shard=i/n each of n machines does its share; the last to finish puts the parts together.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epath
from tqdm import tqdm

from data_pipelines.building import jobs, staged
from data_pipelines.building.assemble import Assembler, ledger_entry
from data_pipelines.building.build_args import PIXELS, BuildArgs, define_flags, parse_flags
from data_pipelines.building.freed_memory import keep_freed_memory
from data_pipelines.building.ledger import Ledger
from data_pipelines.building.pool import Pool
from data_pipelines.building.publish import publish
from data_pipelines.building.workspace import Workspace, differences
from data_pipelines.building.writer import PartWriter
from data_pipelines.media.clip import Input, digest
from data_pipelines.packing.index import META_FILE
from data_pipelines.sources.registry import Source, find_source
from vdit.command import no_arguments, run_main
from vdit.errors import UserError
from vdit.io import remote
from vdit.models.text.text_encoders import load_text_encoder
from vdit.models.text.token_encoder import TextEncoder

if TYPE_CHECKING:  # importing JAX takes as long as decoding 800 frames, and pixels alone do without it
    from vdit.models.autoencoders.autoencoder import Autoencoder

LOG_SECONDS = 10.0
LEDGER_FILE = "ledger.csv"


def build(args: BuildArgs, encoder: TextEncoder | None = None) -> Ledger | None:
    """Builds the data set, or this machine's share of it, or finds that it is there.

    Args:
      args: what to build.
      encoder: text encoder to use instead of loading `args.text_encoder`.

    Returns:
      the ledger; None if the data set was there already, or parts of other machines are missing.

    Raises:
      UserError: if an argument is wrong, `args.out` holds something else, an input hangs every time, or no clip was
        accepted.
    """
    started = time.monotonic()
    source = find_source(args.source)
    args.check(source)
    autoencoder = None
    if args.autoencoder != PIXELS:
        from vdit.models.autoencoders.registry import load_autoencoder

        autoencoder = load_autoencoder(args.autoencoder)
    identity = args.identity(source) | ({"autoencoder_hash": autoencoder.hash} if autoencoder else {})
    if not source.listed and _is_built(args.out, identity):
        return None
    inputs = source.inputs(args.options)
    if source.listed:
        identity["inputs"] = digest(inputs)
        if _is_built(args.out, identity):
            return None
    space = Workspace(args.out, *args.shard)
    if not space.published():
        with space.locked():
            space.check_plan(identity)
            if not (args.merge or space.built()):
                encoder = encoder or load_text_encoder(args.text_encoder)
                _build_part(args, source, inputs, space.part, encoder, autoencoder, identity)
            space.upload()
    ledger = None
    with space.merging():
        if _is_built(args.out, identity):  # another machine was faster
            return None
        if not space.published():
            if missing := space.missing_parts():
                print(
                    f"--shard={args.shard[0]}/{args.shard[1]} is built; still missing: {', '.join(map(str, missing))}"
                )
                return None
            ledger = _merge(args, source, space)
        space.finish()
    if ledger:
        print(ledger.table())
    print(f"built {args.out} in {time.monotonic() - started:.1f} s")
    return ledger


def _is_built(out: str, identity: dict[str, Any]) -> bool:
    """Whether the very data set is there, and says so; raises UserError if something else is."""
    if not remote.exists(out) or (not remote.is_file(out) and not remote.list_names(out)):
        return False
    if remote.is_file(out) or not remote.exists(f"{out}/{META_FILE}"):
        raise UserError(f"--out={out} exists and is not a data set; choose another directory")
    found = json.loads(remote.read_bytes(f"{out}/{META_FILE}")).get("build", {})
    if differing := differences(found, identity):
        raise UserError(f"--out={out} is a data set with {differing}; choose another --out or remove it")
    from data_pipelines.reading.store import Dataset

    Dataset(out)  # raises if a shard is missing or cut short
    print(f"{out} is already built with these arguments")
    return True


def _build_part(
    args: BuildArgs,
    source: Source,
    inputs: Sequence[Input],
    part: Path,
    encoder: TextEncoder,
    autoencoder: Autoencoder | None,
    identity: dict[str, Any],
) -> None:
    """Decodes this machine's share of the inputs and writes its shards."""
    groups = jobs.group(inputs)
    numbers = jobs.share(groups, *args.shard)
    folder = staged.make_folder(part)
    writer = PartWriter(epath.Path(part), args.stored_patch)
    assembler = Assembler(writer, encoder, autoencoder)
    finished = jobs.Finished(writer.closed())
    todo = jobs.make_jobs(source, args.options, groups, numbers, folder)
    total = sum(len(groups[number]) for number in numbers)
    with Pool(args.workers, args.time_limit, args.reject_timeouts, jobs.fetch_inputs) as pool:
        progress = _Progress(total, source.name)
        for chunk in pool.run(todo, finished):
            assembler.take(chunk)
            if chunk.is_last():
                jobs.forget_inputs(folder, chunk.job)
                progress(len(groups[chunk.job]))
        progress.close()
    assembler.flush()
    if autoencoder:
        print(assembler.usage())
    with (part / LEDGER_FILE).open("w", encoding="utf-8", newline="") as file:
        ledger = Ledger(file)
        for number in numbers:
            for chunk in staged.finished_chunks(folder, number):
                for entry in chunk.read():
                    ledger.add(ledger_entry(entry))
    writer.close(
        {
            "source": source.name,
            "licence": source.licence,
            "autoencoder": {"name": PIXELS} if autoencoder is None else autoencoder.identity,
            "text_encoder": {"name": encoder.name, "width": encoder.width, "hash": encoder.hash},
            "build": identity,
        }
    )
    shutil.rmtree(folder)


def _merge(args: BuildArgs, source: Source, space: Workspace) -> Ledger:
    """Makes the data set of the parts of all machines."""
    text = io.StringIO()
    ledger = Ledger(text)
    for part in space.parts:
        ledger.take_over(f"{part}/{LEDGER_FILE}", remote.read_bytes(f"{part}/{LEDGER_FILE}"))
    if not ledger.accepted:
        print(ledger.table())
        reasons = "; ".join(reason for reason, _ in ledger.reasons.most_common(3)) or "no inputs"
        space.remove()
        raise UserError(f"--source={args.source}: no clip was accepted ({reasons})")
    remote.write_bytes(f"{space.target}/{LEDGER_FILE}", text.getvalue().encode("utf-8"))
    publish(space.parts, space.target, source.name)
    return ledger


class _Progress:
    """A bar over inputs on a terminal, a line every `LOG_SECONDS` in a log."""

    def __init__(self, total: int, name: str) -> None:
        self._bar = tqdm(total=total, desc=name, unit="input", disable=not sys.stderr.isatty())
        self._total, self._name, self._done = total, name, 0
        self._started = self._last = time.monotonic()

    def __call__(self, inputs: int) -> None:
        """So many more inputs are done."""
        self._done += inputs
        self._bar.update(inputs)
        now = time.monotonic()
        if self._bar.disable and now - self._last >= LOG_SECONDS:
            self._last, rate = now, self._done / (now - self._started)
            left = (self._total - self._done) / rate
            line = f"{self._name}: {self._done}/{self._total} inputs, {rate:.1f}/s, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()


def main(argv: list[str]) -> None:
    """Builds what the flags say."""
    no_arguments(argv)
    keep_freed_memory()
    build(parse_flags())


if __name__ == "__main__":
    define_flags()
    run_main(main)
