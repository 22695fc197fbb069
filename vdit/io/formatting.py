"""Numbers as a reader wants them, in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def flops(value: float) -> str:
    """1.3×10¹², or 10¹²."""
    lead, power = f"{value:.1e}".split("e")
    lead = lead.removesuffix(".0")
    raised = str(int(power)).translate(_RAISED)
    return f"10{raised}" if lead == "1" else f"{lead}×10{raised}"


def count(value: float) -> str:
    """25.3k, 1.2M: three digits and a suffix."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def flop_count(value: float) -> str:
    """11.4 PFLOP: three digits and a prefix."""
    for size, prefix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g} {prefix}FLOP"
    return f"{value:.3g} FLOP"


def span(interval: Any, digits: int = 3) -> str:
    """[low, high], or nothing."""
    return "" if interval is None else f"[{interval[0]:#.{digits}g}, {interval[1]:#.{digits}g}]"


def percent(share: float, sign: str = "") -> str:
    """0.42%, 4.2%, 109%: as many decimals as matter; `sign` "+" shows it of positive ones too."""
    decimals = 2 if abs(share) < 0.00995 else 1 if abs(share) < 0.9995 else 0
    return f"{share:{sign}.{decimals}%}"


def many(number: int, thing: str) -> str:
    """1 run, 3 runs."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def duration(seconds: float) -> str:
    """12 s, 3.4 min, 1.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def align(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Rows of cells as lines whose columns stand below one another, those numbered in `right` flush right."""
    numbers, columns = set(right), list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    cells = (
        [cell.rjust(w) if i in numbers else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in cells)
