"""Being asked to stop: Ctrl-C, SIGTERM (clouds, schedulers), SIGHUP (a terminal that closes), or a reader that is gone.

`listen` turns each into `Stopped`, raised in the main thread, for which `run_main` prints one line. Work that must
first come to a good place, such as a step and its checkpoint, is done within `noted`, where requests are noted instead.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from vdit.command.exit_status import PREEMPTED

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
GRACE = 10.0
"""Seconds in which a command that is asked to stop must end; the compiler, for one, does not hear of it sooner."""

_open: list[Request] = []
_outputs_of_before: list[Any] = []
"""Never freed: `print` borrows sys.stdout, and a thread within it would crash (issue 130163 of CPython)."""


class Stopped(BaseException):
    """This command was asked to stop. No Exception, so that nothing takes it for a failure of what it interrupts."""


class Request:
    """Tells whether this command has been asked to stop."""

    def __init__(self, on_ask: Callable[[], None] | None = None, insist: bool = True) -> None:
        self.asked, self._on_ask, self.insist = False, on_ask, insist

    def ask(self) -> None:
        self.asked = True
        if self._on_ask:
            self._on_ask()


@contextlib.contextmanager
def noted(on_ask: Callable[[], None] | None = None, insist: bool = True) -> Iterator[Request]:
    """Notes requests to stop instead of raising `Stopped`.

    Within another one it is that one. Where nobody listens yet (`listen`), as in a notebook, it listens itself.

    Args:
      on_ask: called at each request, in a signal handler.
      insist: raise it at a second Ctrl-C.
    """
    if _open:
        yield _open[-1]
        return
    request = Request(on_ask, insist)
    with contextlib.nullcontext() if _listening() else _handlers():
        _open.append(request)
        try:
            yield request
        finally:
            _open.remove(request)


@contextlib.contextmanager
def listen(line: Callable[[Stopped], str]) -> Iterator[None]:
    """Raises `Stopped` in the main thread for every request to stop.

    One that is not heard within `GRACE`, as the main thread is in a library, ends the process with status 75.

    Args:
      line: what is printed then.
    """
    with contextlib.ExitStack() as undo:
        if threading.current_thread() is threading.main_thread():
            undo.enter_context(_handlers())
            undo.enter_context(_last_resort(line))
            undo.enter_context(_outputs())
        yield


def say(line: str) -> None:
    """Prints the last line of a command that was asked to stop: on stderr if nobody reads stdout."""
    print(line, flush=True)
    if getattr(sys.stdout, "gone", False):
        print(line, file=sys.stderr, flush=True)


def _listening() -> bool:
    return threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _handle


def _handle(number: int, frame: FrameType | None) -> None:
    del frame
    again = bool(_open) and _open[-1].asked and _open[-1].insist and number == signal.SIGINT
    _ask(f"by {NAMES[signal.Signals(number)]}")
    if again:
        raise Stopped("stopped at once by a second Ctrl-C")


def _ask(reason: str) -> None:
    if not _open:
        raise Stopped(f"stopped {reason}")
    _open[-1].ask()


@contextlib.contextmanager
def _handlers() -> Iterator[None]:
    """Signals that are ignored stay so: `nohup` is no mistake."""
    before = {number: signal.getsignal(number) for number in NAMES}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        for number in taken:
            signal.signal(number, _handle)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextlib.contextmanager
def _last_resort(line: Callable[[Stopped], str]) -> Iterator[None]:
    """Ends the process if the main thread, busy in a library, does not come to the handler of a signal."""
    heard, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    over = threading.Event()

    def watch() -> None:
        while number := os.read(heard, 1):
            if number[0] in NAMES and not _open and not over.wait(GRACE):
                print(line(Stopped(f"stopped by {NAMES[signal.Signals(number[0])]}")), file=sys.stderr, flush=True)
                os._exit(PREEMPTED)

    thread = threading.Thread(target=watch, name="last resort", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(tell)  # ends the thread
        thread.join()
        os.close(heard)


@contextlib.contextmanager
def _outputs() -> Iterator[None]:
    """Outputs whose reader may go away, as with `| head -1`: then this command is asked to stop."""
    before = sys.stdout, sys.stderr
    ours = [
        _Output(stream) if isinstance(stream, io.TextIOWrapper) else stream for stream in before
    ]  # not a notebook's
    sys.stdout, sys.stderr = ours  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        _outputs_of_before.extend(ours)
        for stream in ours:
            with contextlib.suppress(Stopped):  # it has ended
                stream.flush()


class _Output:
    """A standard output; once its reader is gone, what is written to it is dropped.

    It only passes on to the stream of the process: threads may write at any time, also when that is put back.

    Attributes:
      gone: whether its reader is gone.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream, self.gone = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.EPIPE and not (error.errno == errno.EIO and self._is_terminal()):
                raise
            self._drop()

    def _is_terminal(self) -> bool:
        """Whether it is a terminal, also one that has been closed, which `isatty` denies."""
        return stat.S_ISCHR(os.fstat(self._stream.fileno()).st_mode)

    def _drop(self) -> None:
        self.gone = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if threading.current_thread() is threading.main_thread():
            _ask("as nobody reads what it prints")
        else:
            os.kill(os.getpid(), signal.SIGTERM)
