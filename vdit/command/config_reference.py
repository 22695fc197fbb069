"""All fields of a config, their defaults and meanings: `python -m vdit.command.config_reference`.

Prints docs/config.md. `--config=F --help` of a command prints the same fields with the values of F.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from vdit.command.run import no_arguments, run_main
from vdit.config import Config, StageConfig
from vdit.config_dict import section_of

HEAD = """# Fields of a config

<!-- printed by `python -m vdit.command.config_reference > docs/config.md`; a test compares -->

A config is a Python file with `get_config()`, which returns a `ConfigDict` of these fields; those left out take their
default. Flags set single fields: `--config.train.steps=500`. `--config=F --help` of a command lists them with the
values that F gives. Lists are written `--config.data.weights=1,0.25` or `"(1, 0.25)"`.
"""


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a config.

    Attributes:
      name: dotted, such as train.steps.
      kind: its type, in words.
      default: as Python writes it.
      meaning: from the docstring of its dataclass.
    """

    name: str
    kind: str
    default: str
    meaning: str


def fields(cls: type = Config, prefix: str = "", values: Mapping[str, Any] | None = None) -> Iterator[Field]:
    """The fields of a dataclass and those of its sections, in order.

    Args:
      cls: the dataclass; every field's meaning stands in its docstring.
      prefix: of the names.
      values: a nested mapping whose values are shown instead of the defaults.
    """
    values = values or {}
    kinds, meanings = typing.get_type_hints(cls), _meanings(cls)
    sections = {field.name: section for field in dataclasses.fields(cls) if (section := section_of(kinds[field.name]))}
    for field in dataclasses.fields(cls):
        if field.name not in sections:
            shown = values.get(field.name, field.default)
            shown = tuple(shown) if isinstance(shown, list) else shown
            yield Field(f"{prefix}{field.name}", _kind(kinds[field.name]), repr(shown), meanings[field.name])
    for name, section in sections.items():
        default = next(field.default for field in dataclasses.fields(cls) if field.name == name)
        given = values.get(name) or (dataclasses.asdict(typing.cast(Any, default)) if default else {})
        yield from fields(section, f"{prefix}{name}.", given)


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        (item, _) = typing.get_args(kind)
        return "list of stages" if dataclasses.is_dataclass(item) else f"list of {_kind(item)}"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}[kind]


def _meanings(cls: type) -> dict[str, str]:
    """What the docstring of a dataclass says of its fields, under "Attributes:"."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        if head := re.fullmatch(r"  (\w+(?:, \w+)*): (.*)", line):
            names = head[1].split(", ")
            found |= dict.fromkeys(names, head[2])
        elif line.startswith("    "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def markdown() -> str:
    """docs/config.md."""
    lines, section = [HEAD.rstrip()], None
    for field in fields():
        own, _, name = field.name.rpartition(".")
        if own != section:
            section = own
            lines += ["", f"## {own or 'The run'}", *_TABLE]
        lines.append(_row(field, name))
    lines += ["", "## One of data.stages", *_TABLE, *(_row(field, field.name) for field in fields(StageConfig))]
    return "\n".join(lines)


_TABLE = ("", "| field | type | default | meaning |", "| --- | --- | --- | --- |")


def _row(field: Field, name: str) -> str:
    cells = (f"`{name}`", field.kind, f"`{field.default}`", field.meaning.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |"


def main(argv: list[str]) -> None:
    no_arguments(argv)
    print(markdown())


if __name__ == "__main__":
    run_main(main)
