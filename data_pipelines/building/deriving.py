"""Data sets made of another one: square crops, or the middle frame of every clip."""

from __future__ import annotations

from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from data_pipelines.building.dataset_writer import DatasetWriter
from data_pipelines.media.clip import stable_id
from data_pipelines.reading.records import RESERVED, Record
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError
from vdit.io.files import whole_folder


def square(video_TYXC: np.ndarray, side: int) -> tuple[np.ndarray, float, tuple[float, float]]:
    """The middle of a clip, scaled to side x side pixels.

    Returns:
      video_TYXC; the factor of the scaling; and (x, y) of the crop's corner in pixels before it.
    """
    height, width = video_TYXC.shape[1:3]
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    frames = [
        np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BOX, box=box)) for frame in video_TYXC
    ]
    return np.stack(frames), side / short, (left, top)


def _square_record(example: dict[str, Any], side: int) -> tuple[np.ndarray, dict[str, Any]]:
    video, scale, corner = square(example["video"], side)
    extra: dict[str, Any] = {}
    if "positions" in example:
        pixels = float(example["pixels_per_unit"])
        moved = np.asarray(example["positions"]).reshape(-1, 2) - np.array(corner) / pixels
        extra = {
            "positions": moved.reshape(-1).astype(np.float32),
            "pixels_per_unit": np.array(pixels * scale, np.float32),
        }
        if "wall" in example:  # its left and right edge
            extra["wall"] = (np.asarray(example["wall"]) - corner[0] / pixels).astype(np.float32)
    return video, extra


def derive(of: str, out: str, side: int = 0, stills: bool = False) -> int:
    """Writes the data set `out`; gives the number of its clips. One that is there already is left as it is.

    Args:
      of: a data set of pixels.
      out: folder to make.
      side: of square crops, a multiple of the patch; 0 with stills.
      stills: the middle frames, as images.

    Raises:
      UserError: if neither or both are asked for, or the data set holds latents, or out is something else.
    """
    source, target = Dataset(of), epath.Path(out)
    if bool(side) == stills:
        raise UserError("give one of --square=SIDE and --stills")
    if source.meta["autoencoder"]["name"] != "pixels":
        raise UserError(f"--of={of} holds latents; derive from a data set of pixels")
    if side % source.patch.height or side % source.patch.width:
        raise UserError(f"--square={side} is not a multiple of the patch of {of}")
    about = {"of": source.meta["build"], "square": side, "stills": stills}
    if (target / "vdit.json").exists():
        if Dataset(out).meta["build"] != about:
            raise UserError(f"--out={out} is another data set; choose another --out")
        return sum(Dataset(out).size(split) for split in source.splits)
    with whole_folder(target) as partial:
        writer = DatasetWriter(epath.Path(partial), source.meta["source"], source.patch)
        count = 0
        for split in source.splits:
            for i in range(source.size(split)):
                writer.add(split, _record(source, source.example(split, i), side))
                count += 1
        keep = ("source", "licence", "autoencoder", "text_encoder")
        writer.finish({**{name: source.meta[name] for name in keep}, "build": about})
    return count


def _record(source: Dataset, example: dict[str, Any], side: int) -> Record:
    kinds = source.meta["captions"]
    stored = {f"{prefix}_{kind}" for prefix in ("caption", "text") for kind in kinds}
    extra = {name: value for name, value in example.items() if name not in {*RESERVED, *stored}}
    if side:
        video, changed = _square_record(example, side)
        identity = int(example["id"])
    else:
        video = example["video"][len(example["video"]) // 2][None]
        changed = {
            name: _frame(extra[name], len(example["video"])) for name in ("positions", "velocities") if name in extra
        }
        identity = stable_id("still", int(example["id"]))
    return Record(
        identity,
        np.ascontiguousarray(video),
        float(example["fps"]),
        {kind: example[f"caption_{kind}"] for kind in kinds},
        {kind: np.asarray(example[f"text_{kind}"]) for kind in kinds},
        extra | changed,
    )


def _frame(values: np.ndarray, frames: int) -> np.ndarray:
    """The middle frame's part of a flat array of a value for each frame."""
    return np.ascontiguousarray(np.asarray(values).reshape(frames, -1)[frames // 2])
