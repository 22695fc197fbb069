"""Running the programs over rows of requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vdit.config import Config
from vdit.diffusion import corruption
from vdit.generation.packing import Job, Rows, assign, job, lay_out, sizes
from vdit.generation.programs import Asked, Moment, State, programs
from vdit.generation.request import Request, Settings, canvas
from vdit.generation.timing import timing
from vdit.parallel.mesh import row_shards, to_global, use_mesh
from vdit.patches import Patch, unpatchify

Progress = Callable[[int, int], None]
Preview = Callable[[int, dict[int, np.ndarray]], None]


class Generator:
    """Denoises requests in rows of training's shape, all sizes with one compiled program; larger ones in longer rows.

    Args:
      graph, params: the model; usually the averaged parameters.
      config: the run's config.
      mesh: devices to run on.
      patch, channels: of the data the model was trained on.
      latents: whether that is latents: given ones and the results are float32 then (see `LatentGenerator`).
    """

    time_stride = 1
    """Frames of the video for one of the model."""

    def __init__(
        self,
        graph: Any,
        params: Any,
        config: Config,
        mesh: jax.sharding.Mesh,
        patch: Patch,
        channels: int,
        latents: bool = False,
    ):
        self.patch, self.channels, self.config = patch, channels, config
        self._params, self._mesh, self._latents = params, mesh, latents
        self._start, self._advance = programs(graph, config)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        progress: Progress | None = None,
        preview: Preview | None = None,
        **settings: Any,
    ) -> list[np.ndarray]:
        """Videos of the requests, in order, each video_TYXC uint8.

        Args:
          requests: what to generate.
          progress: called with (evaluations done, evaluations in all).
          preview: called after every evaluation with (evaluations done, clean estimates of the videos under way by
            number of the request).
          **settings: fields of `Settings`: steps, sampler, guidance and so on.

        Raises:
          UserError: if a size is not one of the patch grid, a request is too large, or a setting is out of range.
        """
        chosen = Settings(**settings)
        guided = chosen.guidance != 1
        jobs = []
        for request in requests:
            laid = canvas(request, self.patch, self.channels, self._latents)
            jobs.append(job(request, laid, timing(request, laid, chosen, self.config.diffusion), guided))
        shape, shards = sizes(jobs, self.config.data), row_shards(self._mesh)
        numbers = assign(jobs, shape)
        batches = [
            lay_out(numbers[i : i + shards], jobs, shape, self.patch, shards) for i in range(0, len(numbers), shards)
        ]
        total, done = sum(len(rows.times_EBK) for rows in batches), 0
        videos: dict[int, np.ndarray] = {}
        for rows in batches:
            for state in self._denoise(rows, chosen):
                done += 1
                if progress:
                    progress(done, total)
                if preview:
                    preview(done, self._videos(state.before, rows, jobs))
            videos |= self._videos(state.x, rows, jobs)
        return [videos[i] for i in range(len(requests))]

    def _denoise(self, rows: Rows, settings: Settings) -> Any:
        """Yields the state after each evaluation."""
        with use_mesh(self._mesh):
            place = lambda array: to_global(np.ascontiguousarray(array), self._mesh)  # noqa: E731
            asked = to_global(Asked(rows.batch, rows.other, rows.null_BN, rows.level_BL), self._mesh)
            state: State = self._start(asked, place(rows.start_BK))
            rescale = np.float32(settings.guidance_rescale)
            for times, weights, scale in zip(rows.times_EBK, rows.weights_EBK25, rows.scale_EBK, strict=True):
                moment = Moment(place(times), place(weights), place(scale))
                guided = bool((scale != 1).any())
                state = self._advance(
                    self._params, state, asked, moment, rescale, guided=guided, rescaled=bool(rescale)
                )
                jax.block_until_ready(state)
                yield state

    def _videos(self, x: jax.Array, rows: Rows, jobs: Sequence[Job]) -> dict[int, np.ndarray]:
        """The videos of the rows by number of the request."""
        x_BLP = np.asarray(x)
        videos = {}
        for i, (row, slots) in rows.slots.items():
            laid = jobs[i].canvas
            patches_LP = x_BLP[row, slots][: laid.example.grid.tokens]
            scaled = unpatchify(patches_LP, laid.example.grid, self.patch)
            back = corruption.from_model_scale if self._latents else corruption.to_pixels
            videos[i] = laid.composite(back(scaled, self.config.diffusion.mean))
        return videos
