"""A small made-up study on disk, from a known law."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vdit.scaling.laws.law import Law

LAW = Law(A=3.0, B=55.0, E=0.09, alpha=0.33, beta=0.42)
BUDGETS, HELD_OUT = (1e12, 3.2e12, 1e13), 3.2e13
SIZES = (8e3, 2e4, 5e4, 1.25e5, 3e5)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def _result(name: str, kind: str, flops: float, params: float, noise: float) -> dict:
    tokens = flops / (6 * params)
    loss = float(LAW.loss(params, tokens)) * np.exp(noise)
    return {
        "run": name,
        "kind": kind,
        "width": 32,
        "depth": 4,
        "params": params,
        "params_total": params * 1.5,
        "tokens": tokens,
        "epochs": tokens / 1e6,
        "flops": flops,
        "flops_6nd": flops,
        "steps": 100,
        "loss": loss,
        "loss_interval": [0.98 * loss, 1.02 * loss],
        "velocity": {
            "in": {"mean": loss, "interval": [0.9 * loss, 1.1 * loss]},
            "out": {"mean": 0.6, "interval": [0.5, 0.7]},
        },
        "train_seconds": flops / 2e10,
    }


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    """make_study(budgets, held_out, extras): writes a RUNS_DIR with as much of a study as asked for."""

    def make(budgets: tuple[float, ...] = BUDGETS, held_out: bool = True, extras: bool = True) -> Path:
        root, rng = tmp_path / "study", np.random.default_rng(0)
        root.mkdir()
        about = {
            "title": "Balls & <film>",
            "budgets": BUDGETS,
            "sizes": SIZES,
            "held_out": HELD_OUT,
            "command": "make study",
            "tokens": "patches",
            "measures": {
                "velocity": {
                    "title": "velocity error",
                    "heading": "Does it learn the physics?",
                    "unit": "units/s",
                    "text": "of the balls in generated clips, against the simulator.",
                    "better": "lower",
                }
            },
            "samples": {
                "compute": {"heading": "The same seed at more compute"},
                "film": {"heading": "The film", "text": "Its validation shots are of the same film.", "smooth": True},
            },
            "limits": ["Sizes and budgets of a desktop CPU."],
        }
        for flops in budgets:
            for params in SIZES:
                name = f"c{flops:.1e}-n{params:.0e}"
                _write(root / "runs" / name / "result.json", _result(name, "grid", flops, params, rng.normal(0, 0.002)))
        if held_out:
            _write(root / "runs" / "big" / "result.json", _result("big", "heldout", HELD_OUT, 1.5e5, 0))
        if not extras:
            return root
        _write(root / "study.json", about)
        lines = [{"step": s, "loss": 1 / s, "flops": s * 1e9} for s in range(1, 400)] + [
            {"step": 400, "validation": {}}
        ]
        text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 401, "lo'
        (root / "runs" / "trunk").mkdir(parents=True)
        (root / "runs" / "trunk" / "metrics.jsonl").write_text(text)
        table = {"mean": 2.0, "histogram": {"edges": [1, 2, 3], "counts": [5, 7]}}
        for name in ("physics", "film"):
            _write(
                root / "data" / f"{name}.json",
                {
                    "source": name,
                    "licence": "CC BY 3.0",
                    "splits": {"train": 12, "val": 3},
                    "shapes": {"distinct_sizes": 4},
                    "examples": 12,
                    "rows": 3,
                    "slots": 6144,
                    "fill": 0.993,
                    "balance": 1.01,
                    "tokens_per_example": table,
                    "examples_per_row": table,
                },
            )
        _write(root / "floor.json", {"velocity_in": {"mean": 0.03}, "velocity_out": 0.02})
        samples = [
            {
                "group": group, "prompt": "a red <b>ball</b>", "label": f"{c}x", "compute": c * 1e12,
                "png": "p.png", "seed": 0, "row": 0, "column": i,
            }
            for group in ("compute", "film")
            for i, c in enumerate((1, 4, 32))
        ]  # fmt: skip
        samples[0] |= {"mp4": "v.mp4", "row": None, "column": None}
        samples[1] |= {"png": "gone.png"}
        _write(root / "samples" / "samples.json", samples)
        (root / "samples" / "p.png").write_bytes(base64.b64decode(PIXEL))
        (root / "samples" / "v.mp4").write_bytes(b"not really a video")
        return root

    return make
