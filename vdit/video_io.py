"""Reading images and writing what was generated: mp4 (H.264), PNG strips."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from vdit.config import UserError


def write_mp4(
    path: str | os.PathLike[str],
    video_TYXC: np.ndarray,
    fps: float,
    scale: int = 1,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Writes H.264, complete or not at all.

    Args:
      path: of the file.
      video_TYXC: uint8 RGB.
      fps: frames per second.
      scale: every pixel becomes a square of this side, so that small videos can be looked at.
      tags: metadata of the file.

    Raises:
      UserError: if it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    video_TYXC = video_TYXC.repeat(scale, 1).repeat(scale, 2)
    height, width = video_TYXC.shape[1:3]
    # H.264's 4:2:0 wants even sides; the last row or column is repeated.
    video_TYXC = np.pad(video_TYXC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    try:
        with av.open(str(partial), "w", format="mp4", options={"movflags": "use_metadata_tags+faststart"}) as container:
            container.metadata.update(tags or {})
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width = video_TYXC.shape[1:3]
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "16", "preset": "medium"}
            for frame in video_TYXC:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())
        partial.replace(path)
    except (OSError, av.error.FFmpegError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def strip(video_TYXC: np.ndarray, count: int = 8, scale: int = 1) -> np.ndarray:
    """`count` frames evenly spread over the video, side by side with a thin gap, strip_YXC."""
    chosen = np.unique(np.linspace(0, len(video_TYXC) - 1, count).round().astype(int))
    frames = video_TYXC[chosen].repeat(scale, 1).repeat(scale, 2)
    framed = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=160)
    return np.concatenate(list(framed), axis=1)


def write_png(path: str | os.PathLike[str], image_YXC: np.ndarray) -> None:
    """Writes a PNG, complete or not at all.

    Raises:
      UserError: if it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        Image.fromarray(image_YXC).save(partial, format="PNG")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image as RGB, alpha laid on white, image_YXC uint8.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            rgba = image.convert("RGBA")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"--image={path} cannot be read as an image: {error}") from error
    white = Image.new("RGBA", rgba.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def resize(image_YXC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area-averaged to another size, image_YXC uint8."""
    return np.asarray(Image.fromarray(image_YXC).resize((width, height), Image.Resampling.BOX))
