"""Sample videos of the report, in grids: a row for each prompt and seed, a column for each amount of compute."""

from __future__ import annotations

from typing import Any

from vdit.io import formatting
from vdit.render.pages import Gallery, Sample, data_uri
from vdit.scaling.reporting.analysis import Analysis


def groups(found: Analysis) -> list[str]:
    """Groups of samples: those that study.json announces, then any others in samples.json."""
    announced = found.study.about.get("samples")
    names = [*(announced if isinstance(announced, dict) else ()), *(s.get("group", "") for s in found.study.samples)]
    return [name for name in dict.fromkeys(map(str, names)) if name]


def gallery(found: Analysis, group: str, smooth: bool = False) -> Gallery | None:
    """The samples of a group of samples.json; None without any."""
    samples = [sample for sample in found.study.samples if str(sample.get("group", "")) == group]
    cells = {(s.get("row") or 0, i if s.get("column") is None else s["column"]): s for i, s in enumerate(samples)}
    if not cells:
        return None
    columns = sorted({column for _, column in cells}, key=_order)
    heads = [_head(next(s for (_, c), s in cells.items() if c == column)) for column in columns]
    rows = []
    for row in sorted({row for row, _ in cells}, key=_order):
        here = [cells.get((row, column)) for column in columns]
        first = next(sample for sample in here if sample)
        parts = (
            f"seed {first['seed']}" if "seed" in first else "",
            f"given: {first['given']}" if first.get("given") else "",
        )
        remark = ", ".join(part for part in parts if part)
        prompt = str(first.get("prompt") or first.get("caption") or "")
        rows.append((prompt, remark, [_sample(found, sample) if sample else None for sample in here]))
    return Gallery(heads, rows, smooth)


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then words by name."""
    number = isinstance(value, (int, float))
    return not number, float(value) if number else 0.0, str(value)


def _head(sample: dict[str, Any]) -> tuple[str, str]:
    compute = sample.get("compute")
    cost = f"{formatting.flops(compute)} FLOPs" if isinstance(compute, (int, float)) and compute > 0 else ""
    return str(sample.get("label", "")), cost


def _sample(found: Analysis, sample: dict[str, Any]) -> Sample:
    """A video, or a picture where there is none; neither where the files are missing."""
    folder, title = found.study.path / "samples", str(sample.get("caption", ""))
    for key, kind in (("mp4", "video/mp4"), ("png", "image/png")):
        file = folder / str(sample.get(key) or "")
        if file.is_file():
            address = data_uri(file.read_bytes(), kind)
            return Sample(video=address, title=title) if key == "mp4" else Sample(picture=address, title=title)
    return Sample(title=title)
