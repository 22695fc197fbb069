"""The work of a build: from a job's inputs to its finished shard and what became of each of them.

Everything else only sees to it that this is done once for every job: in which process, on which machine, and again if
it went wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from data_pipelines.building.curation.embedding import embedded_frames
from data_pipelines.building.curation.program import FRAMES, ClipRequest
from data_pipelines.building.jobs.jobs import Job, Recipe
from data_pipelines.building.jobs.result import Result
from data_pipelines.building.writing.ledger import Entry
from data_pipelines.building.writing.shard import NONE, Shard, ShardWriter
from data_pipelines.media.clip import Clip, Cut, Outcome, Rejection
from data_pipelines.media.filters import SUBJECT_MEASURES, reject_conditions
from data_pipelines.media.measures import rounded
from data_pipelines.media.traits import Traits, traits_of
from data_pipelines.reading.records import Record
from vdit.errors import UserError
from vdit.expressions import Condition
from vdit.io.files import cache_dir, is_remote, whole_file
from vdit.io.storage import remote

BATCH_CLIPS, BATCH_BYTES = 256, 64 << 20
"""Clips whose captions and pixels are encoded together: no more, nor of more bytes, unless it is one."""


class Services(Protocol):
    """What a job has done elsewhere: where an accelerator is, or once for all jobs."""

    def encode(self, captions: list[str], videos: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Features of captions and latents of videos; each depends on nothing else that is encoded with it."""
        ...

    def embed(self, clips: list[np.ndarray]) -> np.ndarray:
        """embedding_NE of clips, see `curation.embedding`."""
        ...

    @property
    def caption(self) -> Callable[[ClipRequest], dict[str, str]]:
        """Captions of a clip by kind."""
        ...

    @property
    def detect(self) -> Callable[[ClipRequest], dict[str, float]]:
        """Box of a clip's subject by the names of its sides."""
        ...


_Found = tuple[int, Outcome, Traits]  # with the position of its input; `NONE` of what is no clip


def do_job(recipe: Recipe, job: Job, services: Services, report: Callable[[int], None]) -> None:
    """Makes the job's shard, then its result.

    Args:
      recipe, job: what to do.
      services: what is done elsewhere.
      report: told the position of the input at work, as often as something happens.

    Raises:
      UserError: if the source finds the options impossible, or nothing can be written.
      RuntimeError: if the source breaks its word: a fault of the program.
    """
    places: list[int] = []
    entries: list[Entry] = []
    with whole_target(recipe.shards, job.file) as path:
        writer = ShardWriter(path, recipe.patch)
        for batch in _batches(_outcomes(recipe, job, services, report)):
            for record, traits in _records(recipe, job, batch, services):
                writer.add(record, traits)
            places += [job.places[position] for position, *_ in batch]
            entries += [_entry(outcome) for _, outcome, _ in batch]
            report(batch[-1][0])
        shard: Shard = writer.close(job.file)
    Result(shard, tuple(places), tuple(entries)).save(f"{recipe.results}/{job.result}")


def scratch_folder(out: str) -> Path:
    """Folder of this machine for what is on its way to or from URLs in a build of `out`."""
    return cache_dir() / "builds" / remote.local_name(out)


@contextlib.contextmanager
def whole_target(folder: str, name: str) -> Iterator[Path]:
    """A file to write to, which is at its place at the end, whole or not at all."""
    if not is_remote(folder):
        with whole_file(Path(folder) / name) as path:
            yield path
        return
    scratch = scratch_folder(folder)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        yield (path := Path(temporary) / name)
        remote.send(path, f"{folder}/{name}")


def _outcomes(recipe: Recipe, job: Job, services: Services, report: Callable[[int], None]) -> Iterator[_Found]:
    """What becomes of the job's inputs, clips measured and captioned."""
    conditions = reject_conditions(recipe.options.reject)
    for position, source in enumerate(job.inputs):
        if position in job.verdicts:
            yield position, Rejection(source.item, source.split, job.verdicts[position]), NONE
            continue
        report(position)
        try:
            for outcome in recipe.clips(recipe.options, source):
                generated = not (source.path or source.signature)
                yield position, *_judged(outcome, recipe, conditions, services, generated)
                report(position)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # whatever a file can bring about costs that file alone
            if not source.path:
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            yield position, Rejection(source.item, source.split, reason), NONE


def _judged(
    outcome: Outcome, recipe: Recipe, conditions: Sequence[Condition], services: Services, generated: bool
) -> tuple[Outcome, Traits]:
    """The outcome, captioned, and what it is like; a rejection if its captions cannot be stored, or it is not wanted.

    Programs are asked only about clips that are wanted by all else.
    """
    if not isinstance(outcome, Clip):
        return outcome, NONE
    subject = [condition for condition in conditions if set(condition.names) & set(SUBJECT_MEASURES)]
    reason, traits = _caption_problem(outcome), traits_of(outcome, generated)
    reason = reason or _unwanted(traits, [condition for condition in conditions if condition not in subject])
    if not reason and (recipe.captioner or recipe.detector):
        outcome, traits = _asked(outcome, traits, recipe, services)
    if reason := reason or _unwanted(traits, subject):
        return Rejection(outcome.item, outcome.split, reason, outcome.shape_before, outcome.fps_before), NONE
    return outcome, traits


def _unwanted(traits: Traits, conditions: Sequence[Condition]) -> str:
    """The first condition that a clip meets, as a reason; empty if it meets none."""
    return next((f"not wanted: {each.text}" for each in conditions if each(traits.measures)), "")


def _asked(clip: Clip, traits: Traits, recipe: Recipe, services: Services) -> tuple[Clip, Traits]:
    """The clip with what the user's programs say of it, which the ledger notes."""
    count, notes = len(clip.video_TYXC), clip.notes
    frames = clip.video_TYXC[np.unique(np.linspace(0, count - 1, min(count, FRAMES)).astype(int))]
    request = ClipRequest(clip.id, clip.item, float(clip.fps), frames, dict(clip.captions))
    if recipe.detector:
        box = {name: rounded(value) for name, value in services.detect(request).items()}
        traits = dataclasses.replace(traits, measures={**traits.measures, **box})
        notes = (*notes, f"subject by {recipe.detector}")
    if recipe.captioner:
        clip = dataclasses.replace(clip, captions=services.caption(request))
        notes = (*(note for note in notes if note != "no caption"), f"captions by {recipe.captioner}")
    return dataclasses.replace(clip, notes=notes), traits


def _caption_problem(outcome: Clip) -> str:
    for caption in outcome.captions.values():
        try:
            caption.encode()
        except UnicodeEncodeError:
            return f"its caption {caption[:40]!a} is not valid Unicode; write it as UTF-8"
    return ""


def _batches(outcomes: Iterator[_Found]) -> Iterator[list[_Found]]:
    batch: list[_Found] = []
    size = 0
    for position, outcome, traits in outcomes:
        batch.append((position, outcome, traits))
        size += outcome.video_TYXC.nbytes if isinstance(outcome, Clip) else 0
        if len(batch) >= BATCH_CLIPS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _records(recipe: Recipe, job: Job, batch: list[_Found], services: Services) -> Iterator[tuple[Record, Traits]]:
    """The records of a batch's clips, and what these are like."""
    clips = [outcome for _, outcome, _ in batch if isinstance(outcome, Clip)]
    if strays := [clip for clip in clips if clip.split != job.split]:
        raise RuntimeError(f"{strays[0].item} is of the split {strays[0].split}, its input of {job.split}")
    captions = list(dict.fromkeys(caption for clip in clips for caption in clip.captions.values()))
    if not clips:
        return
    features, latents = services.encode(captions, [clip.video_TYXC for clip in clips] if recipe.latents else [])
    text = dict(zip(captions, features, strict=True))
    stored = latents if recipe.latents else [clip.video_TYXC for clip in clips]
    noted = [traits for _, outcome, traits in batch if isinstance(outcome, Clip)]
    if recipe.embed:
        embedding_NE = services.embed([embedded_frames(clip.video_TYXC) for clip in clips])
        pairs = zip(noted, embedding_NE, strict=True)
        noted = [dataclasses.replace(traits, embedding_E=embedding_E) for traits, embedding_E in pairs]
    for clip, video_TYXC, traits in zip(clips, stored, noted, strict=True):
        texts = {kind: text[caption] for kind, caption in clip.captions.items()}
        fps = clip.fps / recipe.time_stride
        yield Record(clip.id, video_TYXC, fps, clip.captions, texts, clip.extra), traits


def _entry(outcome: Outcome) -> Entry:
    """What the ledger says of an outcome."""
    before = outcome.shape_before and _whole(outcome.shape_before)
    if isinstance(outcome, Rejection | Cut):
        status = "rejected" if isinstance(outcome, Rejection) else "cut"
        return Entry(outcome.item, outcome.split, status, outcome.reason, before, None, float(outcome.fps_before))
    after = _whole(outcome.video_TYXC.shape[:3])
    before = before or after
    return Entry(
        outcome.item,
        outcome.split,
        "scaled" if before[1:] != after[1:] else "accepted",
        "; ".join(outcome.notes),
        before,
        after,
        float(outcome.fps_before or outcome.fps),
        float(outcome.fps),
    )


def _whole(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(length) for length in shape)
