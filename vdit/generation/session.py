"""From requests to files: everything that `python -m vdit.sample` does once a run is open."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.generation import outputs
from vdit.generation.generator import Generator, Progress
from vdit.generation.latents import LatentGenerator
from vdit.generation.long import OVERLAP_GROUPS, check_window, extend, window_count
from vdit.generation.prompts import Conditioning, SampleRequest, read_conditioning
from vdit.generation.request import Request, Settings
from vdit.io import video
from vdit.models.text.text_encoders import load_text_encoder
from vdit.models.text.token_encoder import TokenEncoder

STRIP = 8
"""Frames of a strip."""

FADE_GROUPS = 2
"""Groups at the end of a loop that are faded into its first frame."""


class Session:
    """Makes videos with one model and one way of denoising.

    Args:
      generator: of the run.
      meta: description of the data set it was trained on.
      run: see `outputs.run_about`.
      settings: how to denoise.
      fps: frames per second; None takes the data's.
      scale: side of the square that shows one pixel.

    Raises:
      UserError: if the model's text encoder is not to be had.
    """

    def __init__(
        self,
        generator: Generator | LatentGenerator,
        meta: dict[str, Any],
        run: dict[str, Any],
        settings: Settings,
        fps: float | None,
        scale: int,
    ):
        self._generator, self._run, self._settings, self._scale = generator, run, settings, scale
        self.fps = fps or meta["fps"] * generator.time_stride
        strides = meta["autoencoder"].get("strides", (1, 1, 1))
        sides = [side * stride for side, stride in zip(meta.get("size", ()), strides[1:], strict=False)]
        self._size = (sides[0], sides[1]) if sides else None
        about = meta["text_encoder"]
        self._encoder, self._encode_empty = load_text_encoder(about["name"]), about.get("encode_empty", False)
        if self._encoder.hash != about["hash"]:
            raise UserError(
                f"{run['checkpoint']} was trained with other weights of {about['name']}; "
                "use the version of vdit that did"
            )
        if isinstance(self._encoder, TokenEncoder):
            self._encoder = dataclasses.replace(self._encoder, encode_empty=self._encode_empty)

    def make(
        self, samples: Sequence[SampleRequest], window: int | None, progress: Progress, preview: int = 0
    ) -> Iterator[str]:
        """Makes and writes the videos, all that fit at once in one go; yields a line about each.

        Args:
          samples: what to make; each has an `out`.
          window: frames denoised at once; None is the run's longest window, or no limit if it has none.
          progress: called with (evaluations done, evaluations in all) of the part under way.
          preview: a preview is written every so many evaluations; 0 is never.

        Raises:
          UserError: if a request cannot be fulfilled. All are checked before anything is generated.
        """
        patch = self._generator.patch
        given = [read_conditioning(sample, patch, self.fps, self._size) for sample in samples]
        texts = self._encode(samples)
        limit = window or self._generator.config.data.max_frames or None
        requests = [self._request(sample, found, texts) for sample, found in zip(samples, given, strict=True)]
        long = [
            i
            for i, request in enumerate(requests)
            if limit and request.frames > limit and _extendable(samples[i], given[i])
        ]
        first = self._first_images(samples, requests, progress)
        requests = [
            self._loop(r, first.get(i)) if sample.loop else r
            for i, (sample, r) in enumerate(zip(samples, requests, strict=True))
        ]
        whole = [i for i in range(len(samples)) if i not in long]
        if whole:
            watch = self._previews([samples[i] for i in whole], preview) if preview else None
            settings = dataclasses.asdict(self._settings)
            videos = self._generator.generate(
                [requests[i] for i in whole], progress=progress, preview=watch, **settings
            )
            for i, video_TYXC in zip(whole, videos, strict=True):
                if samples[i].loop:
                    video_TYXC = close_loop(video_TYXC[: -patch.time], FADE_GROUPS * patch.time)
                path = outputs.made(Path(samples[i].out))
                values = self._about(samples[i], video_TYXC.shape)
                files = outputs.write_video(path, video_TYXC, self.fps, self._scale, values)
                path.with_suffix(".preview.png").unlink(missing_ok=True)
                yield self._line(files, video_TYXC.shape)
        for i in long:
            assert limit is not None
            yield self._write_long(samples[i], requests[i], limit, progress)

    def _encode(self, samples: Sequence[SampleRequest]) -> dict[str, np.ndarray]:
        """Features of all captions by caption."""
        texts = list(dict.fromkeys(text for sample in samples for text in (sample.prompt, sample.negative)))
        if any(texts) and self._encoder.name == "none":
            raise UserError(
                f"--prompt has no effect: {self._run['checkpoint']} was trained without captions; leave it out"
            )
        return {text: np.asarray(e, np.float32) for text, e in zip(texts, self._encoder.encode(texts), strict=True)}

    def _request(self, sample: SampleRequest, given: Conditioning, texts: dict[str, np.ndarray]) -> Request:
        return Request(
            texts[sample.prompt],
            given.frames,
            given.height,
            given.width,
            self.fps,
            sample.seed,
            negative_ME=texts[sample.negative] if sample.negative or self._encode_empty else None,
            strength=sample.strength,
            stagger=sample.stagger,
            **given.fields(),
        )

    def _first_images(
        self, samples: Sequence[SampleRequest], requests: Sequence[Request], progress: Progress
    ) -> dict[int, np.ndarray]:
        """An image for each loop that has none, by number of the request."""
        wanted = [i for i, sample in enumerate(samples) if sample.loop and not sample.image]
        if not wanted:
            return {}
        alone = [dataclasses.replace(requests[i], frames=1, stagger=0.0) for i in wanted]
        settings = dataclasses.asdict(self._settings)
        images = self._generator.generate(alone, progress=progress, **settings)
        return dict(zip(wanted, images, strict=True))

    def _loop(self, request: Request, image_1YXC: np.ndarray | None) -> Request:
        """The request with its first frame at both ends, one group longer: the group at the end is not shown."""
        step = self._generator.patch.time
        frames = request.frames + step
        video_TYXC = np.zeros((frames, request.height, request.width, self._generator.channels), np.uint8)
        first = request.given_TYXC if image_1YXC is None else image_1YXC
        assert first is not None  # a loop has an image, or one was made
        video_TYXC[:] = first[:1]
        mask_TYX = np.zeros(video_TYXC.shape[:3], bool)
        mask_TYX[:1] = mask_TYX[-step:] = True
        return dataclasses.replace(request, frames=frames, given_TYXC=video_TYXC, mask_TYX=mask_TYX)

    def _write_long(self, sample: SampleRequest, request: Request, window: int, progress: Progress) -> str:
        """Makes a video window by window; an mp4 is written as it grows, its strip shows frames of all of it."""
        path = outputs.made(Path(sample.out))
        if request.mask_TYX is not None:
            assert request.given_TYXC is not None
            head = int(request.mask_TYX.all((1, 2)).sum())
            request = dataclasses.replace(request, given_TYXC=request.given_TYXC[:head], mask_TYX=None)
        shape = (request.frames, request.height, request.width, self._generator.channels)
        values = self._about(sample, shape) | {"window": window}
        given = 0 if request.given_TYXC is None else len(request.given_TYXC)
        overlap = self._generator.patch.frames(OVERLAP_GROUPS)
        check_window(window, overlap, self._generator.patch)
        windows, done = window_count(request.frames, given, window, overlap), 0

        def part(evaluations: int, total: int) -> None:
            nonlocal done
            done += 1
            progress(done, windows * total)

        settings = dataclasses.asdict(self._settings)
        parts = (own for (own,) in extend(self._generator, [request], window, progress=part, **settings))
        if path.suffix != ".mp4":
            video_TYXC = np.concatenate(list(parts))
            return self._line(outputs.write_video(path, video_TYXC, self.fps, self._scale, values), shape)
        shown = set(np.linspace(0, request.frames - 1, STRIP).round().astype(int).tolist())
        kept: list[np.ndarray] = []
        number = 0
        with video.mp4_writer(path, shape[1:3], self.fps, self._scale, outputs.tags(values)) as writer:  # type: ignore[arg-type]
            for frames_TYXC in parts:
                writer.add(frames_TYXC)
                kept += [frame for i, frame in enumerate(frames_TYXC, number) if i in shown]
                number += len(frames_TYXC)
        return self._line([path, *outputs.write_beside(path, np.stack(kept), self._scale, values)], shape)

    def _previews(self, samples: Sequence[SampleRequest], every: int) -> Callable[[int, dict[int, np.ndarray]], None]:
        def write(done: int, videos: dict[int, np.ndarray]) -> None:
            if done % every == 0:
                for i, video_TYXC in videos.items():
                    strip = video.strip(video_TYXC, STRIP, self._scale)
                    video.write_png(outputs.made(Path(samples[i].out)).with_suffix(".preview.png"), strip)

        return write

    def _about(self, sample: SampleRequest, shape: tuple[int, ...]) -> dict[str, Any]:
        return outputs.about(sample, shape[:3], self.fps, self._settings, self._run)  # type: ignore[arg-type]

    def _line(self, files: Sequence[Path], shape: tuple[int, ...]) -> str:
        frames, height, width = shape[:3]
        names = " and ".join(filter(None, [", ".join(map(str, files[:-1])), str(files[-1])]))
        return f"{names}: {frames} frame{'s' * (frames > 1)} of {width}x{height} at {self.fps:g} frames/s"


def close_loop(video_TYXC: np.ndarray, count: int) -> np.ndarray:
    """Fades the last `count` frames into the first, which is to follow them.

    A jump that is left from the last frame to the first is so divided by count + 1.
    """
    count = min(count, len(video_TYXC) - 1)
    share_T111 = (np.arange(1, count + 1) / (count + 1))[:, None, None, None]
    tail = video_TYXC[len(video_TYXC) - count :] * (1 - share_T111) + video_TYXC[0] * share_T111
    return np.concatenate([video_TYXC[: len(video_TYXC) - count], np.round(tail).astype(np.uint8)])


def _extendable(sample: SampleRequest, given: Conditioning) -> bool:
    """Whether nothing but frames at the start is given, so that it can be made window by window."""
    return not sample.loop and not len(given.tail) and given.edited is None
