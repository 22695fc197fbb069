"""What runs the jobs of a build: processes on this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.encoders import Encoders
from data_pipelines.building.engines.isolation import Limits
from data_pipelines.building.engines.local_engine import LocalEngine
from data_pipelines.building.jobs.jobs import Job, Recipe
from vdit.errors import UserError
from vdit.models.text.token_encoder import TextEncoder


class EncodersInfo(Protocol):
    """What a build asks of an engine's encoders; see `encoders.Encoders`."""

    def text_identity(self) -> dict[str, Any]: ...

    def autoencoder_identity(self) -> dict[str, Any]: ...

    def usage(self) -> str: ...


class Engine(Protocol):
    """Does jobs, each once or again, anywhere. The data set does not depend on which engine does them.

    Attributes:
      encoders: of captions and pixels, wherever they are.
    """

    @property
    def encoders(self) -> EncodersInfo: ...

    def run(self, recipe: Recipe, jobs: Iterable[Job]) -> Iterator[Job]:
        """Does jobs and yields each that is done, in any order.

        Raises:
          UserError: if the source refuses its options, a file cannot be fetched, nothing can be written or, after
            all else is done, if an input hangs every time.
          RuntimeError: if a generated clip cannot be made: a fault of the program.
        """
        ...

    def close(self) -> None:
        """Ends what runs, at once."""
        ...


def make_engine(args: BuildArgs, text_encoder: TextEncoder | None = None) -> Engine:
    """The engine that the arguments ask for.

    Args:
      args: of the build.
      text_encoder: to use instead of loading `args.text_encoder`.

    Raises:
      UserError: if there is no such engine, or what it needs is not installed.
    """
    limits = Limits(args.time_limit, args.reject_timeouts)
    encoders = (text_encoder or args.text_encoder, args.autoencoder, args.captioner, args.detector)
    if args.engine == "local":
        return LocalEngine(args.workers, limits, Encoders(*encoders))
    try:
        from data_pipelines.building.engines.ray_engine import RayEngine
    except ImportError as error:
        raise UserError(f"--engine=ray needs Ray ({error}); install vdit with the extra `ray`") from error
    return RayEngine(args.ray_address, limits, encoders, args.embed)
