"""Which planted duplicates are found among the film's shots, what else is found, and how long a million hashes take.

    python -m benchmarks.duplicates [--data=DIR] [--many=1000000] [--embed] [--keep]

Every shot of at least 9 frames is planted five times: encoded again (x264, crf 35), scaled to two thirds, begun two
frames later, with a bright mark in a corner, and mirrored. A pair is right if both clips come from one shot. Recall is
the share of planted clips that are in the group of their shot; precision that of pairs that are right. --embed finds
duplicates by embeddings too, and plants each shot twice more, which is harder: cropped to four fifths of its
sides, and its second half alone.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from absl import flags

from benchmarks import pages
from benchmarks.pages import Target
from data_pipelines.building.curation.duplicates import find_duplicates
from data_pipelines.building.curation.embedding import Embedder, embedded_frames
from data_pipelines.media.hashing import BYTES, clip_hash
from data_pipelines.reading.store import Dataset
from vdit.command.run import no_arguments, run_main

DATA = flags.DEFINE_string("data", "", "Data set of the film's shots; it is built at 256 tokens if left out.")
MANY = flags.DEFINE_integer("many", 1_000_000, "Random hashes searched, one in a hundred planted; 0 = leave it out.")

EMBED = flags.DEFINE_bool("embed", False, "Embed the film's shots, too, and plant harder copies.")

KEEP = flags.DEFINE_bool("keep", False, "Write the tables into docs/curation.md.")

TARGETS = {
    "recall": Target(0.95),
    "precision": Target(0.99),
    "precision of these": Target(0.99),
    "processor seconds": Target(120, most=True),
    "GB at the peak": Target(2, most=True),
}

FEWEST = 9


def encoded_again(video_TYXC: np.ndarray) -> np.ndarray:
    """Through x264 at a low quality and back."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=Fraction(12), options={"crf": "35"})
        stream.height, stream.width = video_TYXC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in video_TYXC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def scaled(video_TYXC: np.ndarray) -> np.ndarray:
    """At two thirds of its size."""
    height, width = (side * 2 // 3 for side in video_TYXC.shape[1:3])
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in video_TYXC])


def marked(video_TYXC: np.ndarray) -> np.ndarray:
    """With a mark over a quarter of its width and an eighth of its height."""
    out = video_TYXC.copy()
    height, width = video_TYXC.shape[1:3]
    corner = out[:, -height // 8 - 2 : -2, -width // 4 - 2 : -2]
    corner[:] = corner // 2 + 120
    return out


PLANTED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "encoded again": encoded_again,
    "scaled": scaled,
    "two frames later": lambda video_TYXC: video_TYXC[2:],
    "marked": marked,
    "mirrored": lambda video_TYXC: np.ascontiguousarray(video_TYXC[:, :, ::-1]),
}


def cropped(video_TYXC: np.ndarray) -> np.ndarray:
    """The middle four fifths of its sides."""
    height, width = video_TYXC.shape[1:3]
    y, x = height // 10, width // 10
    return np.ascontiguousarray(video_TYXC[:, y : height - y, x : width - x])


PLANTED_HARDER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cropped": cropped,
    "second half": lambda video_TYXC: video_TYXC[len(video_TYXC) // 2 :],
}


def film(directory: str, embed: bool) -> dict[str, float]:
    """Recall of each kind of planted clip, and precision, on the shots of a data set."""
    dataset = Dataset(directory)
    clips = [dataset.read_clip(split, i).video_TYXC for split in dataset.splits for i in range(dataset.size(split))]
    clips = [clip for clip in clips if len(clip) >= FEWEST]
    changes = {"": lambda video_TYXC: video_TYXC} | PLANTED | (PLANTED_HARDER if embed else {})
    hashes, frames = [], []
    for change in changes.values():
        for video_TYXC in map(change, clips):
            hashes.append(clip_hash(video_TYXC))
            frames += [embedded_frames(video_TYXC)] if embed else []
    names, embeddings = list(changes), Embedder()(frames) if embed else None
    return figures_of(names, len(clips), np.stack(hashes), embeddings)


def figures_of(names: list[str], shots: int, hashes: np.ndarray, embeddings: np.ndarray | None) -> dict[str, float]:
    """Recall and precision of clips that are given change by change, the unchanged ones first, and in each by shot."""
    usable = np.ones(len(hashes), bool)
    shot = np.tile(np.arange(shots), len(names))
    found = find_duplicates(hashes, usable, embeddings)
    right = shot[found.pairs_P2[:, 0]] == shot[found.pairs_P2[:, 1]]
    group = found.group_N.reshape(len(names), shots)
    recalls = {f"recall, {kind}": float((group[n] == group[0]).mean()) for n, kind in enumerate(names) if kind}
    wrong = {tuple(sorted(pair)) for pair in shot[found.pairs_P2[~right]].tolist()}
    figures = {
        "shots": shots,
        **recalls,
        "recall": float((group[1 : 1 + len(PLANTED)] == group[0]).mean()),
        "precision": float(right.mean()),
        "pairs of other shots": len(wrong),
    }
    if embeddings is not None:
        known = set(map(tuple, find_duplicates(hashes, usable).pairs_P2.tolist()))
        added = np.array([tuple(pair) not in known for pair in found.pairs_P2.tolist()])
        figures |= {"pairs that embeddings add": int(added.sum()), "precision of these": float(right[added].mean())}
    return figures


def many(count: int) -> dict[str, float]:
    """Search of many hashes in a process of its own."""
    code = f"from benchmarks.duplicates import search; search({count})"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def search(count: int) -> None:
    """Prints what the search of random hashes, of which one in a hundred is planted, takes and finds."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (count, BYTES), np.uint8)
    planted = np.arange(count - count // 100, count)
    origin = rng.integers(0, count // 2, len(planted))
    flips = rng.random((len(planted), BYTES * 8)) < rng.uniform(0, 0.1, (len(planted), 1))
    hashes[planted] = hashes[origin] ^ np.packbits(flips, axis=1)
    began, started = time.process_time(), time.monotonic()
    found = find_duplicates(hashes, np.ones(count, bool))
    figures = {
        "hashes": count,
        "processor seconds": time.process_time() - began,
        "seconds": time.monotonic() - started,
        "GB at the peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "found of the planted": float((found.group_N[planted] == found.group_N[origin]).mean()),
    }
    print(json.dumps(figures))


def main(argv: list[str]) -> None:
    """Measures and prints."""
    no_arguments(argv)
    with tempfile.TemporaryDirectory() as folder:
        directory = DATA.value or str(Path(folder) / "film")
        if not DATA.value:
            options = ("--source=film", "--max_tokens=256", "--text_encoder=none", f"--out={directory}")
            command = [sys.executable, "-m", "data_pipelines.build", *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        keep("python -m benchmarks.duplicates --embed --keep", film(directory, EMBED.value), KEEP.value and EMBED.value)
    if MANY.value:
        keep("python -m benchmarks.duplicates --keep", many(MANY.value), KEEP.value)


def keep(command: str, figures: dict[str, float], write: bool) -> None:
    """Prints figures, and writes them into the page."""
    text = pages.judged(figures, TARGETS)
    print(text, end="\n\n", flush=True)
    if write:
        pages.put("curation.md", command, text)


if __name__ == "__main__":
    run_main(main)
