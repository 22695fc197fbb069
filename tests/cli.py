"""Runs a command of the project inside the test process: flags, exit status and output are the real ones."""

from __future__ import annotations

import dataclasses
import logging
import runpy
import sys
import threading
from collections.abc import Callable
from unittest import mock

import pytest
import tiny
from absl import app, flags
from absl import logging as absl_logging

import vdit.command.run
from vdit.parallel import runtime


@dataclasses.dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a mistake."""
        assert self.status == 2, (self.status, self.out, self.err)
        assert self.err.startswith("error: ") and self.err.count("\n") == 1, self.err
        assert not self.out, self.out
        return self.err[len("error: ") : -1]


def runner(capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """A function (module, flags ...) that runs `python -m module` on two devices."""

    def run(module: str, *arguments: str) -> Finished:
        app.define_help_flags()
        hidden = _take_flags()
        capfd.readouterr()
        verbosity, handlers = absl_logging.get_verbosity(), logging.getLogger().handlers[:]
        name, imported = module, sys.modules.pop(module, None)  # runpy warns of one that is there
        with (
            mock.patch.object(sys, "argv", [module, *arguments]),
            mock.patch.object(sys, "excepthook", sys.excepthook),
            mock.patch.object(sys, "unraisablehook", sys.unraisablehook),
            mock.patch.object(threading, "excepthook", threading.excepthook),
            mock.patch.object(absl_logging.get_absl_handler(), "filters", []),
            mock.patch.object(vdit.command.run, "end_soon", lambda status: None),  # this process goes on
            mock.patch.object(runtime, "initialise", lambda *_, **__: None),
            tiny.two_devices(),
        ):
            try:
                runpy.run_module(module, run_name="__main__")
                status = 0
            except SystemExit as end:
                status = end.code or 0
            finally:
                if imported:
                    sys.modules[name] = imported
                _take_flags()
                for module, flag in hidden:
                    flags.FLAGS[flag.name] = flag
                    flags.FLAGS.register_flag_by_module(module, flag)
                flags.FLAGS.unparse_flags()
                absl_logging.set_verbosity(verbosity)
                logging.getLogger().handlers[:] = handlers
        captured = capfd.readouterr()
        return Finished(status, captured.out, captured.err)

    return run


def _take_flags() -> list[tuple[str, flags.Flag]]:
    """Takes away the flags of our commands, imported by tests or run, as they clash with those of the next one.

    Those of libraries stay: a library that a command was the first to import defines its flags only once.
    """
    ours = ("vdit", "data_pipelines", "launch", "benchmarks", "absl.flags")  # the last are made for a config's fields
    modules = {name: flags.FLAGS.find_module_defining_flag(name) or "" for name in flags.FLAGS}
    found = [(module, flags.FLAGS[name]) for name, module in modules.items() if module.startswith(ours)]
    for _, flag in found:
        delattr(flags.FLAGS, flag.name)
    return found
