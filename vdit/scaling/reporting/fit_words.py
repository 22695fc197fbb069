"""What `vdit.scaling.fit` found, for a reader at a terminal."""

from __future__ import annotations

from typing import Any

from vdit.scaling.laws import quality


def describe(found: dict[str, Any]) -> str:
    """The result in lines; `found` is what `fit.report` returns."""
    lines = [*_law(found), *_minima(found), *_hangs_on(found), *_repetition(found["repetition"])]
    lines += [quality.words(law, _span) for law in found["quality"]]
    lines += [*_extrapolation(found)]
    return "\n".join(lines + [f"warning: {line}" for line in found["warnings"]])


def _span(interval: Any) -> str:
    return "" if interval is None else f"   [{interval[0]:.4g}, {interval[1]:.4g}]"


def _law(found: dict[str, Any]) -> list[str]:
    cost = found["cost"]
    other = "" if cost["exponent"] == 1 else f" (were C = 6 N D: {cost['a_if_6nd']:.4f})"
    return [
        (
            f"L(N, D) = E + A / N^alpha + B / D^beta, {found['rows']} runs, {found['level']:.0%} intervals from "
            f"{found['bootstraps']} bootstraps"
        ),
        f"FLOPs: {cost['convention']}",
        *(
            f"  {name:<6}{found[name]:<10.4g}{_span(found['intervals'][name])}"
            for name in ("A", "B", "E", "alpha", "beta")
        ),
        f"N_opt ~ C^a:  a = {found['a']:.4f}{_span(found['a_interval'])}{other}",
        f"residuals: {found['residual_rms']:.2%} of the loss (root mean square)",
    ]


def _minima(found: dict[str, Any]) -> list[str]:
    lines = []
    first, second = found["approach1"], found["approach2"]
    if first["params"]:
        law = first["params"]
        lines.append(
            f"envelope:     a = {law['exponent']:.4f}{_span(law['interval'])}"
            f"   ({first['edges']:.0%} of it at an edge of the sizes tried, left out)"
        )
    if second["params"]:
        law = second["params"]
        lines.append(f"parabolas:    a = {law['exponent']:.4f}{_span(law['interval'])}")
    for budget in second["budgets"]:
        size = "none" if budget["params"] is None else f"{budget['params']:.3g}"
        flag = f"   ({budget['edge']})" if budget["edge"] else ""
        lines.append(f"  C = {budget['flops']:.2e}  {budget['rows']:3d} runs  N_opt = {size}{flag}")
    return lines


def _hangs_on(found: dict[str, Any]) -> list[str]:
    lines = [f"{row['run']} {row['a_moves']:+.4f} (residual {row['residual']:+.2%})" for row in found["influence"][:3]]
    return ["without one run a moves by at most: " + "; ".join(lines)] if lines else []


def _repetition(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    return [
        f"repeated data: R_D* = {found['R_D']:.3g}{_span(found['R_D_interval'])}, R_N* = {found['R_N']:.3g}"
        f"{_span(found['R_N_interval'])}; {found['repeated_rows']} runs repeat",
        f"  a repeat is worth half of new data after {found['half_value_epochs']:.3g} epochs, a tenth after"
        f" {found['tenth_value_epochs']:.3g}",
        *(f"  warning: {line}" for line in found["warnings"]),
    ]


def _extrapolation(found: dict[str, Any]) -> list[str]:
    lines = [
        f"C = {row['budget']:.2e} predicted from smaller budgets: best run {row['best_error']:+.2%}, "
        f"carrying the last value forward {row['baseline_best_error']:+.2%}"
        for row in found["extrapolation"]
    ]
    for row in found["held_out"]:
        lines.append(
            f"held out {row['run']}: predicted {row['predicted']:.4g}{_span(row['interval'])}, measured"
            f" {row['measured']:.4g} ({row['error']:+.2%}); carrying the last value forward"
            f" {row['baseline_error']:+.2%}"
        )
    return lines
