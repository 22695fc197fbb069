"""A sweep file becomes runs: each with its config, its id and the command that makes it."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.sweeps import settings as target_settings
from launch.sweeps.grid import Points
from vdit.config import SIBLING, Config
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.io.names import expand_home
from vdit.training.record.identity import run_id


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      id: names it wherever it is; see `vdit.training.record.identity.run_id`.
      overrides: fields in which it differs from the experiment, as flags of `vdit.train` take them.
      config: all of it.
      title: for people; empty = the fields it varies.
    """

    id: str
    overrides: tuple[str, ...]
    config: Config
    title: str = ""

    @property
    def trunk(self) -> str:
        """Id of the run of the same sweep that this one branches off; empty if there is none."""
        where = self.config.train.branch_from
        return where.removeprefix(SIBLING) if where.startswith(SIBLING) else ""

    @property
    def varies(self) -> list[str]:
        """The fields that it sets, as a.b=value."""
        return [flag.removeprefix("--config.") for flag in self.overrides]

    @property
    def label(self) -> str:
        """What it is or varies, for people."""
        return self.title or " ".join(self.varies) or "as in the config file"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep: its name, the experiment that it varies, its runs and the settings of each target."""

    name: str
    config: str
    runs: tuple[Run, ...]
    settings: Mapping[str, target_settings.Settings]

    def arguments(self, run: Run, workdir: str, data: str = "") -> list[str]:
        """Arguments of `python -m vdit.train` for a run; `data` is where its data set is staged."""
        staged = [f"--config.data.path={data}"] if data else []
        return [f"--config={self.config}", f"--workdir={workdir}", *run.overrides, *staged]


def name_of(run_id: str) -> str:
    """Name of what belongs to a run elsewhere: a queued resource, a JobSet, a job."""
    return f"vdit-{run_id}"


def load(path: str) -> Any:
    """What get_config() of a Python file returns; `path:argument` passes it an argument, as `--config` does.

    Raises:
      UserError: for a file that is missing or fails.
    """
    file, colon, argument = expand_home(path).partition(":")
    if not Path(file).is_file():
        raise UserError(f"{file} is not a Python file with get_config()")
    spec = importlib.util.spec_from_file_location("vdit_config", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(argument) if colon else module.get_config()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error


def build_sweep(values: Any, where: str) -> Sweep:
    """Checks what a sweep file says and expands it.

    Args:
      values: the ConfigDict that its get_config() returned, with the fields name, config, runs and one for each target.
      where: names the file in errors.

    Raises:
      UserError: for an unknown field, a name that cannot be a folder's, a run that is not valid or occurs twice.
    """
    fields = dict(values.items())
    known = {"name", "config", "runs", *target_settings.TARGETS}
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]}; known: {', '.join(sorted(known))}")
    for name in ("name", "config", "runs"):
        if name not in fields:
            raise UserError(f"{where}: {name} is missing")
    name, points = str(fields["name"]), fields["runs"]
    if not name or name[0] in "-." or re.search(r"[/\\*?#\[\]{}\x00-\x1f]", name):
        raise UserError(f"{where}: name {name!r} must be fit for a folder: no / \\ * ? # [ ] {{ }}, no - or . in front")
    if not isinstance(points, Points) or not len(points):
        raise UserError(f"{where}: runs must be made with over, product, zipped, chain or point of launch.sweeps.grid")
    settings = {
        target: build(dict(fields.get(target, {})), cls, f"{target}.")
        for target, cls in target_settings.TARGETS.items()
    }
    config = expand_home(str(fields["config"]))
    return Sweep(name, config, expand(config, points), settings)


_every_run: list[str] = []


@contextlib.contextmanager
def in_every_run(flags: Sequence[str]) -> Iterator[None]:
    """Within it, sweeps are expanded with these flags, such as --config.data.rows_per_step=4, in all of their runs."""
    _every_run.extend(flags)
    try:
        yield
    finally:
        _every_run.clear()


def _shared_fields(base: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that flags set in every run, with values as `--config` reads them."""
    fields = {}
    for flag in _every_run:
        field, _, text = flag.removeprefix("--config.").partition("=")
        known = _known(base, field)
        fields[field] = text
        if not isinstance(known, str):
            with contextlib.suppress(ValueError, SyntaxError):
                fields[field] = ast.literal_eval(text.capitalize() if isinstance(known, bool) else text)
    return fields


def expand(experiment: str, points: Points) -> tuple[Run, ...]:
    """The runs of a sweep.

    Raises:
      UserError: naming the run that is not valid, or two that are the same.
    """
    base = load(experiment).to_dict()
    shared = _shared_fields(base)
    runs: dict[str, Run] = {}
    for values in points:
        if twice := sorted(shared.keys() & values.keys()):
            raise UserError(f"--config.{twice[0]} sets what the sweep varies itself; leave it out, or change the sweep")
        run = run_of(base, {**shared, **values})
        if run.id in runs:
            other = runs[run.id]
            same = " (data sets are told apart by the names of their folders)" if other.config != run.config else ""
            raise UserError(f"two runs of the sweep are the same{same}: {other.label}; {run.label}")
        runs[run.id] = run
    return tuple(runs.values())


def run_of(base: Mapping[str, Any], fields: Mapping[str, Any]) -> Run:
    """The run of a nested config in which some dotted fields are set.

    Raises:
      UserError: naming the fields, if they make no valid config.
    """
    flags = tuple(f"--config.{field}={_as_flag(base, field, value)}" for field, value in fields.items())
    try:
        config = build(merged(base, fields), Config)
    except UserError as error:
        raise UserError(f"run {' '.join(flags)}: {error}") from error
    return Run(run_id(config), flags, config)


def merged(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary with some dotted fields set; shares with `base` what it does not change."""
    out = dict(base)
    for field, value in values.items():
        *sections, name = field.split(".")
        inner = out
        for section in sections:
            known = inner.get(section) or {}
            if not isinstance(known, Mapping):
                raise UserError(f"config field {field} does not exist")
            inner[section] = dict(known)
            inner = inner[section]
        inner[name] = value
    return out


def _as_flag(base: Mapping[str, Any], field: str, value: Any) -> str:
    """The value as `--config.field=` takes it: text as it is where the experiment has text, else a Python literal."""
    known = _known(base, field)
    if isinstance(known, int) and not isinstance(known, bool) and isinstance(value, float):
        raise UserError(
            f"{field}={known} of the experiment is a whole number, so it cannot be {value}; write {known}.0"
        )
    if isinstance(value, str) and (isinstance(known, str) or _plain_text(value)):
        return value
    return repr(tuple(value) if isinstance(value, list) else value)


def _known(base: Mapping[str, Any], field: str) -> Any:
    """The value of a dotted field, None if the experiment leaves it out."""
    known: Any = base
    for part in field.split("."):
        known = known.get(part) if isinstance(known, Mapping) else None
    return known


def _plain_text(value: str) -> bool:
    """Whether a value for a field that the experiment leaves out is read as the text that it is."""
    return bool(re.fullmatch(r"[A-Za-z/][\w/.-]*", value)) and value not in ("True", "False", "None")
