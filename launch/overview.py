"""Strips of a study's samples under one another, as one picture: `python -m launch.overview STUDY --out=DIR`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image, ImageDraw

from vdit.command.run import run_main
from vdit.errors import UserError
from vdit.io.files import read_json

OUT = flags.DEFINE_string("out", "docs/figures", "Folder for the pictures, samples-GROUP.png.")
PROMPTS = flags.DEFINE_integer("prompts", 2, "Prompts shown in each picture.", lower_bound=1)

GROUPS = ("compute", "bounce")
"""Groups of samples of `configs/study.py` that the README shows."""
LABEL = 110
CAPTION = 22
GAP = 4


def overview(study: Path, group: str, prompts: int) -> np.ndarray:
    """Strips of a group of samples, picture_YXC: a block for each prompt, in it a strip for each column.

    Raises:
      UserError: if the study has no samples of that group.
    """
    known = read_json(study / "samples" / "samples.json", list)
    samples = [sample for sample in known if isinstance(sample, dict) and sample.get("group") == group]
    if not samples:
        raise UserError(f"{study} has no samples of {group} yet")
    captions = list(dict.fromkeys(sample["row"] for sample in samples))[:prompts]
    lines: list[tuple[str, np.ndarray | None]] = []
    for caption in captions:
        lines.append((caption, None))
        for sample in sorted((s for s in samples if s["row"] == caption), key=lambda sample: sample["column"]):
            with Image.open(study / "samples" / sample["png"]) as image:
                half = image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
            lines.append((sample["label"], np.asarray(half)))
    width = LABEL + max(strip.shape[1] for _, strip in lines if strip is not None) + GAP
    height = sum(CAPTION if strip is None else strip.shape[0] + GAP for _, strip in lines)
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    y = 0
    for label, strip in lines:
        if strip is None:
            draw.text((GAP, y + GAP), label, fill="black")
            y += CAPTION
        else:
            draw.text((GAP, y + strip.shape[0] // 2 - 6), label, fill="#444444")
            picture.paste(Image.fromarray(strip), (LABEL, y))
            y += strip.shape[0] + GAP
    return np.asarray(picture)


def main(argv: list[str]) -> None:
    from vdit.io.video import write_png

    study, out = Path(argv[1] if len(argv) > 1 else "study"), Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    for group in GROUPS:
        write_png(out / f"samples-{group}.png", overview(study, group, PROMPTS.value))
        print(out / f"samples-{group}.png")


if __name__ == "__main__":
    run_main(main)
