"""How every command starts and ends: flags, help, one line for an error, an exit status (docs/reliability.md)."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import typing
from collections.abc import Callable
from typing import Any

from vdit.command.exit_status import PREEMPTED, USER_ERROR
from vdit.command.stopping import GRACE, Stopped, listen
from vdit.errors import UserError
from vdit.io.names import read_arguments

_told: list[str] = []
"""The line that this command ends with; what threads and libraries print after it follows from the same failure."""


def run_main(main: Callable[[list[str]], Any]) -> None:
    """Runs a command to its end and exits.

    A mistake in flags, a `UserError`, storage that fails and a request to stop each become one line on stderr and a
    status of `vdit.command.exit_status`. Imports of a command that take long belong into `main`, so that all of this
    holds for them, and help comes at once.
    """
    from absl import app, flags, logging

    from vdit.command import help

    def parse(argv: list[str]) -> list[str]:
        if help.asked_for(argv):
            try:
                print(help.text(argv))
            except UserError as error:
                _fail(str(error), USER_ERROR)
            sys.stdout.flush()
            sys.exit(0)
        try:
            return flags.FLAGS(read_arguments(argv))
        except (LookupError, AttributeError) as error:  # of ml_collections
            _fail(f"a --config flag names a field that does not exist: {error}", USER_ERROR)
        except (flags.Error, UserError, TypeError) as error:
            _fail(str(error), USER_ERROR)

    def run(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax and JAX report every step of their work at INFO
        if reconfigure := getattr(sys.stdout, "reconfigure", None):  # a notebook's has none
            reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
        main(argv)
        sys.stdout.flush()

    _one_line()
    with listen(str):
        try:
            app.run(run, flags_parser=parse)
        except Stopped as stopped:
            _say(str(stopped))
            end_soon(PREEMPTED)
            sys.exit(PREEMPTED)
        except Exception as error:
            from vdit.io.storage.failures import as_user_error

            known = error if isinstance(error, UserError) else as_user_error(error, _places())
            if known is None:
                raise
            _fail(str(known), known.status)


def no_arguments(argv: list[str]) -> None:
    """Raises UserError if a command that takes flags only was given more, such as half of an unquoted prompt."""
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; write --name=value, with quotes around a value that has spaces")


def _one_line() -> None:
    """Keeps what the main thread ends with, storage that fails, from being told by threads and libraries as well.

    It holds to the end of the process, as libraries still have much to tell then.
    """
    from absl import logging

    def tells_more(error: BaseException | None) -> bool:
        from vdit.io.storage.failures import as_user_error

        # Orbax's writes that are given up speak of a closed event loop.
        if _told or (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            return False
        return error is None or as_user_error(error) is None

    _told.clear()
    thread, unraisable, uncaught = threading.excepthook, sys.unraisablehook, sys.excepthook
    threading.excepthook = lambda args: thread(args) if tells_more(args.exc_value) else None
    sys.unraisablehook = lambda args: unraisable(args) if tells_more(args.exc_value) else None
    sys.excepthook = lambda kind, error, trace: uncaught(kind, error, trace) if tells_more(error) else None
    logging.get_absl_handler().addFilter(lambda record: tells_more(record.exc_info[1] if record.exc_info else None))


def _places() -> str:
    """The flags that say where this command writes, for errors that do not."""
    from absl import flags

    found = [flags.FLAGS[name] for name in ("workdir", "out") if name in flags.FLAGS]
    return ", ".join(f"--{flag.name}={flag.value}" for flag in found if flag.value)


def end_soon(status: int) -> None:
    """Ends the process if its threads do not within `GRACE`: Orbax's wait minutes for a save that has failed."""

    def end() -> None:
        time.sleep(GRACE)
        os._exit(status)

    threading.Thread(target=end, daemon=True).start()


def _fail(message: str, status: int) -> typing.NoReturn:
    _told.append(message)
    _say(f"error: {' '.join(message.split())}")
    end_soon(status)
    sys.exit(status)


def _say(line: str) -> None:
    """Prints the line a command ends with; if nobody reads it, its status tells."""
    with contextlib.suppress(Stopped):
        print(line, file=sys.stderr, flush=True)
