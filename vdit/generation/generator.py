"""Running the programs over rows of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from vdit.config import Config
from vdit.diffusion import corruption
from vdit.errors import UserError
from vdit.generation.experts import experts_of
from vdit.generation.programs import SCALE, TIME, DenoiseInputs, State, programs
from vdit.generation.request import Request, Settings, patch_request
from vdit.generation.rows.packing import Job, Rows, assign, job, lay_out, sizes
from vdit.generation.rows.schedule import NONE, RowSchedule, schedule_rows
from vdit.generation.rows.timing import timing
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
      progress: called as that of `generate`, where a call has none of its own.
      partner: parameters of the other expert, for the times that config.diffusion.times leaves; None if there is none.

    Raises:
      UserError: if there are several processes: states of rows move between devices through one host.
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
        progress: Progress | None = None,
        partner: Any = None,
    ):
        if jax.process_count() > 1:
            raise UserError(
                f"sampling runs in one process, and this is one of {jax.process_count()}; use the devices of one host"
            )
        self.patch, self.channels, self.config = patch, channels, config
        self._experts = experts_of(params, config.diffusion.times, partner)
        self._mesh, self._latents, self._progress = mesh, latents, progress
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
        chosen, progress = Settings(**settings), progress or self._progress
        guided = chosen.guidance != 1
        jobs = []
        for request in requests:
            laid = patch_request(request, self.patch, self.channels, self._latents)
            jobs.append(job(request, laid, timing(request, laid, chosen, self.config.diffusion), guided))
        shape = sizes(jobs, self.config.data)
        rows = lay_out(assign(jobs, shape), jobs, shape, self.patch)
        plan = schedule_rows([len(table) for table in rows.tables[:-1]], row_shards(self._mesh))
        total, done = sum(schedule.evaluations for schedule in plan), 0
        states: dict[int, State] = {}
        videos: dict[int, np.ndarray] = {}
        for schedule in plan:
            for state in self._denoise(rows, schedule, states, chosen):
                done += 1
                if progress:
                    progress(done, total)
                if preview:
                    estimates = dict(zip(schedule.rows_B, np.asarray(state.before), strict=True))
                    preview(done, self._videos(estimates, rows, jobs))
            for row, first in zip(schedule.rows_B, schedule.first_B, strict=True):
                if row != NONE and first + schedule.evaluations == len(rows.tables[row]):
                    videos |= self._videos({row: states.pop(row).x}, rows, jobs)
        return [videos[i] for i in range(len(requests))]

    def _denoise(
        self, rows: Rows, schedule: RowSchedule, states: dict[int, State], settings: Settings
    ) -> Iterator[State]:
        """Yields the state after each evaluation of a schedule, and notes the states of its rows at its end."""
        with use_mesh(self._mesh):
            place = lambda array: to_global(np.ascontiguousarray(array), self._mesh)  # noqa: E731
            chosen = list(schedule.rows_B)
            batch, other = (packed.map(lambda array: array[chosen]) for packed in (rows.batch, rows.other))
            inputs = to_global(DenoiseInputs(batch, other, rows.null_RN[chosen], rows.level_RL[chosen]), self._mesh)
            begun = [states.get(row) for row in schedule.rows_B]
            if not all(begun):
                state: State = self._start(inputs, place(rows.start_RK[chosen]))
            if any(begun):
                fresh = begun if all(begun) else _split(state)
                both = [old or new for old, new in zip(begun, fresh, strict=True)]
                state = to_global(jax.tree.map(lambda *x_LP: np.stack(x_LP), *both), self._mesh)
            rescale, boundary = np.float32(settings.guidance_rescale), np.float32(self._experts.boundary)
            for i in range(schedule.evaluations):
                tables = [rows.tables[row][first + i] for row, first in zip(*schedule[:2], strict=True)]
                table_BKW = np.stack(tables)
                guided = bool((table_BKW[..., SCALE] != 1).any())
                state = self._advance(
                    self._experts.needed(table_BKW[..., TIME]),
                    boundary,
                    state,
                    inputs,
                    place(table_BKW),
                    rescale,
                    guided=guided,
                    rescaled=bool(rescale),
                )
                jax.block_until_ready(state)
                yield state
            states.update(zip(schedule.rows_B, _split(state), strict=True))

    def _videos(self, rows_LP: dict[int, np.ndarray], rows: Rows, jobs: Sequence[Job]) -> dict[int, np.ndarray]:
        """The videos of some rows by number of the request."""
        videos = {}
        for i, (row, slots) in rows.slots.items():
            if row not in rows_LP:
                continue
            laid = jobs[i].patched
            patches_LP = rows_LP[row][slots][: laid.example.grid.tokens]
            if not np.isfinite(patches_LP).all():
                raise UserError(
                    "the model made values that are NaN or infinite; lower --guidance, or use a better step"
                )
            scaled = unpatchify(patches_LP, laid.example.grid, self.patch)
            back = corruption.from_model_scale if self._latents else corruption.to_pixels
            videos[i] = laid.composite(back(scaled, self.config.diffusion.mean))
        return videos


def _split(state: State) -> list[State]:
    """The state of each row, on the host."""
    arrays = jax.tree.map(np.asarray, state)
    return [jax.tree.map(lambda x_BLP, b=b: x_BLP[b], arrays) for b in range(len(arrays.x))]
