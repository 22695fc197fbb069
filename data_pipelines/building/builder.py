"""Building a data set: jobs, the engine that does them, and the ledger of what became of every input."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import Any

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.encoders import PIXELS
from data_pipelines.building.engines.registry import Engine, make_engine
from data_pipelines.building.jobs.do_job import whole_target
from data_pipelines.building.jobs.jobs import Recipe, plan_jobs
from data_pipelines.building.jobs.listing import Listing
from data_pipelines.building.jobs.rejecting import reject_duplicates
from data_pipelines.building.jobs.result import finished_jobs, load_result, write_ledger
from data_pipelines.building.workspace import Workspace, differences, read_identity
from data_pipelines.building.writing.ledger import Ledger
from data_pipelines.building.writing.publish import publish
from data_pipelines.media.clip import digest
from data_pipelines.media.filters import DUPLICATE
from data_pipelines.media.signatures import sign
from data_pipelines.packing.index import META_FILE
from data_pipelines.sources.registry import Source, find_source
from vdit.command.progress_bar import ProgressBar
from vdit.errors import UserError
from vdit.io.files import is_remote
from vdit.io.storage import remote
from vdit.models.text.token_encoder import TextEncoder

LEDGER_FILE = "ledger.csv"


def build(args: BuildArgs, encoder: TextEncoder | None = None) -> Ledger | None:
    """Builds the data set, or finds that it is there.

    Args:
      args: what to build.
      encoder: text encoder to use instead of loading `args.text_encoder`.

    Returns:
      the ledger; None if the data set was there already.

    Raises:
      UserError: if an argument is wrong, `args.out` holds something else, an input hangs every time, or no clip was
        accepted.
    """
    started = time.monotonic()
    source = find_source(args.source)
    args.check(source)
    with contextlib.closing(make_engine(args, encoder)) as engine:
        autoencoder = engine.encoders.autoencoder_identity()
        identity = args.identity(source) | ({"autoencoder_hash": hash} if (hash := autoencoder.get("hash")) else {})
        space = Workspace(args.out)
        if not source.listed and _is_built(args.out, space, identity):
            return None
        inputs = _listing(args, source)
        if source.listed:
            identity["inputs"] = digest(inputs)
            if _is_built(args.out, space, identity):
                return None
        with space.locked():
            ledger = None if space.published() else _build(args, source, inputs, space, engine, identity)
            space.finish()
        space.tidy()
    if ledger:
        print(ledger.table())
    print(f"built {args.out} in {time.monotonic() - started:.1f} s")
    return ledger


def _is_built(out: str, space: Workspace, identity: dict[str, Any]) -> bool:
    """Whether the very data set is there, and says so; raises UserError if something else is."""
    if not remote.exists(out) or (not remote.is_file(out) and not remote.list_names(out)):
        return False
    if remote.is_file(out) or not remote.exists(f"{out}/{META_FILE}"):
        if is_remote(out) and space.begun():
            return False
        raise UserError(f"--out={out} exists and is not a data set; choose another directory")
    if differing := differences(read_identity(f"{out}/{META_FILE}", "build"), identity):
        raise UserError(f"--out={out} is a data set with {differing}; choose another --out")
    from data_pipelines.reading.store import Dataset

    Dataset(out)  # raises if a shard is missing or cut short
    space.tidy()
    print(f"{out} is already built with these arguments")
    return True


def _listing(args: BuildArgs, source: Source) -> Listing:
    """All inputs; those that may be others the next time are signed."""
    inputs = source.inputs(args.options)
    try:
        return Listing(sign(inputs) if source.listed else inputs)
    except sqlite3.OperationalError as error:
        raise UserError(
            f"the list of inputs cannot be written to the folder of temporary files ({error}); make room there, or set "
            "SQLITE_TMPDIR to another folder"
        ) from error


def _build(
    args: BuildArgs, source: Source, inputs: Listing, space: Workspace, engine: Engine, identity: dict[str, Any]
) -> Ledger:
    """Does the jobs that are not done, and completes the data set."""
    space.check_plan(identity)
    jobs = plan_jobs(inputs, source.name)
    recipe = Recipe(
        clips=source.clips,
        options=args.options,
        patch=args.stored_patch,
        time_stride=args.strides[0],
        latents=args.autoencoder != PIXELS,
        shards=space.target,
        results=space.results,
        captioner=args.captioner,
        detector=args.detector,
        embed=args.embed,
    )
    meta = {
        "source": source.name,
        "licence": source.licence,
        "autoencoder": engine.encoders.autoencoder_identity(),
        "text_encoder": engine.encoders.text_identity(),
        "build": identity,
    }
    finished = finished_jobs(recipe, jobs.names)
    waiting = (jobs.read(name) for name in jobs.names if name.number not in finished)
    before = sum(jobs.counts[number] for number in finished)
    with ProgressBar(source.name, "input", len(inputs), done=before) as bar:
        for job in engine.run(recipe, waiting):
            bar.advance(len(job.inputs))
    if usage := engine.encoders.usage():
        print(usage)
    if DUPLICATE in args.options.reject:
        reject_duplicates(recipe, jobs.names)
    with (
        whole_target(space.target, LEDGER_FILE) as path,
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as text,
    ):
        ledger = write_ledger(text, recipe, jobs.names)
    if not ledger.accepted:
        print(ledger.table())
        reasons = "; ".join(reason for reason, _ in ledger.reasons.most_common(3)) or "no inputs"
        space.abandon([*(job.file for job in jobs.names), LEDGER_FILE])
        raise UserError(f"--source={args.source}: no clip was accepted ({reasons})")
    shards = ((job.split, load_result(f"{recipe.results}/{job.result}").shard) for job in jobs.names)
    if said := publish(shards, space.target, source.name, args.stored_patch, meta):
        print(said)
    return ledger
