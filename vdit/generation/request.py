"""What can be generated: a size, a caption, and which pixels are given. Modes differ in nothing else."""

from __future__ import annotations

import dataclasses
import math
import zlib

import numpy as np

from vdit.batch import Example
from vdit.diffusion.conditioning import REFERENCE_GAP
from vdit.diffusion.samplers import SAMPLERS
from vdit.diffusion.schedules import SCHEDULES
from vdit.errors import UserError
from vdit.patches import REFERENCE_RATE, Grid, Patch, patch_positions, patchify

MAX_PATCHES = 1 << 17
"""Of a video that is denoised at once."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How requests are denoised.

    Attributes:
      steps: denoising steps.
      sampler, schedule: by name, see `vdit.diffusion.samplers` and `vdit.diffusion.schedules`.
      guidance: scale of classifier-free guidance; 1 is none and costs half.
      guidance_interval: low and high; guidance acts at times low < t <= high.
      guidance_rescale: share of the spread that guidance adds which is taken back.
    """

    steps: int = 20
    sampler: str = "euler"
    schedule: str = "linear"
    guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        for wrong, message in (
            (self.steps < 1, f"--steps={self.steps} must be at least 1"),
            (self.sampler not in SAMPLERS, f"--sampler={self.sampler} is not one of {', '.join(SAMPLERS)}"),
            (self.schedule not in SCHEDULES, f"--schedule={self.schedule} is not one of {', '.join(SCHEDULES)}"),
            (not math.isfinite(self.guidance), f"--guidance={self.guidance:g} is not a finite number"),
            (not 0 <= low < high <= 1, f"--guidance_interval={low:g},{high:g} is not two times 0 <= low < high <= 1"),
            (not 0 <= self.guidance_rescale <= 1, f"--guidance_rescale={self.guidance_rescale:g} is not from 0 to 1"),
        ):
            if wrong:
                raise UserError(message)


@dataclasses.dataclass(frozen=True)
class Request:
    """One video to generate.

    Attributes:
      text_ME: caption features.
      frames, height, width: size in frames and pixels; 1 + k patch.time frames, sides multiples of the patch.
      fps: frames per second.
      seed: of its noise; the same seed gives the same noise whatever it is packed with.
      given_TYXC: uint8. Without a mask the frames it starts with, 1 + k patch.time of them; with one, all frames.
        None gives nothing.
      mask_TYX: True where a pixel of given_TYXC is given. The model sees the patches that are given as a whole, all
        given pixels come back.
      condition_TYXC: what is known of the clip, for models with `ModelConfig.condition`.
      references: uint8 images of what the video should show; sides multiples of the patch.
      negative_ME: features of a caption to keep away from; None keeps away from the missing caption.
      edited_TYXC: uint8 video to start from instead of noise (SDEdit, Meng et al. 2022); None starts from noise.
      strength: how much noise it gets, in (0, 1]: 1 keeps nothing of it.
      stagger: how much later each group is denoised than the one before, in parts of the whole, from 0 to 1 (diffusion
        forcing); for models trained with `diffusion.forcing`.
    """

    text_ME: np.ndarray
    frames: int
    height: int
    width: int
    fps: float
    seed: int = 0
    given_TYXC: np.ndarray | None = None
    mask_TYX: np.ndarray | None = None
    condition_TYXC: np.ndarray | None = None
    references: tuple[np.ndarray, ...] = ()
    negative_ME: np.ndarray | None = None
    edited_TYXC: np.ndarray | None = None
    strength: float = 1.0
    stagger: float = 0.0


@dataclasses.dataclass(frozen=True)
class PatchedRequest:
    """A request as patches.

    Attributes:
      example: its patches, then those of its references; grey where nothing is given and nothing edited.
      given_L: patches that are given.
      video_TYXC: given pixels, and mask_TYX where they are.
    """

    example: Example
    given_L: np.ndarray
    video_TYXC: np.ndarray
    mask_TYX: np.ndarray

    def composite(self, video_TYXC: np.ndarray) -> np.ndarray:
        """The video with its given pixels exactly as they were given."""
        return np.where(self.mask_TYX[..., None], self.video_TYXC, video_TYXC)


def check_denoising(strength: float, stagger: float) -> None:
    """Raises UserError if `Request.strength` or `Request.stagger` is out of range."""
    if not 0 < strength <= 1:
        raise UserError(f"--strength={strength:g} is not in (0, 1]: 1 keeps nothing of the clip that is edited")
    if not 0 <= stagger <= 1:
        raise UserError(f"--stagger={stagger:g} is not from 0 to 1: with 1 a group starts when the one before is done")


def check_size(request: Request, patch: Patch) -> Grid:
    """The patch grid of a request.

    Raises:
      UserError: if its size is not of the patch grid.
    """
    try:
        return patch.grid(request.frames, request.height, request.width)
    except ValueError as error:
        size = f"{request.width}x{request.height}, {request.frames} frames"
        raise UserError(f"cannot generate {size}: {error}") from error


def patch_request(request: Request, patch: Patch, channels: int, latents: bool = False) -> PatchedRequest:
    """Lays out a request.

    Args:
      request: what is requested.
      patch, channels: of the data the model was trained on.
      latents: whether that, and what the request gives, is float latents instead of uint8 pixels.

    Raises:
      UserError: if its size is not of the patch grid or too large, or what is given does not go with it.
    """
    grid = check_size(request, patch)
    if grid.tokens > MAX_PATCHES:
        raise UserError(
            f"a video of {request.width}x{request.height}, {request.frames} frames has {grid.tokens:,} patches, over "
            f"the {MAX_PATCHES:,} that are sampled at once; ask for fewer frames or a smaller size"
        )
    check_denoising(request.strength, request.stagger)
    video_TYXC, mask_TYX = _given(request, patch, channels, latents)
    if request.edited_TYXC is not None:
        _check_shape("the clip that is edited", request.edited_TYXC, video_TYXC.shape)
        video_TYXC = np.where(mask_TYX[..., None], video_TYXC, request.edited_TYXC)
    known = () if request.condition_TYXC is None else (patchify(request.condition_TYXC, patch),)
    patches_LP = np.concatenate([patchify(video_TYXC, patch), *known], -1)
    given_L = patchify(mask_TYX[..., None], patch).all(-1)
    if given_L.all():
        raise UserError("all patches of the video are given, nothing is left to generate; give fewer frames")
    positions_L3 = patch_positions(grid, patch, request.fps)
    reference_patches, reference_positions = _references(request, grid, patch)
    example = Example(
        request.seed,
        np.concatenate([patches_LP, *reference_patches]),
        grid,
        request.fps,
        request.text_ME,
        np.concatenate([positions_L3, *reference_positions]),
    )
    whole_L = np.ones(len(example.patches_LP), bool)  # references are given
    whole_L[: grid.tokens] = given_L
    return PatchedRequest(example, whole_L, video_TYXC, mask_TYX)


def _given(request: Request, patch: Patch, channels: int, latents: bool) -> tuple[np.ndarray, np.ndarray]:
    """Given pixels on grey (latents on zeros), and where they are."""
    grey = np.float32(0) if latents else np.uint8(128)
    video_TYXC = np.full((request.frames, request.height, request.width, channels), grey, grey.dtype)
    mask_TYX = np.zeros(video_TYXC.shape[:3], bool)
    given = request.given_TYXC
    if given is None:
        return video_TYXC, mask_TYX
    if request.mask_TYX is not None:
        _check_shape("what is given", given, video_TYXC.shape)
        _check_shape("its mask", request.mask_TYX, mask_TYX.shape)
        return np.where(request.mask_TYX[..., None], given, video_TYXC), request.mask_TYX
    if given.shape[1:] != video_TYXC.shape[1:] or len(given) >= request.frames or (len(given) - 1) % patch.time:
        raise UserError(
            f"given frames of shape {given.shape} do not start a video of {video_TYXC.shape}; "
            f"give 1 + k*{patch.time} frames of the same size, fewer than the video has"
        )
    video_TYXC[: len(given)], mask_TYX[: len(given)] = given, True
    return video_TYXC, mask_TYX


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise UserError(f"{name} has shape {array.shape}, the video {shape}; make them the same size and length")


def _references(request: Request, grid: Grid, patch: Patch) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Patches and positions of each reference image, after the end of the clip as in training."""
    patches, positions = [], []
    step = patch.time / request.fps * REFERENCE_RATE
    for i, image_YXC in enumerate(request.references):
        try:
            own = patch.grid(1, *image_YXC.shape[:2])
        except ValueError as error:
            raise UserError(f"a reference image of {image_YXC.shape[1]}x{image_YXC.shape[0]}: {error}") from error
        at_L3 = patch_positions(own, patch, request.fps)
        at_L3[:, 0] = grid.t * step + (i + 1) * REFERENCE_GAP
        patches.append(patchify(image_YXC[None], patch))
        positions.append(at_L3)
    return patches, positions


def request_seed(seed: int, text: str) -> int:
    """A 64-bit noise identity from a seed and a text."""
    return (seed << 32) ^ zlib.crc32(text.encode())
