"""Sample videos of the report, in a grid: a row for each prompt and seed, a column for each amount of compute."""

from __future__ import annotations

from html import escape
from typing import Any

from vdit.io import formatting
from vdit.scaling.reporting.page import PENDING, Page, data_uri


def gallery(page: Page, *groups: str) -> str:
    """The samples of these groups of samples.json, a grid for each group."""
    found = page.found.study.samples
    shown = "".join(_sample_grid(page, [s for s in found if s.get("group") == group], group) for group in groups)
    return (shown + page.made("samples/samples.json")) if shown else PENDING


def _sample_grid(page: Page, samples: list[dict[str, Any]], group: str) -> str:
    """Samples by row (a prompt and seed) and column (compute), at least those that exist."""
    cells = {(s.get("row") or 0, i if s.get("column") is None else s["column"]): s for i, s in enumerate(samples)}
    if not cells:
        return ""
    columns = sorted({column for _, column in cells})
    lines = [_column_head(next(s for (_, c), s in cells.items() if c == column)) for column in columns]
    for row in sorted({row for row, _ in cells}):
        here = [cells.get((row, column)) for column in columns]
        first = next(s for s in here if s)
        remark = ", ".join(
            str(part)
            for part in (
                f"seed {first['seed']}" if "seed" in first else "",
                first.get("given") and f"given: {first['given']}",
            )
            if part
        )
        lines.append(
            f'<p class="prompt">{escape(str(first.get("prompt") or first.get("caption") or ""))}'
            f" <span>{escape(remark)}</span></p>"
        )
        lines += [_medium(page, s) if s else "<figure></figure>" for s in here]
    width = min(15 * len(columns), 74)
    style = f"grid-template-columns: repeat({len(columns)}, minmax(5.5rem, 1fr)); max-width: {width}rem"
    return f'<div class="samples wide {escape(group)}" style="{style}">{"".join(lines)}</div>'


def _column_head(sample: dict[str, Any]) -> str:
    compute = sample.get("compute")
    cost = f"{formatting.flops(compute)} FLOPs" if isinstance(compute, (int, float)) and compute > 0 else ""
    return f'<div class="head"><b>{escape(str(sample.get("label", "")))}</b>{cost}</div>'


def _medium(page: Page, sample: dict[str, Any]) -> str:
    """A video, or a picture where there is none, as a data URI; a note where the file is missing."""
    folder, name = page.found.study.path / "samples", escape(str(sample.get("caption", "")), quote=True)
    for key, kind in (("mp4", "video/mp4"), ("png", "image/png")):
        file = folder / str(sample.get(key) or "")
        if not file.is_file():
            continue
        data = data_uri(file, kind)
        if key == "mp4":
            return f'<figure><video src="{data}" autoplay loop muted playsinline title="{name}"></video></figure>'
        return f'<figure><img src="{data}" alt="{name}"></figure>'
    return f"<figure>{PENDING}</figure>"
