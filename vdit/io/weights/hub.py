"""Published weights by folder or hub id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vdit.errors import UserError
from vdit.io.packages import sha256_of

HUB_ID = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")


def find_weights(where: str, patterns: Sequence[str]) -> Path:
    """The local folder of published weights: the user's, or a hub repository's, fetched into the hub client's cache.

    What lies at a hub changes, so its revision is part of the name, which data sets and runs record.

    Args:
      where: a folder, or a hub id with a revision (a commit, tag or branch), such as "google/umt5-xxl@main".
      patterns: globs of the files that are needed.

    Raises:
      UserError: if it is neither, names no revision, or cannot be fetched.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        return path
    named = HUB_ID.fullmatch(where)
    if path.exists() or named is None:
        raise UserError(f"{where} is not a folder of weights, nor a hub id of the form OWNER/NAME@REVISION")
    name, revision = named.groups()
    import huggingface_hub as hub  # slow to import, seldom needed

    try:
        if revision:
            return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
        newest = hub.HfApi().repo_info(name).sha
    except (OSError, ValueError) as error:  # of the network and of the hub; both derive from OSError
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{where} is not a folder here and cannot be fetched from the hub ({reason})") from error
    raise UserError(
        f"{where} names no revision, and what lies at the hub may change; write {name}@{newest}, its newest"
    )


def weights_hash(files: Iterable[Path]) -> str:
    """sha256 (hex) over the sha256 of each file, in order of their names: the identity of a set of weights."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()
