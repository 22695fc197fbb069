"""Checkpoints: the train state and the data position in one Orbax save."""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from vdit.config import TrainConfig, UserError
from vdit.safetensors_io import check_tensors
from vdit.training.step import TrainState
from vdit.training.workdir import is_remote

FORMAT = 1


@dataclasses.dataclass
class Position:
    """Where a run stands in its data, and what it has consumed; a few integers.

    Attributes:
      step: steps taken.
      next_row: next row of the plan's endless stream.
      patches, text, examples: real patches, caption tokens and examples seen.
      squares: pairs of tokens that attended (n^2 of a segment, see scaling.flops), for the FLOPs of attention.
      skipped: ranges of rows that were passed over.
    """

    step: int = 0
    next_row: int = 0
    patches: int = 0
    text: int = 0
    examples: int = 0
    squares: float = 0.0
    skipped: list[list[int]] = dataclasses.field(default_factory=list)


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
                    ocp.checkpoint_managers.CustomSteps(list(config.keep_steps)),
                ]
            ),
        )
        where = self.path if is_remote(self.path) else self.path.resolve()  # which would spoil gs://
        self._manager = ocp.CheckpointManager(where, options=options)

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, position: Position) -> None:
        """Starts to write a checkpoint in the background; does nothing if this step is saved already."""
        if position.step in self._manager.all_steps():
            return
        values = {"format": FORMAT, **dataclasses.asdict(position)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(_named(state)), position=ocp.args.JsonSave(values))
        self._manager.save(position.step, args=args)

    def restore(self, like: TrainState, step: int) -> tuple[TrainState, Position]:
        """Reads one checkpoint into the shapes and shardings of `like`.

        Raises:
          UserError: if it is missing, damaged, of another format, or lacks anything of the state.
        """
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _named(like))
        where = self.path / str(step)
        if not where.exists():
            steps = ", ".join(str(s) for s in self._manager.all_steps()) or "none"
            raise UserError(f"no checkpoint of step {step} in {self.path}; there are {steps}")
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore())
        restore_output = _only_one_error()
        try:
            read = self._manager.restore(step, args=args)
            values = dict(read["position"])
            if values.pop("format", None) != FORMAT:
                raise UserError(f"checkpoint {where} is not of format {FORMAT}; use the version of vdit that wrote it")
            if values.keys() != {field.name for field in dataclasses.fields(Position)}:
                raise ValueError(f"its position holds {', '.join(values)}")
        except Exception as error:  # Orbax raises bare Exceptions too
            if isinstance(error, UserError):
                raise
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise UserError(
                f"checkpoint {where} cannot be restored: it is damaged or of another model ({reason}); "
                "remove it to go on from the one before"
            ) from error
        restore_output()
        leaves = [read["state"][name] for name in _named(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), Position(**values)

    def restore_average(self, like: Any, step: int) -> Any:
        """The averaged parameters of one checkpoint in the shapes and shardings of `like`; reads nothing else.

        Raises:
          UserError: naming a tensor that is missing or of another shape; or if the checkpoint is damaged.
        """
        prefix, where = "ema/", self.path / str(step)
        abstract = {
            prefix + name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for name, x in _named(like).items()
        }
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                stored = reader.metadata(where / "state").item_metadata.tree
                shapes = {name: tuple(stored[name].shape) for name in stored if name.startswith(prefix)}
                check_tensors(where, shapes, {name: x.shape for name, x in abstract.items()})
                restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
                args = ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=True)
                read = reader.restore(where / "state", args=args)
        except UserError:
            raise
        except Exception as error:  # Orbax raises bare Exceptions too
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise UserError(f"checkpoint {where} cannot be read: it is damaged ({reason})") from error
        return jax.tree.unflatten(jax.tree.structure(like), [read[name] for name in abstract])

    def wait(self) -> None:
        """Waits until what was started is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _only_one_error() -> Callable[[], None]:
    """Silences what Orbax's parallel reads print about one another once one of them has failed.

    Returns:
      A function that undoes it; after a failure it stays, as they fail later and in threads.
    """
    logger = logging.getLogger("asyncio")
    report, unraisable = sys.excepthook, sys.unraisablehook

    def drop(record: logging.LogRecord) -> bool:
        return "never retrieved" not in record.getMessage()

    def excepthook(kind: Any, error: BaseException, trace: Any) -> None:
        if str(error) != "Event loop is closed":
            report(kind, error, trace)

    def unraisablehook(item: Any) -> None:
        if (
            "_read_array_index_and_device_put" not in repr(item.object)
            and str(item.exc_value) != "Event loop is closed"
        ):
            unraisable(item)

    def undo() -> None:
        logger.removeFilter(drop)
        sys.excepthook, sys.unraisablehook = report, unraisable

    warnings.filterwarnings("ignore", "coroutine '_read_array_index_and_device_put' was never awaited")
    logger.addFilter(drop)
    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook
    return undo


def checkpoint_steps(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints below a workdir, in order, without opening them."""
    names = [path.name for path in (epath.Path(workdir) / "checkpoints").glob("*") if path.name.isdigit()]
    return sorted(int(name) for name in names)
