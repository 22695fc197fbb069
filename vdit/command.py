"""How every command starts and ends: flags, help, one line for an error, an exit status (docs/reliability.md)."""

from __future__ import annotations

import io
import sys
import threading
import typing
from collections.abc import Callable
from typing import Any

from vdit.errors import UserError
from vdit.exit_status import PREEMPTED, USER_ERROR
from vdit.io.names import expand_home
from vdit.stopping import Stopped, listen


def run_main(main: Callable[[list[str]], Any]) -> None:
    """Runs a command to its end and exits.

    A mistake in flags, a `UserError`, storage that fails and a request to stop each become one line on stderr and a
    status of `vdit.exit_status`. Imports of a command that take long belong into `main`, so that all of this holds for
    them, and help comes at once.
    """
    from absl import app, flags, logging

    from vdit import command_help

    def parse(argv: list[str]) -> list[str]:
        if command_help.asked_for(argv):
            try:
                print(command_help.text(argv))
            except UserError as error:
                _fail(str(error), USER_ERROR)
            sys.stdout.flush()
            sys.exit(0)
        try:
            return flags.FLAGS(expand_home(argv))
        except (LookupError, AttributeError) as error:  # of ml_collections
            _fail(f"a --config flag names a field that does not exist: {error}", USER_ERROR)
        except (flags.Error, UserError, TypeError) as error:
            _fail(str(error), USER_ERROR)

    def run(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax and JAX report every step of their work at INFO
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
        main(argv)
        sys.stdout.flush()

    with listen(str):
        report, threading.excepthook = threading.excepthook, _in_thread(threading.excepthook)
        try:
            app.run(run, flags_parser=parse)
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(PREEMPTED)
        except Exception as error:
            from vdit.io.storage import as_user_error

            known = error if isinstance(error, UserError) else as_user_error(error)
            if known is None:
                raise
            _fail(str(known), known.status)
        finally:
            threading.excepthook = report


def no_arguments(argv: list[str]) -> None:
    """Raises UserError if a command that takes flags only was given more, such as half of an unquoted prompt."""
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; write --name=value, with quotes around a value that has spaces")


def _in_thread(report: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Reports what ends a thread, but for what the main thread ends with, too."""

    def hook(args: Any) -> None:
        from vdit.io.storage import as_user_error

        if args.exc_value is None or not as_user_error(args.exc_value):
            report(args)

    return hook


def _fail(message: str, status: int) -> typing.NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(status)
