"""How every command starts and ends: flags, one line for an error, an exit status."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable
from typing import Any

from vdit.errors import UserError


def run_main(main: Callable[[list[str]], Any]) -> None:
    """Runs an absl app; a `UserError` or a wrong flag becomes one line on stderr and its exit status."""
    from absl import app, flags, logging

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except (LookupError, AttributeError) as error:  # of ml_collections
            _fail(f"a --config flag names a field that does not exist: {error}")
        except (flags.Error, UserError, TypeError) as error:
            _fail(str(error))

    def wrapped(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax and JAX report every step of their work at INFO
        try:
            main(argv)
        except UserError as error:
            _fail(str(error), error.status)

    app.run(wrapped, flags_parser=parse)


def _fail(message: str, status: int = UserError.status) -> typing.NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(status)


def no_arguments(argv: list[str]) -> None:
    """Raises UserError if a command that takes flags only was given more, such as half of an unquoted prompt."""
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; write --name=value, with quotes around a value that has spaces")
