"""The installed gcloud CLI: queued resources and storage. It brings its own credentials, proxies and retries."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.sweeps.settings import QueuedResources
from vdit.errors import UserError

SECONDS = 180.0
"""A call that takes longer has failed; it is tried again later."""


class Transient(Exception):
    """Something that may go away: the service, the network, a call that takes too long."""


class QuotaExceeded(Exception):
    """The project may not have more of this now."""


class NotFound(Exception):
    """There is no such thing."""


def call(arguments: Sequence[str], seconds: float = SECONDS) -> str:
    """Runs gcloud and gives what it printed.

    Raises:
      UserError: if it is not installed, has no valid credentials, may not do this, or does not understand.
      Transient, QuotaExceeded, NotFound: as they say.
    """
    try:
        done = subprocess.run(
            ["gcloud", *arguments, "--quiet"],
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise UserError("gcloud is not installed or not on PATH; docs/launch.md says how to set it up") from error
    except subprocess.TimeoutExpired as error:
        raise Transient(f"gcloud {arguments[0]} took longer than {seconds:.0f} s") from error
    if done.returncode:
        raise _error(done.stderr)
    return done.stdout


def _error(text: str) -> Exception:
    """What an error message of gcloud means."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["gcloud failed and printed nothing"]
    line = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    line = re.sub(r"^ERROR: (\([\w.-]+\) )?", "", line)
    line = re.sub(r" This command is (un)?authenticated .*", "", line)
    if re.search(r"PERMISSION_DENIED|does not have permission", text):
        return UserError(f"gcloud may not do this: {line}")
    if re.search(r"active account|UNAUTHENTICATED|[Rr]eauth|invalid_grant|auth login", text):
        return UserError(f"gcloud has no valid credentials; run gcloud auth login ({line})")
    if re.search(r"RESOURCE_EXHAUSTED|quota|\b429\b", text, re.IGNORECASE):
        return QuotaExceeded(line)
    if re.search(r"NOT_FOUND|not found|\b404\b|matched no objects", text, re.IGNORECASE):
        return NotFound(line)
    if re.search(r"\b50\d\b|UNAVAILABLE|INTERNAL|DEADLINE|timed out|Connection|reset by peer|unreachable", text, re.I):
        return Transient(line)
    return UserError(f"gcloud: {line}")


class Tpus:
    """Queued resources of a zone."""

    def __init__(self, settings: QueuedResources):
        self._where = [f"--project={settings.project}", f"--zone={settings.zone}"]

    def create(self, arguments: Sequence[str]) -> None:
        """Asks for a resource with `create_arguments`; that it exists already is fine.

        Raises:
          UserError, Transient, QuotaExceeded: see `call`.
        """
        try:
            call(arguments)
        except UserError as error:
            if "ALREADY_EXISTS" not in str(error):
                raise

    def states(self) -> dict[str, str]:
        """State of every queued resource of the zone by its id, such as WAITING_FOR_RESOURCES, ACTIVE, SUSPENDED."""
        text = call(["compute", "tpus", "queued-resources", "list", *self._where, "--format=json"])
        found: list[dict[str, Any]] = json.loads(text or "[]")
        return {item["name"].rsplit("/", 1)[-1]: item.get("state", {}).get("state", "UNKNOWN") for item in found}

    def delete(self, name: str) -> None:
        """Deletes a resource with its nodes, in the background; that it is gone already is fine."""
        with contextlib.suppress(NotFound):
            call(["compute", "tpus", "queued-resources", "delete", name, *self._where, "--force", "--async"])


def download(source: str, to: Path, exclude: str = "") -> None:
    """Brings a folder up to date with one in a bucket; `exclude` is a regular expression of paths to leave out."""
    to.mkdir(parents=True, exist_ok=True)
    leave_out = [f"--exclude={exclude}"] if exclude else []
    with contextlib.suppress(NotFound):  # nothing is written yet
        call(["storage", "rsync", source, str(to), "--recursive", *leave_out])


def upload(source: Path, to: str) -> None:
    """Copies a file into a bucket."""
    call(["storage", "cp", str(source), to])
