"""What a build costs beside its decoding, and what it would take at scale.

    python -m benchmarks.build_scale [--only=engines,planning,petabyte] [--clips=2000] [--inputs=200000] [--keep]

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

from benchmarks import pages
from benchmarks.pages import Target
from data_pipelines.building.jobs.jobs import JOB_BYTES, MAX_JOBS
from data_pipelines.sources import film
from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

PARTS = ("engines", "planning", "petabyte")
INPUTS = 200_000
"""Tiny files that are planned."""

TARGETS = {
    "ray / local": Target(1.1, most=True),
    "same bytes": Target(1),
    "processor seconds": Target(30, most=True),
}

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


def plannings(inputs: int) -> dict[str, float]:
    """`planning` of so many, and the memory and jobs of a tenth as many."""
    few, many = planning(inputs // 10), planning(inputs)
    return {**many, f"MiB of {inputs // 10:,} inputs": few["MiB"]}


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
    processor, seconds, mebibytes, jobs = json.loads(done.stdout)
    return {"inputs": inputs, "processor seconds": processor, "seconds": seconds, "MiB": mebibytes, "jobs": jobs}


def plan(folder: str) -> None:
    """Plans the build from a folder; prints processor seconds, seconds, MiB above what the process had before, jobs."""
    from data_pipelines.building.jobs.jobs import plan_jobs
    from data_pipelines.building.jobs.listing import Listing
    from data_pipelines.media.clip import Options, digest
    from data_pipelines.media.signatures import sign
    from data_pipelines.sources.registry import find_source

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, started = time.process_time(), time.monotonic()
    listing = Listing(sign(find_source(folder).inputs(Options())))
    digest(listing)
    jobs = plan_jobs(listing, "folder")
    assert next(iter(jobs)).inputs
    seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([time.process_time() - began, seconds, (peak - before) / 1024, len(jobs)]))


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
    values = flags.FLAGS
    measures = {
        "engines": lambda: engines(values.clips),
        "planning": lambda: plannings(values.inputs),
        "petabyte": lambda: petabyte(values.processors),
    }
    if unknown := set(values.only) - set(PARTS):
        raise UserError(f"--only={','.join(sorted(unknown))} is unknown; choose from {', '.join(PARTS)}")
    for part in values.only:
        load = os.getloadavg()[0]
        text = pages.judged({**measures[part](), "load average before": load}, TARGETS)
        print(text, end="\n\n", flush=True)
        if values.keep:
            pages.put("data.md", f"python -m benchmarks.build_scale --only={part} --keep", text)


if __name__ == "__main__":
    flags.DEFINE_list("only", list(PARTS), "Parts to measure.")
    flags.DEFINE_integer("clips", 2000, "Clips of the build that both engines do.", 1)
    flags.DEFINE_integer("inputs", INPUTS, "Tiny files that are planned.", 10)
    flags.DEFINE_integer("processors", 1000, "Processors of the cluster that builds from a petabyte.")
    flags.DEFINE_bool("keep", False, "Write the tables into docs/data.md.")
    run_main(main)
