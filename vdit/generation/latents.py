"""Generation by a model of latents: pixels before and after, latents in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.generation.generator import Generator, Preview, Progress
from vdit.generation.request import Request, check_size
from vdit.models.autoencoders.autoencoder import Autoencoder
from vdit.patches import Patch, patchify


class LatentGenerator:
    """Takes and gives what `Generator` does: sizes, lengths and frames are of pixels.

    A latent depends on the frames before it. Where those are not known, what is given counts as having stood still
    before: its first frame is encoded in their place.

    Args:
      inner: generates latents.
      autoencoder: whose latents they are.
      image_features: of a first frame, for models that attend to them; they come before the caption's.
    """

    def __init__(
        self,
        inner: Generator,
        autoencoder: Autoencoder,
        image_features: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self._inner, self._autoencoder, self._image_features = inner, autoencoder, image_features
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
        """See `Generator.generate`."""

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

    def reconstruct(self, video_TYXC: np.ndarray) -> np.ndarray:
        """The clip as the autoencoder gives it back: the best that a model of its latents can do."""
        return self.decode(self._autoencoder.encode(video_TYXC))

    def decode(self, latents_TYXC: np.ndarray) -> np.ndarray:
        """Pixels of latents, video_TYXC uint8."""
        return self._autoencoder.decode(latents_TYXC)

    def _encode(self, request: Request) -> Request:
        """The same request in latents."""
        check_size(request, self.patch)
        if self._autoencoder.condition:
            return self._image_to_video(request)
        time, height, width = self._autoencoder.strides
        edited, given, mask_TYX = request.edited_TYXC, request.given_TYXC, None
        if request.mask_TYX is not None and request.given_TYXC is not None:
            unit = Patch(time, height, width)
            grid = unit.grid(request.frames, request.height, request.width)
            mask_TYX = patchify(request.mask_TYX[..., None], unit).all(-1).reshape(grid)
            if edited is None:
                given = _still_before(request.given_TYXC, np.asarray(request.mask_TYX.any((1, 2))))
        return dataclasses.replace(
            self._resized(request),
            given_TYXC=self._latents(given),
            mask_TYX=mask_TYX,
            references=tuple(self._autoencoder.encode(image_YXC[None])[0] for image_YXC in request.references),
            edited_TYXC=self._latents(edited),
        )

    def _image_to_video(self, request: Request) -> Request:
        """The request in latents of a model that always has a first frame, which is not generated but conditions."""
        given, mask = request.given_TYXC, request.mask_TYX
        known_T = np.zeros(request.frames, bool)
        if mask is not None:
            known_T[:] = mask.any((1, 2))
        elif given is not None:
            known_T[: len(given)] = True
        if not known_T[0] or known_T[1:].any() or request.references or request.edited_TYXC is not None:
            raise UserError(
                "the model makes videos from their first frame and a caption; give --image and nothing else"
            )
        assert given is not None
        video_TYXC = np.zeros((request.frames, *given.shape[1:]), np.uint8)
        video_TYXC[0] = given[0]
        known_TYXC = self._autoencoder.encode(video_TYXC)[..., -self._autoencoder.condition :]
        request = dataclasses.replace(self._resized(request), given_TYXC=None, mask_TYX=None, condition_TYXC=known_TYXC)
        if self._image_features is None:
            return request
        features_ME = self._image_features(given[0])
        room = request.text_ME.shape[1] - features_ME.shape[1]
        padded_ME = np.pad(features_ME, ((0, 0), (0, room)))
        negative_ME = np.zeros_like(request.text_ME[:0]) if request.negative_ME is None else request.negative_ME
        return dataclasses.replace(
            request,
            text_ME=np.concatenate([padded_ME, request.text_ME]),
            negative_ME=np.concatenate([padded_ME, negative_ME]),
        )

    def _resized(self, request: Request) -> Request:
        """The request with the size and frame rate of its latents."""
        time, height, width = self._autoencoder.strides
        return dataclasses.replace(
            request,
            frames=1 + (request.frames - 1) // time,
            height=request.height // height,
            width=request.width // width,
            fps=request.fps / time,
        )

    def _latents(self, video_TYXC: np.ndarray | None) -> np.ndarray | None:
        return None if video_TYXC is None else self._autoencoder.encode(video_TYXC)

    def _decode(self, latents_TYXC: np.ndarray, request: Request) -> np.ndarray:
        """Pixels, with those that are given exactly as they were given."""
        video_TYXC, given = self.decode(latents_TYXC), request.given_TYXC
        if given is not None and request.mask_TYX is not None:
            return np.where(request.mask_TYX[..., None], given, video_TYXC)
        if given is not None:
            video_TYXC[: len(given)] = given
        return video_TYXC


def _still_before(video_TYXC: np.ndarray, known_T: np.ndarray) -> np.ndarray:
    """The frames, each that is not known replaced by the next that is; what comes after the last does not matter."""
    places = np.where(known_T, np.arange(len(known_T)), len(known_T) - 1)
    return video_TYXC[np.minimum.accumulate(places[::-1])[::-1]]
