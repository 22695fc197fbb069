"""Generation: requests of any size and length, packed into rows and denoised together by one program.

The mode of a request is nothing but which of its leading groups are given.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vdit.batch import Example, PackedBatch, RowShape, pack_row, stack_rows, unpack_row
from vdit.config import Config, UserError
from vdit.diffusion import corruption, flow, randomness
from vdit.diffusion.samplers import guide, sampler_step, schedule
from vdit.parallel.mesh import row_shards, to_global, use_mesh
from vdit.parallel.rowwise import rowwise
from vdit.patches import Patch, patchify, unpatchify

ROW_STEP = 512
"""Rows longer than those of training grow in steps of this many slots, so that few programs are compiled."""

MOST_PATCHES = 1 << 17


@dataclasses.dataclass(frozen=True)
class Request:
    """One video to generate.

    Attributes:
      text_ME: caption features.
      frames, height, width: size in frames and pixels; 1 + k patch.time frames, sides multiples of the patch.
      fps: frames per second.
      seed: of its noise; the same seed gives the same noise whatever it is packed with.
      given_TYXC: uint8 frames it starts with, 1 + k patch.time of them; None gives nothing.
    """

    text_ME: np.ndarray
    frames: int
    height: int
    width: int
    fps: float
    seed: int = 0
    given_TYXC: np.ndarray | None = None

    def example(self, patch: Patch, channels: int) -> Example:
        """The request as a clip: its given frames, then grey."""
        try:
            grid = patch.grid(self.frames, self.height, self.width)
        except ValueError as error:
            raise UserError(f"cannot generate {self.width}x{self.height}, {self.frames} frames: {error}") from error
        if grid.tokens > MOST_PATCHES:
            raise UserError(
                f"a video of {self.width}x{self.height}, {self.frames} frames has {grid.tokens:,} patches, over the "
                f"{MOST_PATCHES:,} that are sampled at once; ask for fewer frames or a smaller size"
            )
        video_TYXC = np.full((self.frames, self.height, self.width, channels), 128, np.uint8)
        if self.given_TYXC is not None:
            given = self.given_TYXC
            if given.shape[1:] != video_TYXC.shape[1:] or len(given) >= self.frames or (len(given) - 1) % patch.time:
                raise UserError(
                    f"given frames of shape {given.shape} do not start a video of {video_TYXC.shape}; "
                    f"give 1 + k*{patch.time} frames of the same size, fewer than the video has"
                )
            video_TYXC[: len(given)] = given
        return Example(self.seed, patchify(video_TYXC, patch), grid, self.fps, self.text_ME)

    def given_groups(self, patch: Patch) -> int:
        return 0 if self.given_TYXC is None else 1 + (len(self.given_TYXC) - 1) // patch.time


class Generator:
    """Denoises requests in rows of training's shape, all sizes with one compiled program; larger ones in longer rows.

    Args:
      graph, params: the model; usually the averaged parameters.
      config: the run's config.
      mesh: devices to run on.
      patch, channels: of the data the model was trained on.
    """

    def __init__(self, graph: Any, params: Any, config: Config, mesh: jax.sharding.Mesh, patch: Patch, channels: int):
        self._graph, self._params, self._config, self._mesh = graph, params, config, mesh
        self._patch, self._channels = patch, channels
        self._start, self._advance = _programs(graph, config)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        steps: int = 20,
        guidance: float = 1.0,
        sampler: str = "euler",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[np.ndarray]:
        """Videos of the requests, in order, each video_TYXC uint8.

        Args:
          requests: what to generate.
          steps: denoising steps.
          guidance: scale of classifier-free guidance; 1 is none and costs half.
          sampler: "euler" or "heun".
          progress: called with (steps done, steps in all).

        Raises:
          UserError: if a size is not one of the patch grid, or a request is too large.
        """
        examples = [request.example(self._patch, self._channels) for request in requests]
        groups = [request.given_groups(self._patch) for request in requests]
        shape = self._row_shape(examples)
        batches = self._pack(examples, shape)
        videos: dict[int, np.ndarray] = {}
        for number, numbers in enumerate(batches):
            local, groups_BN = self._batch(numbers, examples, groups, shape)
            report = functools.partial(self._report, progress, number * steps, len(batches) * steps)
            x_BLP = self._denoise(local, groups_BN, steps, guidance, sampler, report)
            for row, chosen in enumerate(numbers):
                for which, patches_LP in zip(chosen, unpack_row(x_BLP[row], _row(local, row)), strict=True):
                    videos[which] = self._finish(patches_LP, examples[which], requests[which])
        return [videos[i] for i in range(len(requests))]

    def _row_shape(self, examples: Sequence[Example]) -> RowShape:
        """The rows of training; longer ones, in steps of `ROW_STEP`, for a request that does not fit them."""
        data = self._config.data
        need = max(example.tokens for example in examples)
        words = max(len(example.text_ME) for example in examples)
        tokens = data.row_tokens if need <= data.row_tokens else -(-need // ROW_STEP) * ROW_STEP
        return RowShape(tokens, data.row_examples, max(data.row_text, words))

    def _pack(self, examples: Sequence[Example], shape: RowShape) -> list[list[list[int]]]:
        """Request numbers by batch and row: best fit, longest first."""
        rows: list[list[int]] = []
        room: list[tuple[int, int]] = []  # free tokens and caption slots of each row
        for i in sorted(range(len(examples)), key=lambda i: -examples[i].tokens):
            need, text = examples[i].tokens, len(examples[i].text_ME)
            fits = [
                r
                for r, (free, words) in enumerate(room)
                if free >= need and words >= text and len(rows[r]) < shape.examples
            ]
            if fits:
                best = min(fits, key=lambda r: room[r][0])
            else:
                rows.append([])
                room.append((shape.tokens, shape.text))
                best = len(rows) - 1
            rows[best].append(i)
            room[best] = room[best][0] - need, room[best][1] - text
        size = row_shards(self._mesh)
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    def _batch(
        self, numbers: list[list[int]], examples: Sequence[Example], groups: Sequence[int], shape: RowShape
    ) -> tuple[PackedBatch, np.ndarray]:
        rows = [pack_row([examples[i] for i in chosen], shape, self._patch) for chosen in numbers]
        while len(rows) < row_shards(self._mesh):  # the program has a fixed number of rows
            empty = rows[0].map(np.zeros_like)
            rows.append(dataclasses.replace(empty, text_index_BL=np.full_like(empty.text_index_BL, -1)))
        groups_BN = np.zeros((len(rows), shape.examples), np.int32)
        for row, chosen in enumerate(numbers):
            groups_BN[row, : len(chosen)] = [groups[i] for i in chosen]
        return stack_rows(rows), groups_BN

    def _denoise(
        self, local: PackedBatch, groups_BN: np.ndarray, steps: int, guidance: float, sampler: str, report: Any
    ) -> np.ndarray:
        sampler_step(sampler)
        with use_mesh(self._mesh):
            batch, groups = to_global(local, self._mesh), to_global(groups_BN, self._mesh)
            times_SBN = schedule(steps, local.grid_BN3, self._config.diffusion.size_shift)
            x_BLP = self._start(batch, groups)
            for s in range(steps):
                now, after = (to_global(np.ascontiguousarray(t), self._mesh) for t in times_SBN[s : s + 2])
                # The slope at time 0 is not defined for a clean prediction, so the last step is of order 1.
                kind = "euler" if s == steps - 1 else sampler
                x_BLP = self._advance(
                    self._params,
                    x_BLP,
                    batch,
                    groups,
                    now,
                    after,
                    np.float32(guidance),
                    sampler=kind,
                    guided=guidance != 1.0,
                )
                jax.block_until_ready(x_BLP)
                report(s + 1)
            return np.asarray(x_BLP)

    def _finish(self, patches_LP: np.ndarray, example: Example, request: Request) -> np.ndarray:
        pixels = corruption.to_pixels(unpatchify(patches_LP, example.grid, self._patch), self._config.diffusion.mean)
        if request.given_TYXC is not None:
            pixels[: len(request.given_TYXC)] = request.given_TYXC  # exact, whatever rounding did
        return pixels

    @staticmethod
    def _report(progress: Callable[[int, int], None] | None, before: int, total: int, done: int) -> None:
        if progress:
            progress(before + done, total)


def request_seed(seed: int, text: str) -> int:
    """A 64-bit noise identity from a seed and a text."""
    return (seed << 32) ^ zlib.crc32(text.encode())


def _row(batch: PackedBatch, row: int) -> PackedBatch:
    return batch.map(lambda array: array[row])


@functools.cache
def _programs_cached(graph: Any, config: Config) -> tuple[Any, Any]:
    mean = config.diffusion.mean

    def question(batch: PackedBatch, groups_BN: jax.Array, times_BN: jax.Array, null: bool, x_BLP: jax.Array) -> Any:
        """The model's inputs for state x: given patches are clean at time 0."""

        def local(batch: PackedBatch, groups_BN: jax.Array, times_BN: jax.Array, x_BLP: jax.Array) -> Any:
            null_BN = jnp.full(times_BN.shape, null)
            asked = corruption.ask(batch, times_BN, groups_BN, null_BN, jnp.zeros_like(x_BLP), mean)
            return dataclasses.replace(asked, noised_BLP=x_BLP)

        return rowwise(local, batch, groups_BN, times_BN, x_BLP)

    def velocity(
        params: Any, x_BLP: jax.Array, batch: PackedBatch, groups: jax.Array, times: jax.Array, null: bool
    ) -> Any:
        asked = question(batch, groups, times, null, x_BLP)
        model = nnx.merge(graph, params)
        prediction = model(asked.noised_BLP, asked.times_BK, asked.time_index_BL, batch, asked.null_BN)
        kind, least = config.model.prediction, config.diffusion.least_time
        found = flow.velocity(prediction, x_BLP, asked.time_BL[..., None], kind, least)
        return found * asked.scored_BL[..., None]

    def start(batch: PackedBatch, groups_BN: jax.Array) -> jax.Array:
        """Noise where something is generated, the clean patch where it is given."""

        def local(batch: PackedBatch, groups_BN: jax.Array) -> jax.Array:
            keys_BN = randomness.example_keys(jax.random.key(0), batch.ids_BN2)
            size = batch.patches_BLP.shape[-1]
            noise = randomness.token_noise(keys_BN, corruption.example_of_slot(batch), batch.token_BL, size)
            shape = batch.grid_BN3.shape[:2]
            return corruption.ask(batch, jnp.ones(shape), groups_BN, jnp.zeros(shape, bool), noise, mean).noised_BLP

        return rowwise(local, batch, groups_BN)

    @functools.partial(jax.jit, static_argnames=("sampler", "guided"))
    def advance(
        params: Any,
        x_BLP: jax.Array,
        batch: PackedBatch,
        groups: jax.Array,
        now: jax.Array,
        after: jax.Array,
        scale: jax.Array,
        sampler: str,
        guided: bool,
    ) -> jax.Array:
        def field(x: jax.Array, times: jax.Array) -> jax.Array:
            conditional = velocity(params, x, batch, groups, times, False)
            if not guided:
                return conditional
            return guide(conditional, velocity(params, x, batch, groups, times, True), scale)

        def spread(values_BN: jax.Array) -> jax.Array:
            take = lambda v, segments: jnp.take_along_axis(v, jnp.maximum(segments - 1, 0), axis=1)[..., None]  # noqa: E731
            return rowwise(take, values_BN, batch.segments_BL)

        return sampler_step(sampler)(field, x_BLP, now, after, spread)

    return jax.jit(start), advance


def _programs(graph: Any, config: Config) -> tuple[Any, Any]:
    """The compiled programs, shared by runs that differ in data, optimiser or length only."""
    fixed = Config(model=config.model, diffusion=config.diffusion)
    return _programs_cached(graph, fixed)
