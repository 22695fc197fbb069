"""Generation by a model of latents: pixels before and after, latents in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.generation.generator import Generator, Preview, Progress
from vdit.generation.request import Request, check_size
from vdit.models.autoencoders.autoencoder import Autoencoder
from vdit.patches import Patch, patchify


class LatentGenerator:
    """Takes and gives what `Generator` does: sizes, lengths and frames are of pixels.

    A latent depends on the frames before it, so what is given must have something given, or be edited, in all of the
    time before it.

    Args:
      inner: generates latents.
      autoencoder: whose latents they are.
    """

    def __init__(self, inner: Generator, autoencoder: Autoencoder):
        self._inner, self._autoencoder = inner, autoencoder
        self.time_stride, height, width = autoencoder.strides
        patch, data = inner.patch, inner.config.data
        self.patch = Patch(patch.time * self.time_stride, patch.height * height, patch.width * width)
        self.channels = 3
        most = data.max_frames and 1 + (data.max_frames - 1) * self.time_stride
        self.config = dataclasses.replace(inner.config, data=dataclasses.replace(data, max_frames=most))

    def generate(
        self,
        requests: Sequence[Request],
        *,
        progress: Progress | None = None,
        preview: Preview | None = None,
        **settings: Any,
    ) -> list[np.ndarray]:
        """See `Generator.generate`.

        Raises:
          UserError: also if something is given after a time of which nothing is known.
        """

        def decoded(done: int, latents: dict[int, np.ndarray]) -> None:
            assert preview is not None
            preview(done, {i: self._decode(x, requests[i]) for i, x in latents.items()})

        found = self._inner.generate(
            [self._encode(request) for request in requests],
            progress=progress,
            preview=decoded if preview else None,
            **settings,
        )
        return [self._decode(x, request) for x, request in zip(found, requests, strict=True)]

    def _encode(self, request: Request) -> Request:
        """The same request in latents."""
        check_size(request, self.patch)
        time, height, width = self._autoencoder.strides
        edited, mask_TYX = request.edited_TYXC, None
        if request.mask_TYX is not None and request.given_TYXC is not None:
            unit = Patch(time, height, width)
            grid = unit.grid(request.frames, request.height, request.width)
            mask_TYX = patchify(request.mask_TYX[..., None], unit).all(-1).reshape(grid)
            known_T = mask_TYX.any((1, 2))
            if edited is None and not known_T[: known_T.nonzero()[0].max(initial=-1) + 1].all():
                raise UserError(
                    "frames after a time that is not known cannot be given to a model of latents, which depend on the "
                    "frames before them; give frames at the start, or a clip to edit"
                )
        return dataclasses.replace(
            request,
            frames=1 + (request.frames - 1) // time,
            height=request.height // height,
            width=request.width // width,
            fps=request.fps / time,
            given_TYXC=self._latents(request.given_TYXC),
            mask_TYX=mask_TYX,
            references=tuple(self._autoencoder.encode(image_YXC[None])[0] for image_YXC in request.references),
            edited_TYXC=self._latents(edited),
        )

    def _latents(self, video_TYXC: np.ndarray | None) -> np.ndarray | None:
        return None if video_TYXC is None else self._autoencoder.encode(video_TYXC)

    def _decode(self, latents_TYXC: np.ndarray, request: Request) -> np.ndarray:
        """Pixels, with those that are given exactly as they were given."""
        video_TYXC, given = self._autoencoder.decode(latents_TYXC), request.given_TYXC
        if given is not None and request.mask_TYX is not None:
            return np.where(request.mask_TYX[..., None], given, video_TYXC)
        if given is not None:
            video_TYXC[: len(given)] = given
        return video_TYXC
