"""Published weights by folder or hub id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vdit.errors import UserError
from vdit.io.packages import sha256_of


def find_weights(where: str, patterns: Sequence[str]) -> Path:
    """The local folder of published weights: the user's, or a hub repository's, fetched into the hub client's cache.

    Args:
      where: a folder, or a hub id such as "google/umt5-xxl".
      patterns: globs of the files that are needed.

    Raises:
      UserError: if it is neither, or cannot be fetched.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        return path
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", where):
        raise UserError(f"{where} is not a folder of weights, nor a hub id of the form OWNER/NAME")
    from huggingface_hub import snapshot_download  # slow to import, seldom needed

    try:
        return Path(snapshot_download(where, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # of the network and of the hub; both derive from OSError
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{where} is not a folder here and cannot be fetched from the hub ({reason})") from error


def weights_hash(files: Iterable[Path]) -> str:
    """sha256 (hex) over the sha256 of each file, in order of their names: the identity of a set of weights."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()
