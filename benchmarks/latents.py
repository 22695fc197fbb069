"""What an autoencoder costs and keeps.

    python -m benchmarks.latents quality --workdir=runs/vae --data=data/film-vae [--strip=strip.png]
    python -m benchmarks.latents memory  --workdir=runs/vae
    python -m benchmarks.latents speed        # in the environment of `make parity`: beside PyTorch

"quality" reconstructs held-out clips, beside as many principal components of the patches and beside H.264 at no more
bytes than the latents take in bfloat16; psnr is the mean over all frames of each
frame's. "memory" streams clips of 16 and 160 frames through the decoder, each in a
process of its own. "speed" encodes and decodes one clip with the Wan autoencoder here and in diffusers, same weights.
Results are kept in benchmarks/latents.json.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import ml_dtypes
import numpy as np
from absl import flags
from PIL import Image

from vdit.command.run import run_main
from vdit.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", "", "Workdir of a finished autoencoder run, or an autoencoder's name.")
DATA = flags.DEFINE_list("data", [], "Data sets of pixels; components are those of the first.")
SPLIT = flags.DEFINE_string("split", "val", "Split to reconstruct.")
CLIPS = flags.DEFINE_integer("clips", 0, "First clips only; 0 = all.")
STRIP = flags.DEFINE_string("strip", "", "PNG of originals above reconstructions.")
FRAMES = flags.DEFINE_integer("frames", 0, "Of `memory` in its own process.")
WIDTH = flags.DEFINE_integer("width", 32, "Channels at full size of the Wan autoencoder of `speed` (published: 96).")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of `speed`, of which the fastest counts.")

RESULTS = Path(__file__).with_suffix(".json")

SIDE = 128
"""Rows and columns of the frames of `memory` and `speed`."""


def load(name: str) -> Any:
    """The autoencoder of a workdir or name."""
    from vdit.models.autoencoders.registry import load_autoencoder

    if not name:
        raise UserError("--workdir=W is needed: the workdir of a finished autoencoder run")
    return load_autoencoder(name if ":" in name else f"causal_vae:{name}")


def quality(name: str, paths: list[str], split: str, limit: int, strip: str) -> dict[str, Any]:
    """Measures (see `compare`) of the autoencoder, of principal components and of H.264, over all clips and by size."""
    from data_pipelines.reading.components import principal_components
    from data_pipelines.reading.store import Dataset
    from vdit.evaluation.reconstruction import compare
    from vdit.models.features.efficientnet import load_features
    from vdit.patches import Patch, patchify, unpatchify

    if not paths:
        raise UserError("--data=D is needed: data sets of pixels, separated by commas")
    autoencoder, datasets, features = load(name), [Dataset(path) for path in paths], load_features()
    patch = Patch(*autoencoder.strides)
    basis = principal_components(datasets[0], "train", patch, autoencoder.channels)

    def components(video_TYXC: np.ndarray) -> np.ndarray:
        found = basis.reconstruct(patchify(video_TYXC, patch).astype(np.float32) / 127.5 - 1)
        pixels = np.clip(np.rint((found + 1) * 127.5), 0, 255)
        return unpatchify(pixels, patch.grid(*video_TYXC.shape[:3]), patch).astype(np.uint8)

    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    latent_bytes = h264_bytes = 0
    for dataset in datasets:
        for i in range(min(limit or dataset.size(split), dataset.size(split))):
            clip = dataset.read_clip(split, i)
            true_TYXC = np.asarray(clip.video_TYXC)
            latents_TYXC = autoencoder.encode(true_TYXC).astype(ml_dtypes.bfloat16)  # as they are stored
            compressed, used = h264(true_TYXC, clip.fps, latents_TYXC.nbytes)
            latent_bytes, h264_bytes = latent_bytes + latents_TYXC.nbytes, h264_bytes + used
            pairs["autoencoder"].append((autoencoder.decode(latents_TYXC.astype(np.float32)), true_TYXC))
            pairs["components"].append((components(true_TYXC), true_TYXC))
            pairs["h264"].append((compressed, true_TYXC))
    if strip:
        write_strip(strip, pairs["autoencoder"])
    measures = {kind: compare(of_kind, features) for kind, of_kind in pairs.items()}
    return {"latent_bytes": latent_bytes, "h264_bytes": h264_bytes, **measures}


def write_strip(path: str, pairs: list[tuple[np.ndarray, np.ndarray]], columns: int = 4) -> None:
    """Original frames above what became of them: the middle frames of clips of the size that most have."""
    sizes = [true_TYXC.shape[1:] for _, true_TYXC in pairs]
    common = max(sizes, key=sizes.count)
    chosen = [pair for pair, size in zip(pairs, sizes, strict=True) if size == common]
    chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(columns, len(chosen))).astype(int)]
    rows = [np.concatenate([pair[kind][len(pair[kind]) // 2] for pair in chosen], 1) for kind in (1, 0)]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def h264(video_TYXC: np.ndarray, fps: float, budget: int) -> tuple[np.ndarray, int]:
    """(the clip as H.264 gives it back, bytes): the best quality factor that takes at most `budget` bytes."""
    low, high = 0, 51
    best: tuple[np.ndarray, int] | None = None
    while low <= high:
        middle = (low + high) // 2
        data = _encode_h264(video_TYXC, fps, middle)
        if len(data) <= budget:
            best, high = (_decode(data), len(data)), middle - 1
        else:
            low = middle + 1
    if best is None:
        raise UserError(f"H.264 cannot make {len(video_TYXC)} frames fit {budget} bytes")
    return best


def _encode_h264(video_TYXC: np.ndarray, fps: float, factor: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = video_TYXC.shape[1:3]
        stream.pix_fmt, stream.options = "yuv444p", {"crf": str(factor), "preset": "slow"}
        for frame in video_TYXC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _decode(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data), format="h264") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def memory(name: str) -> dict[str, float]:
    """Peak memory (MiB) of streaming decodes of 16 and 160 frames, and their ratio."""
    found = {}
    for frames in (16, 160):
        command = [sys.executable, "-m", "benchmarks.latents", "memory", f"--workdir={name}", f"--frames={frames}"]
        found[frames] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {**{f"mib_{frames}_frames": value for frames, value in found.items()}, "ratio": found[160] / found[16]}


def stream(name: str, frames: int) -> float:
    """Decodes so many frames chunk by chunk; the peak memory of this process in MiB."""
    autoencoder = load(name)
    time_, height, width = autoencoder.strides
    shape = (1, SIDE // height, SIDE // width, autoencoder.channels)
    pieces = (np.zeros(shape, np.float32) for _ in range(frames // time_))
    seen = sum(len(part) for part in autoencoder.decode_stream(pieces, chunk=1))
    assert seen == 1 + (frames // time_ - 1) * time_
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speed(width: int, rounds: int) -> dict[str, float]:
    """Seconds of the Wan autoencoder here and in diffusers on random weights, and how many times as fast ours is."""
    try:
        import torch
        from diffusers import AutoencoderKLWan
    except ImportError as error:
        raise UserError(f"`speed` compares with PyTorch ({error}); run it with .venv-parity/bin/python") from error
    from vdit.models.autoencoders.wan_vae import load_wan_vae

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        theirs = AutoencoderKLWan(base_dim=width).eval()
        theirs.save_pretrained(folder)
        ours = load_wan_vae(folder)
    video = np.random.default_rng(0).integers(0, 256, (17, SIDE, SIDE, 3), np.uint8)
    tensor = torch.from_numpy(np.moveaxis(video, -1, 0)[None].astype(np.float32) / 127.5 - 1)
    latents = ours.encode(video)
    with torch.no_grad():
        encoded = theirs.encode(tensor).latent_dist.mode()
        found = {
            "encode": (lambda: ours.encode(video), lambda: theirs.encode(tensor)),
            "decode": (lambda: ours.decode(latents), lambda: theirs.decode(encoded)),
        }
        out: dict[str, float] = {}
        for kind, (mine, other) in found.items():
            mine_seconds, other_seconds = _fastest(mine, rounds), _fastest(other, rounds)
            out |= {f"{kind}_seconds": mine_seconds, f"{kind}_torch_seconds": other_seconds}
            out[f"{kind}_ratio"] = other_seconds / mine_seconds
    return out


def _fastest(function: Callable[[], Any], rounds: int) -> float:
    function()  # compiles
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def record(kind: str, result: Any) -> None:
    """Keeps a result beside those of the other kinds."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kept[kind] = {"command": " ".join(["python -m benchmarks.latents", *sys.argv[1:]]), **result}
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main(argv: list[str]) -> None:
    kind = argv[1] if len(argv) == 2 else ""
    if kind == "memory" and FRAMES.value:
        print(stream(WORKDIR.value, FRAMES.value))
        return
    if kind == "quality":
        result: Any = quality(WORKDIR.value, DATA.value, SPLIT.value, CLIPS.value, STRIP.value)
    elif kind == "memory":
        result = memory(WORKDIR.value)
    elif kind == "speed":
        result = speed(WIDTH.value, ROUNDS.value)
    else:
        raise UserError("say what to measure: python -m benchmarks.latents quality, memory or speed")
    record(kind, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
