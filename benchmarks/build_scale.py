"""What a build costs beside its decoding, and what it would take at scale.

    python -m benchmarks.build_scale [--clips=2000] [--inputs=200000] [--nopetabyte]

* Processor time of the same build (`--clips` files of one second of 640x360, at 256 tokens a frame) by the local engine
  and by a Ray on this machine, all processes together, and whether both give the same bytes; and of a Ray that is
  started and ended without a build, which every build with `--engine=ray` on one machine pays once.
* Seconds and memory of listing, signing and planning `--inputs` tiny files until the first job can begin, and of a
  tenth as many.
* A petabyte of video, computed: processor hours, bytes and jobs, from rates measured on the film at 256 tokens a frame.
"""

from __future__ import annotations

import filecmp
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from absl import flags

from data_pipelines.building.jobs import JOB_BYTES, MAX_JOBS
from data_pipelines.sources import film
from vdit.command.run import no_arguments, run_main

CLIPS = flags.DEFINE_integer("clips", 2000, "Clips of the build that both engines do; 0 = leave it out.")
INPUTS = flags.DEFINE_integer("inputs", 200_000, "Tiny files that are planned; 0 = leave it out.")
PETABYTE = flags.DEFINE_bool("petabyte", True, "Compute what a petabyte would take.")
WORKERS = flags.DEFINE_integer("processors", 1000, "Processors of the cluster that builds from a petabyte.")

TOKENS = 256

DISTINCT, FRAMES = 16, 24
"""Files of the engines' build that are different, and frames of each."""

_RAY_ALONE = """
from data_pipelines.building.engines.isolation import Limits
from data_pipelines.building.engines.ray_engine import RayEngine
engine = RayEngine("local", Limits(1.0), ("none", "pixels", "", ""))
list(engine.run(None, []))
engine.close()
"""

_MEASURED = """
import ctypes, json, os, resource, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what is left behind becomes a child of this process
started = time.monotonic()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
wall = time.monotonic() - started
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, used.ru_utime + used.ru_stime, wall]))
"""


def measured(*command: str) -> tuple[float, float]:
    """(seconds of processor time of all its processes, seconds) of a command.

    Raises:
      RuntimeError: if it fails.
    """
    done = subprocess.run([sys.executable, "-c", _MEASURED, *command], check=True, stdout=subprocess.PIPE, text=True)
    status, processor, wall = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return processor, wall


def build(*options: str) -> tuple[float, float]:
    """As `measured`, of a build without captions."""
    return measured(sys.executable, "-m", "data_pipelines.build", "--text_encoder=none", *options)


def write_clips(folder: Path, count: int) -> None:
    """Files of one second each, `DISTINCT` of them different, the others links to those."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:360, :640]
    for number in range(min(count, DISTINCT)):
        with av.open(str(folder / f"{number:05d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(24), options={"preset": "veryfast"})
            stream.height, stream.width, stream.pix_fmt = 360, 640, "yuv420p"
            speeds = rng.integers(1, 6, 3)
            for t in range(FRAMES):
                planes = [(speed * (x + 2 * t) // 3 + y * (1 + c)) % 256 for c, speed in enumerate(speeds)]
                frame = np.stack(planes, -1) + rng.integers(-20, 20, (360, 640, 3))
                picture = av.VideoFrame.from_ndarray(frame.clip(0, 255).astype(np.uint8), "rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    for number in range(DISTINCT, count):
        os.link(folder / f"{number % DISTINCT:05d}.mp4", folder / f"{number:05d}.mp4")


def engines(clips: int) -> dict[str, Any]:
    """Processor seconds of each engine for the same data set."""
    found: dict[str, Any] = {"clips": clips}
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "in").mkdir()
        write_clips(Path(name) / "in", clips)
        for engine in ("local", "ray"):
            options = (f"--source={name}/in", f"--max_tokens={TOKENS}", f"--engine={engine}", f"--out={name}/{engine}")
            found[engine], found[f"{engine}, seconds"] = build(*options)
        names = sorted(os.listdir(f"{name}/local"))
        same, _, _ = filecmp.cmpfiles(f"{name}/local", f"{name}/ray", names, shallow=False)
        found["same bytes"] = sorted(same) == names == sorted(os.listdir(f"{name}/ray"))
    alone, _ = measured(sys.executable, "-c", _RAY_ALONE)
    return {
        **found,
        "ray / local": found["ray"] / found["local"],
        "ray alone": alone,
        "ray without that / local": (found["ray"] - alone) / found["local"],
    }


def planning(inputs: int) -> dict[str, float]:
    """Seconds and MiB until the first job of a build from so many tiny files can begin, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(inputs):
            folder = Path(name) / f"{number // 1000:04d}"
            if number % 1000 == 0:
                folder.mkdir()
            (folder / f"{number:07d}.png").write_bytes(number.to_bytes(8, "big"))
        code = f"from benchmarks.build_scale import plan; plan({name!r})"
        done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    seconds, mebibytes, jobs = json.loads(done.stdout)
    return {"inputs": inputs, "seconds": seconds, "MiB": mebibytes, "jobs": jobs}


def plan(folder: str) -> None:
    """Plans the build from a folder; prints seconds, MiB above what the process had before, and the number of jobs."""
    from data_pipelines.building.jobs import plan_jobs
    from data_pipelines.building.listing import Listing
    from data_pipelines.media.clip import Options, digest
    from data_pipelines.media.signatures import sign
    from data_pipelines.sources.registry import find_source

    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    listing = Listing(sign(find_source(folder).inputs(Options())))
    digest(listing)
    jobs = plan_jobs(listing, "folder")
    assert next(iter(jobs)).inputs
    seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, (peak - before) / 1024, len(jobs)]))


def petabyte(processors: int) -> dict[str, float]:
    """What building from 10^15 bytes of video like the film takes, from a build of the film at `TOKENS` a frame."""
    path = film.film_path("")
    with av.open(str(path)) as container:
        frames = container.streams.video[0].frames
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "in").mkdir()
        (Path(name) / "in" / path.name).symlink_to(path.resolve())
        seconds, _ = build(f"--source={name}/in", f"--out={name}/out", f"--max_tokens={TOKENS}", "--workers=1")
        stored = sum(file.stat().st_size for file in Path(name, "out").iterdir())
    size = path.stat().st_size
    hours = 1e15 / size * seconds / 3600
    job = max(JOB_BYTES, 1e15 / MAX_JOBS)
    return {
        "frames per processor second": frames / seconds,
        "bytes per frame, file": size / frames,
        "bytes per frame, stored": stored / frames,
        "processor hours": hours,
        "processors": processors,
        "days": hours / processors / 24,
        "MB/s read by all": 1e15 / (hours / processors * 3600) / 1e6,
        "petabytes stored": stored / size,
        "jobs": 1e15 / job,
        "GB of a job": job / 1e9,
        "hours of a job": job / 1e15 * hours,
        "GB of a shard": job * stored / size / 1e9,
    }


def main(argv: list[str]) -> None:
    """Measures and prints."""
    no_arguments(argv)
    parts = [lambda: engines(CLIPS.value)] if CLIPS.value else []
    parts += [lambda: planning(INPUTS.value // 10), lambda: planning(INPUTS.value)] if INPUTS.value else []
    parts += [lambda: petabyte(WORKERS.value)] if PETABYTE.value else []
    for part in parts:
        for name, value in part().items():
            print(f"{name:<30} {value if isinstance(value, bool) else format(value, ',.4g'):>14}", flush=True)
        print(flush=True)


if __name__ == "__main__":
    run_main(main)
