"""A program of the user's that finds the main subject of a clip, asked as `program` says.

It answers with the box (x0, y0, x1, y1) of the subject in the middle one of the frames, `frames[len(frames) // 2]`, as
shares of width and height from the top left, or with null where there is no subject:

    {"id": "1234", "box": [0.21, 0.4, 0.55, 0.93]}
"""

from __future__ import annotations

from typing import Any

from data_pipelines.building.curation.program import ANSWER, PREFIX, ClipRequest, Program, parse_command
from data_pipelines.media.filters import SUBJECT_MEASURES

FLAG = "detector"


class Detector:
    """Finds the subjects of clips, one after another; may be called from several threads.

    Args:
      name: "command:" and a command line; "" = none.
      answer: seconds that an answer may take.
    """

    def __init__(self, name: str, answer: float = ANSWER) -> None:
        self._program = Program(f"--{FLAG}={name}", check_detector(name), _box, "boxes", answer=answer)

    def __call__(self, request: ClipRequest) -> dict[str, float]:
        """The box of a clip's subject, by the names of `SUBJECT_MEASURES`.

        Raises:
          UserError: as `Program`.
        """
        return self._program(request)

    def close(self) -> None:
        """Ends the program."""
        self._program.close()


def check_detector(name: str) -> list[str]:
    """The command line of a detector; empty if there is none.

    Raises:
      UserError: if it is not of a known kind.
    """
    example = f"{PREFIX} and a command line, as {PREFIX}'python detect.py'"
    return parse_command(FLAG, name, example) if name else []


def _box(answer: dict[str, Any]) -> dict[str, float]:
    """The box of an answer; ValueError if it is something else."""
    if "box" not in answer:
        raise ValueError('there is no "box"')
    box = answer["box"]
    if box is None:
        return dict.fromkeys(SUBJECT_MEASURES, float("nan"))
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
        raise ValueError(f"the box {box!r} is not four numbers")
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise ValueError(f"the box {box} is not x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
    return dict(zip(SUBJECT_MEASURES, map(float, box), strict=True))
