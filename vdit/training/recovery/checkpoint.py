"""Checkpoints: the train state and the data position in one Orbax save."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import fsspec
import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from vdit.config import TrainConfig
from vdit.errors import StorageError, UserError
from vdit.io.files import is_remote
from vdit.io.storage.failures import needed
from vdit.io.storage.lock import check_writer
from vdit.io.storage.retry import is_transient, retry_transient
from vdit.io.weights.safetensors import check_tensors
from vdit.training.recovery.checksums import checksums
from vdit.training.recovery.spikes import LossSpikeDetector
from vdit.training.step import TrainState

ATTEMPTS, DELETION = 20, 0.5
"""How often the newest checkpoint is looked for while a trainer deletes it, and how long a deletion may take."""

FORMAT = 3
"""Version of what is saved. 2 had other names, see `_RENAMED`; 1 had no checksums, so no damage is noticed."""

_RENAMED = {"watch": "spikes", "squares": "attention_pairs"}


@dataclasses.dataclass
class Position:
    """Position of a run in its data and totals consumed; a few integers.

    Attributes:
      step: steps taken.
      next_row: next row of the plan's endless stream.
      patches, text, examples: real patches, caption tokens and examples seen.
      attention_pairs: pairs of tokens that attended (n^2 of a segment, see `flops`), for the FLOPs of attention.
      skipped: ranges of rows that were skipped after a divergence.
      spikes: what is known of the losses so far.
      base: checksum of the frozen weights at which adapters stand; 0 without any.
    """

    step: int = 0
    next_row: int = 0
    patches: int = 0
    text: int = 0
    examples: int = 0
    attention_pairs: float = 0.0
    skipped: list[list[int]] = dataclasses.field(default_factory=list)
    spikes: LossSpikeDetector = dataclasses.field(default_factory=LossSpikeDetector)
    base: int = 0


def _trained(state: TrainState) -> TrainState:
    """The state without frozen weights: what a checkpoint holds."""
    return dataclasses.replace(state, frozen=())


def _named(state: Any) -> dict[str, Any]:
    """The state as a flat dictionary path -> array, so that a checkpoint does not depend on our classes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      workdir: the run's folder; its subfolder `checkpoints` is used.
      config: how many are kept.
      create: make the folder; without it nothing is written before the first save.
    """

    def __init__(self, workdir: epath.PathLike, config: TrainConfig, create: bool = True):
        self.path = epath.Path(workdir) / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            create=create,
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
                [
                    ocp.checkpoint_managers.LatestN(config.keep),
                    ocp.checkpoint_managers.BestN(
                        get_metric_fn=lambda metrics: -metrics["loss"], n=1, keep_checkpoints_without_metrics=False
                    ),
                    ocp.checkpoint_managers.CustomSteps(list(config.keep_steps)),
                ]
            ),
        )
        self._whole = self.path if is_remote(self.path) else self.path.resolve()  # which would spoil gs://
        self._manager = _listed(lambda: ocp.CheckpointManager(self._whole, options=options))

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, position: Position, loss: float | None = None) -> None:
        """Starts to write a checkpoint in the background; does nothing if this step is saved already.

        Args:
          state, position: what to save.
          loss: its validation loss, if known; the checkpoint with the lowest is kept.

        Raises:
          UserError: if this or the last one cannot be written, for want of room or permission; else StorageError.
        """
        if position.step in self._manager.all_steps():
            return
        check_writer(self.path.parent)
        named = _named(_trained(state))
        values = {"format": FORMAT, **dataclasses.asdict(position), "sums": checksums(named)}
        values["crc"] = _crc(values)
        args = ocp.args.Composite(state=ocp.args.StandardSave(named), position=ocp.args.JsonSave(values))
        metrics = None if loss is None else {"loss": loss}
        with self._reporting(position.step):
            self._manager.save(position.step, args=args, metrics=metrics)

    def restore(self, like: TrainState, step: int) -> tuple[TrainState, Position]:
        """Reads one checkpoint into the shapes and shardings of `like`, of which frozen weights are taken as they are.

        Raises:
          UserError: if it is missing, damaged, of another format, or lacks anything of the state.
          StorageError: if it cannot be read just now.
        """
        wanted = _named(_trained(like))
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), wanted)
        where = self.path / str(step)
        if not where.exists():
            steps = ", ".join(str(s) for s in self._manager.all_steps()) or "none"
            raise UserError(f"no checkpoint of step {step} in {self.path}; there are {steps}")
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore())
        restore_output = _only_one_error()
        try:
            read = self._read(step, args)
            position, sums = _position(read["position"], where)
            leaves = {name: read["state"][name] for name in wanted}
            _verify(leaves, sums)
        except Exception as error:  # Orbax raises bare Exceptions too
            if isinstance(error, UserError):
                raise
            raise _refusal(where, "restored: it is damaged or of another model", error) from error
        restore_output()
        state = jax.tree.unflatten(jax.tree.structure(_trained(like)), list(leaves.values()))
        return dataclasses.replace(state, frozen=like.frozen), position

    def restore_newest(self, like: TrainState) -> tuple[TrainState, Position] | None:
        """The newest checkpoint that can be restored, warning of newer ones that cannot; None if there are none.

        Several processes could differ in which they can restore, so there it is the newest or none.

        Raises:
          UserError: about the newest, if there are some and none can be restored.
          StorageError: if one cannot be read just now.
        """
        for _ in range(ATTEMPTS):
            steps = sorted(self._manager.all_steps(), reverse=True)
            refused: UserError | None = None
            for step in steps:
                try:
                    found = self.restore(like, step)
                except UserError as error:
                    if self._moved_on(steps):
                        break
                    _require_alone(error)
                    refused = refused or error
                else:
                    if refused:
                        print(f"warning: {refused}; resuming from that of step {step}", file=sys.stderr, flush=True)
                    return found
            else:
                if refused:
                    raise refused
                return None
        raise StorageError(f"{self.path} changes faster than a checkpoint is read; name one that is kept with --step")

    def _moved_on(self, steps: Sequence[int]) -> bool:
        """Whether a trainer has saved and deleted checkpoints since these were the ones there are."""
        time.sleep(DELETION)
        _listed(self._manager.reload)
        return sorted(self._manager.all_steps(), reverse=True) != list(steps)

    def newest_position(self, good: Callable[[Position], bool]) -> Position | None:
        """The newest position among the checkpoints of which `good` holds; damaged ones are left out.

        Raises:
          UserError: as `restore_newest`.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._read_position(step)[0]
            except Exception as error:  # Orbax raises bare Exceptions too
                _require_alone(_refusal(self.path / str(step), "read: it is damaged", error))
                continue
            if good(found):
                return found
        return None

    def _read_position(self, step: int) -> tuple[Position, dict[str, int] | None]:
        read = self._read(step, ocp.args.Composite(position=ocp.args.JsonRestore()))
        return _position(read["position"], self.path / str(step))

    def _read(self, step: int, args: Any) -> Any:
        return retry_transient(lambda: self._manager.restore(step, args=args), self.path / str(step))

    def restore_average(self, like: Any, step: int) -> Any:
        """The averaged parameters of one checkpoint in the shapes and shardings of `like`; reads nothing else.

        Raises:
          UserError: naming a tensor that is missing or of another shape; or if the checkpoint is damaged.
        """
        prefix, where, stored_in = "ema/", self.path / str(step), self._whole / str(step) / "state"
        abstract = {
            prefix + name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for name, x in _named(like).items()
        }
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                stored = reader.metadata(stored_in).item_metadata.tree
                shapes = {name: tuple(stored[name].shape) for name in stored if name.startswith(prefix)}
                check_tensors(where, shapes, {name: x.shape for name, x in abstract.items()})
                restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
                args = ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=True)
                read = reader.restore(stored_in, args=args)
            _verify({name: read[name] for name in abstract}, self._read_position(step)[1])
        except UserError:
            raise
        except Exception as error:  # Orbax raises bare Exceptions too
            raise _refusal(where, "read: it is damaged", error) from error
        return jax.tree.unflatten(jax.tree.structure(like), [read[name] for name in abstract])

    def wait(self) -> None:
        """Waits until what was started is on disk.

        Raises:
          UserError: as `save`.
        """
        with self._reporting(None):
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _reporting(self, step: int | None) -> Iterator[None]:
        """Turns a failure to write, which Orbax may report only at the next save, into one line."""
        try:
            yield
            return
        except Exception as error:
            reason, mend = _reason(error), needed(error)
        whole = max((s for s in checkpoint_steps(self.path.parent) if s != step), default=None)
        kept = f"that of step {whole} is whole" if whole is not None else "there is none yet"
        failed = f"a checkpoint could not be written to {self.path} ({reason}); {kept}"
        if mend:
            raise UserError(f"{failed}; {mend}, and the same command resumes from there")
        raise StorageError(f"{failed}; the same command resumes from there")

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refusal(where: epath.Path, what: str, error: Exception) -> UserError:
    """Why a checkpoint cannot be read: because of storage, or else of what it holds."""
    if is_transient(error):
        return StorageError(f"checkpoint {where} cannot be read ({_reason(error)}); is its storage there?")
    return UserError(f"checkpoint {where} cannot be {what} ({_reason(error)})")


def _require_alone(error: UserError) -> None:
    """Raises an error after which a process alone may take the checkpoint before, but one of several may not."""
    if isinstance(error, StorageError):
        raise error
    if jax.process_count() > 1:
        raise UserError(f"{error}; rename the folder, and all processes resume from the one before") from error


def _reason(error: BaseException) -> str:
    return " ".join(str(error.__cause__ or error).split())[:300] or type(error).__name__


def _crc(values: Mapping[str, Any]) -> int:
    """Checksum of what is saved beside the arrays."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _position(read: Mapping[str, Any], where: epath.Path) -> tuple[Position, dict[str, int] | None]:
    """The position, and the checksums of the arrays, from what was saved beside them.

    Raises:
      UserError: if it is of another format.
      ValueError: if it is damaged.
    """
    values = dict(read)
    if values.get("format") not in (1, 2, FORMAT):
        raise UserError(f"checkpoint {where} is not of format {FORMAT}; use the version of vdit that wrote it")
    old = values["format"] == 1
    if not old and values.pop("crc", None) != _crc(values):
        raise ValueError("its position does not have the checksum written with it")
    del values["format"]
    sums = values.pop("sums", None)
    return position_of({**({"spikes": {}} if old else {}), **values}), sums


def position_of(values: Mapping[str, Any]) -> Position:
    """The position that `dataclasses.asdict` gave.

    Raises:
      ValueError: if it has other fields.
    """
    values = {"base": 0} | {_RENAMED.get(name, name): value for name, value in values.items()}
    if values.keys() != {field.name for field in dataclasses.fields(Position)}:
        raise ValueError(f"its position holds {', '.join(values)}")
    try:
        return Position(**{**values, "spikes": LossSpikeDetector(**values["spikes"])})
    except TypeError as error:
        raise ValueError(f"its position has spikes={values['spikes']}") from error


def _verify(arrays: Mapping[str, jax.Array], sums: Mapping[str, int] | None) -> None:
    """Raises ValueError naming an array that is not what was saved; nothing is known of a checkpoint of format 1."""
    if sums is None:
        return
    for name, value in checksums(arrays).items():
        if sums.get(name) != value:
            raise ValueError(f"{name} does not have the checksum written with it")


def set_aside(workdir: epath.PathLike, after: int) -> None:
    """Renames the checkpoints of later steps to STEP.set-aside, so that none of them is taken for the newest."""
    if jax.process_index() == 0:
        for step in checkpoint_steps(workdir):
            if step > after:
                path = epath.Path(workdir) / "checkpoints" / str(step)
                aside = path.with_name(f"{step}.set-aside")
                if aside.exists():
                    aside.rmtree()
                if is_remote(path):
                    filesystem, source = fsspec.core.url_to_fs(os.fspath(path))
                    filesystem.mv(source, os.fspath(aside), recursive=True)
                else:
                    path.rename(aside)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"set_aside_{after}")


def _only_one_error() -> Callable[[], None]:
    """Silences what Orbax's parallel reads print about one another once one of them has failed.

    Orbax has no way to cancel the others. What they say of their event loop `vdit.command.run` silences everywhere.

    Returns:
      A function that undoes it; after a failure it stays, as they fail later and in threads.
    """
    logger = logging.getLogger("asyncio")
    unraisable = sys.unraisablehook

    def drop(record: logging.LogRecord) -> bool:
        return "never retrieved" not in record.getMessage()

    def unraisablehook(item: Any) -> None:
        if "_read_array_index_and_device_put" not in repr(item.object):
            unraisable(item)

    def undo() -> None:
        logger.removeFilter(drop)
        sys.unraisablehook = unraisable

    warnings.filterwarnings("ignore", "coroutine '_read_array_index_and_device_put' was never awaited")
    logger.addFilter(drop)
    sys.unraisablehook = unraisablehook
    return undo


def _listed(list_checkpoints: Callable[[], Any]) -> Any:
    """Calls what lists checkpoints, again while a trainer deletes one of them in between."""
    for _ in range(ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            return list_checkpoints()
        time.sleep(DELETION)
    return list_checkpoints()


def checkpoint_steps(workdir: epath.PathLike) -> list[int]:
    """Steps of the complete checkpoints below a workdir, in order, without opening them."""
    names = [path.name for path in (epath.Path(workdir) / "checkpoints").glob("*") if path.name.isdigit()]
    return sorted(int(name) for name in names)
