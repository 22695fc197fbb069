"""A program of the user's that is asked about clips: it is told of frames, and answers with JSON.

It is started once for each encoder (once on this machine, once for each accelerator of a Ray cluster), reads a line of
JSON for each clip from its standard input

    {"id": "1234", "item": "a.mp4 [0, 97)", "fps": 24.0, "frames": ["/tmp/x/0.png", ...], "captions": {"caption": ""}}

and answers on its standard output with a line of JSON, of the same id, before it reads the next. Answers are kept in
the cache by program, clip and pictures: a build that was stopped asks for none of them again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import select
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
from PIL import Image

from vdit.errors import UserError
from vdit.io.files import cache_dir, write_json

PREFIX = "command:"

FRAMES = 8
"""Most frames of a clip that a program is told of, evenly spaced."""

ANSWER = 600.0
"""Seconds that an answer may take: the first one waits for the program to load its weights."""

LONGEST = 1 << 20
"""Bytes of an answer."""

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class ClipRequest:
    """What a program is told of a clip.

    Attributes:
      id, item, fps: of the clip.
      frames_TYXC: some of its frames, uint8 RGB.
      captions: those that its source has.
    """

    id: int
    item: str
    fps: float
    frames_TYXC: np.ndarray
    captions: dict[str, str]


class Program(Generic[Answer]):
    """A program that is asked about clips, one after another.

    Args:
      name: flag and value that the user named it with, for messages.
      command: its command line.
      read: what an answer, parsed JSON of the clip's id, says; ValueError if it says nothing that is meant.
      what: its answers in a word; also the folder of the cache that they are kept in.
      state: what its answers depend on beside the command, such as a hash of weights.
      answer: seconds that an answer may take.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        read: Callable[[dict[str, Any]], Answer],
        what: str,
        state: str = "",
        answer: float = ANSWER,
    ) -> None:
        self._name, self._command, self._read, self._what = name, command, read, what
        self._state, self._answer = state, answer
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __call__(self, request: ClipRequest) -> Answer:
        """What it says of a clip; may be called from several threads.

        Raises:
          UserError: if the program cannot be started, ends, hangs, or answers with something else.
        """
        with self._lock:
            path = self._kept(request)
            try:
                return self._parse(path.read_bytes(), request)[0]
            except (OSError, ValueError):
                found, said = self._ask(request)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, said)
            return found

    def close(self) -> None:
        """Ends the program."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def error(self, what: str) -> UserError:
        """A line that begins with the program, and says how to go on."""
        return UserError(f"{self._name[:120]} {what}; what is done is kept: fix it and start again")

    def _kept(self, request: ClipRequest) -> Path:
        program = hashlib.sha256("\0".join([*self._command, *filter(None, [self._state])]).encode()).hexdigest()[:16]
        clip = hashlib.sha256(f"{request.id} {request.frames_TYXC.shape}".encode())
        clip.update(np.ascontiguousarray(request.frames_TYXC).data)
        return cache_dir() / self._what / program / f"{clip.hexdigest()[:32]}.json"

    def _ask(self, request: ClipRequest) -> tuple[Answer, dict[str, Any]]:
        process = self._started()
        with tempfile.TemporaryDirectory(prefix="vdit-frames-") as folder:
            paths = [f"{folder}/{number}.png" for number in range(len(request.frames_TYXC))]
            for path, frame in zip(paths, request.frames_TYXC, strict=True):
                Image.fromarray(frame).save(path, compress_level=1)
            question = {"id": str(request.id), "item": request.item, "fps": request.fps, "frames": paths}
            line = json.dumps({**question, "captions": request.captions}).encode() + b"\n"
            try:
                assert process.stdin is not None
                process.stdin.write(line)
                process.stdin.flush()
                answer = self._line(process, request)
            except BrokenPipeError:
                raise self._ended(process, request) from None
        try:
            return self._parse(answer, request)
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:100]
            raise self.error(
                f"answers {answer[:60]!a} for {request.item}, which is no line of {self._what} ({reason})"
            ) from error

    def _parse(self, line: bytes, request: ClipRequest) -> tuple[Answer, dict[str, Any]]:
        """What a line says, and the line as it is kept; ValueError if it is something else."""
        said = json.loads(line)
        if not isinstance(said, dict) or said.get("id") != str(request.id):
            raise ValueError(f'"id" is not {str(request.id)!r}')
        return self._read(said), said

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the program runs)
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=0
                )
            except OSError as error:
                raise self.error(f"cannot be started ({error.strerror})") from error
        return self._process

    def _line(self, process: subprocess.Popen[bytes], request: ClipRequest) -> bytes:
        """The next line that the program prints."""
        assert process.stdout is not None
        line, end = bytearray(), time.monotonic() + self._answer
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                self.close()
                raise self.error(f"gives no answer for {request.item} within {self._answer:g} s")
            if not (data := os.read(process.stdout.fileno(), LONGEST)):
                raise self._ended(process, request)
            line += data
            if len(line) > LONGEST:
                self.close()
                raise self.error(f"answers with more than {LONGEST} bytes for {request.item}")
        return bytes(line)

    def _ended(self, process: subprocess.Popen[bytes], request: ClipRequest) -> UserError:
        status = process.wait()
        self._process = None
        said = b""
        if self._said is not None:
            with contextlib.suppress(OSError):
                self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 2000))
                said = self._said.read()
        last = (said.decode(errors="replace").strip().splitlines() or [""])[-1][:200]
        return self.error(f"ended with status {status} at {request.item}{': ' * bool(last)}{last}")


def parse_command(flag: str, name: str, example: str) -> list[str]:
    """The command line of a program that is named as command:...

    Args:
      flag: what it is named with.
      name: what the user wrote.
      example: of what should stand there.

    Raises:
      UserError: if it is none.
    """
    try:
        command = shlex.split(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else []
    except ValueError as error:
        raise UserError(f"--{flag}={name!r} is not a command line ({error})") from error
    if not command:
        raise UserError(f"--{flag}={name!r} should be {example}")
    return command
