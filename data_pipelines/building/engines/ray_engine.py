"""Runs jobs on a Ray cluster: Ray places them, and does them again elsewhere when a machine dies."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import ray

from data_pipelines.building.curation.program import ClipRequest
from data_pipelines.building.encoders import PIXELS, Encoders
from data_pipelines.building.engines.isolation import Limits, Worker, stuck_error
from data_pipelines.building.jobs.fetching import check_shared, fetched
from data_pipelines.building.jobs.jobs import Job, Recipe
from vdit.errors import UserError
from vdit.models.text.token_encoder import TextEncoder

AHEAD = 4
"""Jobs per processor that are handed to Ray before they can begin: it asks for more machines by them."""

OBJECT_STORE = 256 << 20
"""Bytes of shared memory of a Ray that is started here: jobs write files and pass little around."""

ANSWER = 10.0
"""Seconds in which a cluster must accept a connection, and answer."""

_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS
"""With what a client begins (RFC 9113, 3.4): a server answers with a frame of settings, too, whose fourth byte is 4."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
}
"""Environment of a Ray that is started here. Its log monitor looks for new files ten times a second unless there are
many, and finds lines that nobody reads, as `log_to_driver` is off: more processor time than all else that Ray does."""

_ACCELERATORS: dict[str, dict[str, Any]] = {"GPU": {"num_gpus": 1}, "TPU": {"resources": {"TPU": 1}}}


class RayEngine:
    """See `engines.Engine`. Each encoder is an actor that holds one accelerator, if the cluster has any.

    Args:
      address: of the cluster; empty = that of $RAY_ADDRESS, else a Ray is started on this machine.
      limits: of an input.
      encoders: arguments of `Encoders`.
      embed: whether clips are embedded.
    """

    def __init__(
        self, address: str, limits: Limits, encoders: tuple[str | TextEncoder, str, str, str], embed: bool = False
    ) -> None:
        self._address, self._limits, self._joined = address, limits, False
        self.encoders = _ActorEncoders(encoders, embed, self._connect)

    def run(self, recipe: Recipe, jobs: Iterable[Job]) -> Iterator[Job]:
        """See `engines.Engine.run`."""
        self._connect()
        actors = self.encoders.actors()
        waiting, running, stuck = iter(jobs), dict[Any, Job](), list[str]()
        while True:
            room = AHEAD * int(ray.cluster_resources().get("CPU", 1)) - len(running)
            for _, job in zip(range(room), waiting, strict=False):
                running[_do.remote(recipe, job, self._limits, actors)] = job
            if not running:
                break
            done, _ = ray.wait(list(running))
            for reference in done:
                item = _get(reference)
                job = running.pop(reference)
                if item:
                    stuck.append(item)
                else:
                    yield job
        if stuck:
            raise stuck_error(sorted(stuck), self._limits)

    def close(self) -> None:
        """See `engines.Engine`. A cluster is left, and a Ray that was joined before; one that was started here ends."""
        if self._joined:
            ray.shutdown()

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        address = self._address or os.environ.get("RAY_ADDRESS") or "local"
        here: dict[str, Any] = {}
        if address == "local":
            os.environ.update(_QUIET | os.environ)
            here = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            _check_answers(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **here)
            self._joined = True
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"--ray_address={address}: no cluster that this Ray {ray.__version__} can join answers there ({reason})"
            ) from error


def _check_answers(address: str) -> None:
    """Raises OSError unless something answers there that speaks gRPC: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        with socket.create_connection((host, int(port)), ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(_HTTP2)
                if connection.recv(len(_SETTINGS))[3:4] != _SETTINGS[3:4]:
                    raise ConnectionError("what answers is no Ray")


@ray.remote(num_cpus=1, max_retries=-1)
def _do(recipe: Recipe, job: Job, limits: Limits, actors: list[Any]) -> str | UserError:
    """Does a job; "", the item that hangs every time, or the user's mistake."""
    try:
        check_shared(recipe, job)
        with fetched(recipe, job) as ready:
            return _worker(limits, actors).do(recipe, ready)
    except UserError as error:
        return error


_workers: list[Worker] = []


def _worker(limits: Limits, actors: list[Any]) -> Worker:
    """This process's worker, which is kept from job to job: Ray gives a process to one build only."""
    if not _workers:
        _workers.append(Worker(limits, _Remote(actors[os.getpid() % len(actors)]) if actors else Encoders("none")))
    return _workers[0]


class _Remote:
    """`Services` of an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def encode(self, captions: list[str], videos: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        features, latents = _get(self._actor.call.remote("encode", captions, videos))
        return features, latents

    def embed(self, clips: list[np.ndarray]) -> np.ndarray:
        embedding_NE: np.ndarray = _get(self._actor.call.remote("embed", clips))
        return embedding_NE

    def caption(self, request: ClipRequest) -> dict[str, str]:
        captions: dict[str, str] = _get(self._actor.call.remote("caption", request))
        return captions

    def detect(self, request: ClipRequest) -> dict[str, float]:
        box: dict[str, float] = _get(self._actor.call.remote("detect", request))
        return box


class _EncoderActor:
    """Encoders in a process of its own."""

    def __init__(self, *arguments: Any) -> None:
        self._encoders = Encoders(*arguments)

    def call(self, name: str, *arguments: Any) -> Any:
        """What a method of `Encoders` gives."""
        return getattr(self._encoders, name)(*arguments)


class _ActorEncoders:
    """The encoders of a cluster, started when they are first needed."""

    def __init__(
        self, arguments: tuple[str | TextEncoder, str, str, str], embed: bool, connect: Callable[[], None]
    ) -> None:
        self._arguments, self._embed, self._connect = arguments, embed, connect
        self._actors: list[Any] = []

    def actors(self) -> list[Any]:
        """One actor an accelerator, or one; none if there is nothing to compute."""
        if self._arguments == ("none", PIXELS, "", "") and not self._embed:
            return []
        self._connect()
        if not self._actors:
            resources = ray.cluster_resources()
            kind = next((kind for kind in _ACCELERATORS if resources.get(kind)), "")
            options = _ACCELERATORS.get(kind, {"num_cpus": 0})
            count = int(resources.get(kind, 1))
            actor = ray.remote(max_restarts=-1, max_task_retries=-1, **options)(_EncoderActor)
            self._actors = [actor.remote(*self._arguments) for _ in range(count)]
        return self._actors

    def text_identity(self) -> dict[str, Any]:
        return self._same("text_identity")

    def autoencoder_identity(self) -> dict[str, Any]:
        return self._same("autoencoder_identity")

    def usage(self) -> str:
        return "; ".join(filter(None, (_get(actor.call.remote("usage")) for actor in self._actors)))

    def _same(self, name: str) -> Any:
        """What all actors say."""
        if not self.actors():
            return getattr(Encoders(*self._arguments), name)()
        answers = [_get(answer) for answer in [actor.call.remote(name) for actor in self._actors]]
        if other := next((answer for answer in answers if answer != answers[0]), None):
            raise UserError(f"the machines of the cluster load different encoders, {answers[0]} and {other}")
        return answers[0]


def _get(reference: Any) -> Any:
    """The value of a call, or the user's mistake as UserError."""
    try:
        value = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the Ray cluster failed ({reason}); start again to resume from here") from error
    if isinstance(value, UserError):
        raise value
    return value
