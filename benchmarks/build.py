"""How fast data sets are built, per core, beside bare decoding; and how much memory an hours-long file takes.

    python -m benchmarks.build [--video=FILE] [--tokens=45,256,1024] [--long_minutes=120] [--json] [--keep]

All rates are frames per second of processor time, of all processes together. "bare" decodes the same file with PyAV in
one thread and scales every frame with `frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()`;
"bare, one scaler" keeps one scaler for all frames, which is faster. "build" is the whole command, its start included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from absl import flags
from av.video.reformatter import VideoReformatter

from benchmarks import pages
from data_pipelines.media.sizes import fit_size
from data_pipelines.sources import film
from vdit.command.run import no_arguments, run_main
from vdit.patches import Patch

VIDEO = flags.DEFINE_string("video", "", "file to build from; the film if left out")
TOKENS = flags.DEFINE_list("tokens", ["45", "256", "1024"], "values of --max_tokens")
LONG_MINUTES = flags.DEFINE_integer("long_minutes", 120, "length of the long file; 0 = leave it out")
JSON = flags.DEFINE_bool("json", False, "print JSON")
KEEP = flags.DEFINE_bool("keep", False, "write the table into docs/data.md")

LEAST = pages.Target(0.6)
"""Share of bare decoding that a build of 256 tokens is to reach."""

COMMAND = "python -m benchmarks.build --long_minutes=0 --keep"

LONG_SIZE, LONG_RATE = (96, 160), 24


def bare(path: Path, height: int, width: int, one_scaler: bool) -> tuple[int, float]:
    """Frames, and seconds of processor time, to decode and scale a file."""
    scaler = VideoReformatter()
    started, frames = time.process_time(), 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            if one_scaler:
                frame = scaler.reformat(frame, width, height, "rgb24", interpolation="AREA", threads=1)
            else:
                frame = frame.reformat(width, height, "rgb24", interpolation="AREA", threads=1)
            frame.to_ndarray()
            frames += 1
    return frames, time.process_time() - started


def build(folder: Path, out: Path, *options: str) -> tuple[float, float, float]:
    """(seconds of processor time, seconds, MiB of the largest process) of a build."""
    command = [
        sys.executable,
        "-m",
        "data_pipelines.build",
        f"--source={folder}",
        f"--out={out}",
        "--text_encoder=none",
    ]
    # In a process of its own, whose only child the build is.
    code = (
        "import json, resource, subprocess, sys, time\n"
        "started = time.monotonic()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss / 1024]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command, *options], check=True, capture_output=True, text=True)
    cpu, wall, peak = json.loads(done.stdout)
    return cpu, wall, peak


def compare(path: Path, tokens: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Bare decoding and building of the same file at one token limit."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        height, width = fit_size(context.height, context.width, Patch(), tokens)
    row: dict[str, Any] = {"tokens": tokens, "size": f"{width}x{height}"}
    for name, one_scaler in (("bare", False), ("bare, one scaler", True)):
        report(f"{tokens} tokens, {name}")
        frames, seconds = bare(path, height, width, one_scaler)
        row[name] = frames / seconds
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        (Path(folder) / "in" / path.name).symlink_to(path.resolve())
        report(f"{tokens} tokens, build")
        seconds, _, peak = build(Path(folder) / "in", Path(folder) / "out", f"--max_tokens={tokens}", "--workers=1")
    row |= {"build": frames / seconds, "peak_mib": peak}
    row |= {"over bare": row["build"] / row["bare"], "over bare, one scaler": row["build"] / row["bare, one scaler"]}
    return row


def write_long(path: Path, minutes: int) -> int:
    """Writes a file of so many minutes, one of them encoded and repeated; its number of frames."""
    height, width = LONG_SIZE
    y, x = np.mgrid[:height, :width]
    minute = LONG_RATE * 60
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "bf": "0"}
        stream = container.add_stream("libx264", rate=Fraction(LONG_RATE), options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        packets = []
        for i in range(minute):
            picture = np.stack([(x + i) % 256, (2 * y + i // 2) % 256, np.full_like(x, i % 256)], -1).astype(np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24"))
        packets += stream.encode()
        payload = [(bytes(packet), packet.is_keyframe) for packet in packets]
        for number in range(minutes * minute):
            data, is_key = payload[number % minute]
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, LONG_RATE)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, is_key
            container.mux(packet)
    return minutes * minute


def long_file(minutes: int) -> dict[str, Any]:
    """Building from a long file and from one a tenth as long."""
    found: dict[str, Any] = {"minutes": minutes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, length in (("a tenth", max(1, minutes // 10)), ("all", minutes)):
            (folder / key).mkdir()
            frames = write_long(folder / key / "long.mp4", length)
            cpu, wall, peak = build(folder / key, folder / f"out {key}", "--workers=2", "--max_frames=121")
            found[key] = {"frames": frames, "frames_per_cpu_second": frames / cpu, "seconds": wall, "peak_mib": peak}
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rates as Markdown, with the target of 256 tokens."""
    head = ("tokens", "size", "bare", "bare, one scaler", "build", "build / bare", "build / one scaler", "peak MiB", "")
    return pages.table(
        head,
        [
            (
                str(row["tokens"]),
                row["size"],
                *(f"{row[name]:.0f}" for name in ("bare", "bare, one scaler", "build")),
                f"{row['over bare']:.2f}",
                f"{row['over bare, one scaler']:.2f}",
                f"{row['peak_mib']:.0f}",
                LEAST.verdict(row["over bare"]) if row["tokens"] == 256 else "",
            )
            for row in rows
        ],
        words=(8,),
    )


def main(argv: list[str]) -> None:
    """Measures and prints."""
    no_arguments(argv)
    path = Path(VIDEO.value) if VIDEO.value else film.film_path("")
    report = lambda text: print(text, "...", file=sys.stderr, flush=True)  # noqa: E731
    rows = [compare(path, int(tokens), report) for tokens in TOKENS.value]
    text = f"{path.name}, frames per second of processor time:\n\n{table(rows)}"
    show = (lambda _: None) if JSON.value else (lambda text: print(text, flush=True))
    show(text)
    if KEEP.value:
        pages.put("data.md", COMMAND, text)
    long = None
    if LONG_MINUTES.value:
        report("long file")
        long = long_file(LONG_MINUTES.value)
        for key in ("a tenth", "all"):
            each = long[key]
            show(
                f"\nlong file, {key} of {long['minutes']} minutes: {each['frames']} frames in {each['seconds']:.0f} s, "
                f"largest process {each['peak_mib']:.0f} MiB"
            )
    if JSON.value:
        print(json.dumps({"video": path.name, "rows": rows, "long": long}))


if __name__ == "__main__":
    run_main(main)
