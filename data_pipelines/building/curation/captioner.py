"""What captions clips in place of their source: a program of the user's, or a vision-language model of transformers.

A program is asked as `program` says, and answers

    {"id": "1234", "captions": {"short": "a dog", "detailed": "a brown dog runs over a lawn"}}

with captions of the same kinds for every clip. hf:FOLDER stands for the program `vision_language`, with the model in a
folder of this machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import threading
from pathlib import Path
from typing import Any

from data_pipelines.building.curation.program import ANSWER, PREFIX, ClipRequest, Program, parse_command
from vdit.errors import UserError
from vdit.io.storage.signature import file_signature

FLAG = "captioner"
HF = "hf:"
_NEEDS = ("torch", "transformers")


class Captioner:
    """Captions clips, one after another; may be called from several threads.

    Args:
      name: as `check_captioner` knows it; "" = none.
      answer: seconds that an answer may take.
    """

    def __init__(self, name: str, answer: float = ANSWER) -> None:
        command, state = check_captioner(name), captioner_identity(name).get("captioner_hash", "")
        self._program = Program(f"--{FLAG}={name}", command, _captions, "captions", state, answer)
        self._kinds: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, request: ClipRequest) -> dict[str, str]:
        """Captions by kind.

        Raises:
          UserError: as `Program`, or if the kinds are not those of the first answer.
        """
        captions = self._program(request)
        with self._lock:
            self._kinds = self._kinds or set(captions)
            if set(captions) != self._kinds:
                raise self._program.error(
                    f"gives {request.item} the kinds {sorted(captions)}, and {sorted(self._kinds)} before"
                )
            return captions

    def close(self) -> None:
        """Ends the program."""
        self._program.close()


def check_captioner(name: str) -> list[str]:
    """The command line of a captioner; empty if there is none.

    Raises:
      UserError: if it is not of a known kind, or what it needs is not there.
    """
    if not name:
        return []
    if not name.startswith(HF):
        example = f"{PREFIX} and a command line, as {PREFIX}'python caption.py', or {HF}FOLDER"
        return parse_command(FLAG, name, example)
    folder = Path(name.removeprefix(HF)).expanduser()
    if not (folder / "config.json").is_file():
        raise UserError(f"--{FLAG}={name}: there is no config.json; name a folder with a model of transformers")
    if missing := [need for need in _NEEDS if importlib.util.find_spec(need) is None]:
        raise UserError(f"--{FLAG}={name} needs {' and '.join(missing)}: pip install 'vdit[captioner]'")
    return [sys.executable, "-m", "data_pipelines.building.curation.vision_language", str(folder.absolute())]


def captioner_identity(name: str) -> dict[str, str]:
    """What the captions of a data set depend on, for `vdit.json`."""
    if not name.startswith(HF):
        return {FLAG: name} if name else {}
    folder = Path(name.removeprefix(HF)).expanduser()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    signatures = [f"{path.relative_to(folder)} {file_signature(str(path))}" for path in files]
    return {FLAG: name, "captioner_hash": hashlib.sha256("\n".join(signatures).encode()).hexdigest()[:16]}


def _captions(answer: dict[str, Any]) -> dict[str, str]:
    """The captions of an answer; ValueError if it is something else."""
    captions = answer.get("captions")
    if not isinstance(captions, dict) or not captions:
        raise ValueError('there are no "captions"')
    for kind, caption in captions.items():
        if not (kind.isidentifier() and isinstance(caption, str)):
            raise ValueError(f"the caption {kind!r} is no text of a kind with a plain name")
        caption.encode()  # UnicodeEncodeError is a ValueError
    return dict(sorted(captions.items()))
