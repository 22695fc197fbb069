"""What `--help` prints of a command: what it is for, its flags, and with --config=F the fields of that config."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from absl import flags

from vdit.errors import UserError

WORDS = ("-h", "--h", "-help", "--help", "-helpshort", "--helpshort", "-helpfull", "--helpfull", "-?", "--?")
OURS = ("vdit", "data_pipelines", "launch", "benchmarks")
WIDTH = 100


def asked_for(argv: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    words = argv[1 : list(argv).index("--")] if "--" in argv else argv[1:]
    return any(word in WORDS for word in words)


def text(argv: Sequence[str]) -> str:
    """What the command is for, its flags, and the fields of the config that it is given.

    Raises:
      UserError: if another flag is wrong.
    """
    about = sys.modules["__main__"].__doc__ or ""
    parts = [about.strip(), "\n".join(_flag(flag) for flag in _flags())]
    parts[1] = f"Flags:\n{parts[1]}" if parts[1] else "It takes no flags."
    if "config" in flags.FLAGS and _takes_fields():
        parts.append(_fields(argv))
    return "\n\n".join(parts)


def _flags() -> list[flags.Flag]:
    """The flags of our own, wherever they are defined, in order; not those of libraries."""
    found: dict[str, flags.Flag] = {}
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module == sys.argv[0] or module.split(".")[0] in OURS:
            found |= {flag.name: flag for flag in defined}
    return list(found.values())


def _flag(flag: flags.Flag) -> str:
    if flag.boolean:
        head = f"  --[no]{flag.name}"
    else:
        head = f"  --{flag.name}={'|'.join(getattr(flag.parser, 'enum_values', ())) or flag.name.upper()}"
    given = flag.default not in (None, "", [], False)
    default = f" (default: {_shown(flag.default)})" if given else ""
    return f"{head}\n{_wrapped(flag.help, '      ', default)}"


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _wrapped(words: str, indent: str, more: str = "") -> str:
    line = " ".join(f"{words}{more}".split())
    return textwrap.fill(line, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _takes_fields() -> bool:
    from vdit.command import config_flag

    return config_flag.is_config(flags.FLAGS["config"])


def _fields(argv: Sequence[str]) -> str:
    """The fields of the config that the command line names, or how to see them."""
    from vdit.command.config_reference import fields

    try:
        flags.FLAGS([word for word in argv if word not in WORDS])
    except (flags.Error, LookupError, AttributeError, TypeError) as error:
        raise UserError(str(error)) from error
    config = flags.FLAGS["config"].value
    if config is None:
        return "--config=F --help lists the fields of that config, which --config.NAME=VALUE sets."
    lines = ["Fields of the config, with the values that it gives them:"]
    for field in fields(values=config.to_dict()):
        lines.append(f"  --config.{field.name}={field.default}\n{_wrapped(field.meaning, '      ')}")
    return "\n".join(lines)
