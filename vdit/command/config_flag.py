"""A flag that names an experiment: a Python file with get_config(), whose fields further flags set."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from vdit.config import Config
from vdit.config_dict import section_of
from vdit.errors import UserError

_TYPES = typing.get_type_hints(Config)
SECTIONS = tuple(field.name for field in dataclasses.fields(Config) if section_of(_TYPES[field.name]))
"""Sections of a `Config`."""


def define(
    name: str,
    description: str,
    example: str,
    sections: Iterable[str] = SECTIONS,
    values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder:
    """Defines --NAME=FILE and --NAME.a.b=value.

    Args:
      name: of the flag.
      description: its help text.
      example: such a file, for errors.
      sections: those that a file may leave out and flags may still set fields in.
      values: where it is defined.
    """
    holder = config_flags.DEFINE_config_file(
        name, None, description, flag_values=values, lock_config=False, accept_new_attributes=True
    )
    values[name].parser = _ConfigFile(values[name].parser, f"--{name}", example, tuple(sections))
    return holder


def is_config(flag: flags.Flag) -> bool:
    """Whether a flag names an experiment."""
    return isinstance(flag.parser, _ConfigFile)


class _ConfigFile(flags.ArgumentParser):
    """Loads an experiment and adds the sections it leaves out, so that flags can set fields in them."""

    def __init__(self, load: flags.ArgumentParser, flag: str, example: str, sections: tuple[str, ...]):
        self._load, self._flag, self._example, self._sections = load, flag, example, sections

    def parse(self, argument: str) -> ConfigDict:
        path = argument.split(":", 1)[0]
        if not Path(path).is_file():
            raise UserError(f"{self._flag}={path} is not a file; give one such as {self._example}")
        try:
            config = self._load.parse(argument)
        except UserError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[-1:] or [""]
            raise UserError(f"{self._flag}={path} cannot be loaded: {type(error).__name__}: {reason[0]}") from error
        if not isinstance(config, ConfigDict):
            raise UserError(f"{self._flag}={path}: get_config() returns {type(config).__name__}, not a ConfigDict")
        for section in self._sections:
            if config.get(section) is None:
                config[section] = ConfigDict()
        return config
