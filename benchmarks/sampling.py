"""Sampling a mix of sizes: packed into rows by one program, against one program for each size.

`python -m benchmarks.sampling` takes 16 requests of 8 sizes and times both ways by turns, with compilation and without.
The other way packs nothing: two requests of one size lie in two rows of exactly their length. Several mixes are drawn
from the physics clips' sizes, since it is chance how well so few requests fill whole rows. The last column compares
processor time, which other jobs on the machine disturb less. Fill is the share of the slots, over all evaluations,
that hold tokens.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

WIDTH = flags.DEFINE_integer("width", 64, "Model width; 64 is the study's largest run.")
STEPS = flags.DEFINE_integer("steps", 20, "Denoising steps, of DPM-Solver++ with guidance.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that each way is timed without compilation.")
MIXES = flags.DEFINE_integer("mixes", 4, "Mixes of sizes that are drawn.")
JSON = flags.DEFINE_bool("json", False, "Print JSON.")

WORDS = 14
"""Caption tokens: a caption of a physics clip has about so many."""


def main(argv: Sequence[str]) -> None:
    del argv
    from vdit.parallel.runtime import initialise

    initialise(2, cache=False)
    make = generator_maker(WIDTH.value)
    results = [measure(make, seed) for seed in range(MIXES.value)]
    if JSON.value:
        print(json.dumps(results))
        return
    print(
        f"16 requests of 8 sizes, {STEPS.value} steps, width {WIDTH.value}; seconds, and packed over one program a size"
    )
    print("mix   fill   packed first  a size first   times   packed  a size   times   of the processor's time")
    for seed, result in enumerate(results):
        first, rest = result["seconds_with_compilation"], result["seconds"]
        print(
            f"{seed:<5} {result['fill']:.2f} {first['packed']:12.2f} {first['per size']:13.2f} "
            f"{result['speedup_with_compilation']:8.2f} {rest['packed']:8.2f} {rest['per size']:7.2f} "
            f"{result['speedup']:7.2f} {result['processor_speedup']:26.2f}"
        )


def measure(make: Callable[..., Any], seed: int) -> dict[str, Any]:
    """Both ways on one mix; the packed program is compiled anew for each."""
    import jax

    from vdit.generation import programs

    programs._programs.cache_clear()
    jax.clear_caches()
    requests = mix(seed)
    ways: dict[str, Callable[[], list[Any]]] = {"packed": packed(make, requests), "per size": per_size(make, requests)}
    first = {name: timed(way)[0] for name, way in ways.items()}
    rest: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS.value):
        for name, way in ways.items():
            rest[name].append(timed(way))
    warm, processor = ({name: statistics.median(t[i] for t in times) for name, times in rest.items()} for i in (0, 1))
    calls = evaluations(make(None, 0), requests[:1])
    slots = 2 * make(None, 0).config.data.row_tokens * evaluations(make(None, 0), requests)
    return {
        "fill": calls * sum(tokens_of(request) for request in requests) / slots,
        "seconds_with_compilation": first,
        "seconds": warm,
        "processor_seconds": processor,
        "speedup_with_compilation": first["per size"] / first["packed"],
        "speedup": warm["per size"] / warm["packed"],
        "processor_speedup": processor["per size"] / processor["packed"],
    }


def evaluations(generator: Any, requests: Sequence[Any]) -> int:
    """Evaluations of all devices together that the requests take."""
    seen = []
    generator.generate(requests, progress=lambda _, total: seen.append(total), **settings())
    return seen[0]


def mix(seed: int) -> list[Any]:
    """Two requests of each of 8 sizes of the physics clips."""
    import numpy as np

    from data_pipelines.sources.physics.clips import FULL
    from vdit.generation import Request

    rng = np.random.default_rng(seed)
    sizes: dict[tuple[int, int, int], None] = {}
    while len(sizes) < 8:
        sizes[int(rng.choice(FULL.frames)), int(rng.choice(FULL.sides)), int(rng.choice(FULL.sides))] = None
    return [
        Request(rng.normal(size=(WORDS, 384)).astype(np.float32), *size, FULL.fps, 2 * i + copy)
        for i, size in enumerate(sizes)
        for copy in range(2)
    ]


def tokens_of(request: Any) -> int:
    """Slots of a request."""
    from vdit.patches import Patch

    return Patch().grid(request.frames, request.height, request.width).tokens + WORDS


def timed(way: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that it takes, and of the processor."""
    start, processor = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - start, time.process_time() - processor


def settings() -> dict[str, Any]:
    """How the requests are denoised."""
    return {"steps": STEPS.value, "sampler": "dpm++", "guidance": 1.5}


def generator_maker(width: int) -> Callable[[int | None, int], Any]:
    """A function that makes a generator with rows of the study's length, or of another, from the same parameters."""
    import dataclasses

    import jax

    from configs import study
    from vdit.config import Config
    from vdit.config_dict import build
    from vdit.data import Interface
    from vdit.generation import Generator
    from vdit.parallel.mesh import make_mesh, use_mesh
    from vdit.patches import Patch
    from vdit.training.step import init_state

    values = study.get_config().base.to_dict()
    config = build({**values, "model": {"width": width, "depth": 2, "head_width": 32}}, Config)
    mesh, patch = make_mesh(config.mesh, jax.devices()[:2]), Patch()
    with use_mesh(mesh):
        graph, state = init_state(config, Interface(patch.size(3), 384))

    def make(row_tokens: int | None, examples: int) -> Any:
        data = config.data
        if row_tokens:
            data = dataclasses.replace(data, row_tokens=row_tokens, row_examples=examples, row_text=WORDS)
        return Generator(graph, state.params, dataclasses.replace(config, data=data), mesh, patch, 3)

    return make


def packed(make: Callable[..., Any], requests: Sequence[Any]) -> Callable[[], list[Any]]:
    """All requests in rows of the study's length."""
    generator = make(None, 0)
    return lambda: generator.generate(requests, **settings())


def per_size(make: Callable[..., Any], requests: Sequence[Any]) -> Callable[[], list[Any]]:
    """The requests of each size in rows of just its length, one request a row."""
    groups: dict[tuple[int, int, int], list[Any]] = {}
    for request in requests:
        groups.setdefault((request.frames, request.height, request.width), []).append(request)
    generators = {}
    for size in groups:
        generators[size] = make(tokens_of(groups[size][0]), 1)
    return lambda: [video for size, own in groups.items() for video in generators[size].generate(own, **settings())]


if __name__ == "__main__":
    app.run(main)
