"""What `vdit.scaling.fit` found, for a reader at a terminal."""

from __future__ import annotations

from typing import Any

from vdit.scaling.laws.extensions import quality


def describe(found: dict[str, Any]) -> str:
    """The result in lines; `found` is what `result.report` returns."""
    lines = [f"note: {line}" for line in found["notes"]]
    lines += [*_law(found), *_minima(found), *_hangs_on(found), *_repetition(found["repetition"])]
    lines += [quality.words(law, _span) for law in found["quality"]]
    lines += [*_predictions(found), *_arms(found["arms"]), *_extrapolation(found)]
    lines += [*_sensitivity(found["sensitivity"]), *_forms(found["forms"])]
    return "\n".join(lines + [f"warning: {line}" for line in found["warnings"]])


def _span(interval: Any) -> str:
    return "" if interval is None else f"   [{interval[0]:.4g}, {interval[1]:.4g}]"


def _law(found: dict[str, Any]) -> list[str]:
    cost = found["cost"]
    other = "" if cost["exponent"] == 1 else f" (were C = 6 N D: {cost['a_if_6nd']:.4f})"
    how = f"Huber loss of log L, delta {found['form']['delta']:g}"
    if found["estimator"] == "squares":
        how = "least squares of L, as residuals are no heavier-tailed than normal ones"
    undetermined = "   no interval: draws end at the edge of its range" if found["bootstraps"] else ""
    return [
        (
            f"L(N, D) = E + A / N^alpha + B / D^beta, {found['rows']} runs, {found['level']:.0%} intervals from "
            f"{found['bootstraps']} bootstraps"
        ),
        f"by {how}",
        f"FLOPs: {cost['convention']}",
        *(
            f"  {name:<6}{found[name]:<10.4g}{_span(found['intervals'][name]) or undetermined}"
            for name in ("A", "B", "E", "alpha", "beta")
        ),
        f"N_opt ~ C^a:  a = {found['a']:.4f}{_span(found['a_interval'])}{other}",
        f"residuals: {found['residual_rms']:.2%} of the loss (root mean square)",
    ]


def _minima(found: dict[str, Any]) -> list[str]:
    first, second = found["approach1"], found["approach2"]
    lines = [f"envelope:     {_exponent(first['params'], first['without'])}"]
    if first["params"]:
        lines[0] += f"   ({first['edges']:.0%} of it at an edge of the sizes tried, left out)"
    lines.append(f"parabolas:    {_exponent(second['params'], second['without'])}")
    if second["akima"]:
        lines.append(f"Akima:        a = {second['akima']['exponent']:.4f}")
    for budget in second["budgets"]:
        size = "none" if budget["params"] is None else f"{budget['params']:.3g}"
        flag = f"   ({budget['edge']})" if budget["edge"] else ""
        lines.append(
            f"  C = {budget['flops']:.2e}  {budget['rows']:3d} runs, {budget['near']:2d} near the best"
            f"  N_opt = {size}{flag}"
        )
    return lines


def _exponent(law: dict[str, Any] | None, without: str) -> str:
    """The exponent of approach 1 or 2 with its bias and interval, or why there is none."""
    if law is None:
        return f"no exponent: {without or 'fewer than two budgets have a minimum inside their sizes'}"
    bias = "" if law["bias"] is None else f"   bias {law['bias']:+.4f} were the fitted law true"
    corrected = " (corrected for it)" if law["interval"] and bias else ""
    reason = f"   no interval: {without}" if without else ""
    return f"a = {law['exponent']:.4f}{bias}{_span(law['interval'])}{corrected}{reason}"


def _predictions(found: dict[str, Any]) -> list[str]:
    lines = []
    for row in found["predictions"]:
        lines += [
            f"at C = {row['flops']:.3g}:  N_opt = {row['params']:.4g}{_span(row['params_interval'])}",
            f"  D_opt = {row['tokens']:.4g}{_span(row['tokens_interval'])},"
            f"  D/N = {row['tokens_per_param']:.3g}{_span(row['tokens_per_param_interval'])}",
            f"  loss of one run there {row['loss']:.4g}{_span(row['loss_interval'])}",
        ]
        lines += [
            f"  a model {wrong['factor']:g} times that size loses {wrong['loss_lost']:.3g}"
            f"{_span(wrong['loss_lost_interval'])}, as much as {wrong['compute_wasted']:.1%} of the compute"
            for wrong in row["mis_sized"]
        ]
        lines += [
            f"  {name} {value['value']:.4g}{_span(value['interval'])}" for name, value in row.get("metrics", {}).items()
        ]
    for row in found["serving"]:
        lines.append(
            f"serving {row['served_tokens']:.3g} tokens at that quality:  N = {row['params']:.4g}"
            f"{_span(row['params_interval'])},  D = {row['tokens']:.4g}{_span(row['tokens_interval'])}; saves"
            f" {row['saved']:.1%}{_span(row['saved_interval'])} of training and inference together"
        )
    return lines


def _arms(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    how = "one E, alpha and beta" if found["shared"] else "laws of their own"
    lines = [f"arms by {found['column']}, {how}:"]
    for name, law in found["laws"].items():
        lines.append(
            f"  {name}: {law['rows']} runs, A = {law['A']:.4g}, B = {law['B']:.4g}, E = {law['E']:.4g},"
            f" alpha = {law['alpha']:.4f}, beta = {law['beta']:.4f}"
        )
    for row in found["saved"]:
        span = row["interval"]
        between = "" if span is None else f" [{span[0]:.0%}, {span[1]:.0%}]"
        lines.append(
            f"  {row['arm']} saves {row['saved']:.0%}{between} of {row['reference']}'s compute"
            f" at C = {row['flops']:.3g}"
        )
    return lines + [f"  warning: {line}" for line in found["warnings"]]


def _sensitivity(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["what a hangs on:"]
    for row in rows:
        numbers = "no law can be fitted" if "a" not in row else f"a = {row['a']:.4f}   E = {row['E']:.4g}"
        lines.append(f"  {row['choice']:<34}{row['rows']:4d} runs   {numbers}")
    return lines


def _forms(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [f"forms, by mean error on {largest(rows[0]['budgets'])} from smaller ones:"]
    return lines + [
        f"  {row['form']:<12}{row['held_out_error']:7.2%}   (best run {row['best_error']:.2%}; {row['coefficients']}"
        f" coefficients: {row['formula']})"
        for row in rows
    ]


def largest(budgets: int) -> str:
    """The budgets that are predicted from smaller ones."""
    return "the largest budget, predicted" if budgets == 1 else f"the {budgets} largest budgets, each predicted"


def _hangs_on(found: dict[str, Any]) -> list[str]:
    lines = [f"{row['run']} {row['a_moves']:+.4f} (residual {row['residual']:+.2%})" for row in found["influence"][:3]]
    return ["without one run a moves by at most: " + "; ".join(lines)] if lines else []


def _repetition(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    shown = []
    for name in ("R_D", "R_N"):
        unknown = any(f"{name}* is not determined" in line for line in found["warnings"])
        value = "not determined" if unknown else f"{found[name]:.3g}{_span(found[f'{name}_interval'])}"
        shown.append(f"{name}* = {value}")
    return [
        f"repeated data: {', '.join(shown)}; {found['repeated_rows']} runs repeat; objective {found['objective']:.3g}",
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
