"""A plan as text."""

from __future__ import annotations

from typing import Any

from vdit.io.formatting import count, duration, flop_count


def table(values: dict[str, Any]) -> str:
    """What a plan found, for a terminal."""
    lines = [_title(values), "", *_memory(values)]
    if values["fits"]:
        lines += ["", *_time(values), "", *_collectives(values), "", *_run(values)]
    else:
        lines += ["", f"It does not fit: {values['problem']}", "Try --search, more chips, or a remat policy."]
    return "\n".join([*lines, "", *_assumptions(values)])


def ranking(plans: list[dict[str, Any]]) -> str:
    """Candidates of a search, best first, a line each."""
    head = f"{'replica':>7} {'fsdp':>5} {'context':>7} {'tensor':>6} {'rows':>6} {'remat':<9} {'HBM GiB':>8}"
    lines = [f"{head} {'s a step':>8} {'low':>7} {'high':>7} {'tokens/s':>9} {'MFU':>6} {'hours':>9} {'cost':>12}"]
    for plan in plans:
        mesh, need = plan["mesh"], plan["hbm_gib_per_chip"]
        line = f"{mesh['replica']:7} {mesh['fsdp']:5} {mesh['context']:7} {mesh['tensor']:6} {plan['rows_per_step']:6} "
        line += f"{plan['remat']:<9} {'unknown' if need is None else format(need, '.2f'):>8} "
        if plan["fits"]:
            seconds = (plan[f"step_seconds{end}"] for end in ("", "_low", "_high"))
            line += "{:8.3g} {:7.3g} {:7.3g} ".format(*seconds)
            cost = "unknown" if plan["cost"] is None else dollars(plan["cost"])
            line += f"{count(plan['tokens_per_second']):>9} {plan['mfu']:6.1%} {plan['hours']:9,.1f} {cost:>12}"
        else:
            line += f"does not fit in {plan['hbm_gib_limit']} GiB"
        lines.append(line)
    return "\n".join(lines)


def _title(values: dict[str, Any]) -> str:
    mesh = " ".join(f"{name}={size}" for name, size in values["mesh"].items())
    where = f"{values['slices']} x {values['topology']}" if values["slices"] > 1 else values["topology"]
    return (
        f"{where}, {values['chips']} chips: {mesh}; {values['rows_per_step']} rows of {values['row_tokens']:,} slots a "
        f"step, {values['fill']:.1%} filled; remat {values['remat']}, attention {values['attention']}"
    )


def _memory(values: dict[str, Any]) -> list[str]:
    if values["hbm_gib_per_chip"] is None:
        return ["HBM a chip: unknown"]
    spare = values["hbm_gib_limit"] - values["hbm_gib_per_chip"]
    verdict = f"fits, {spare:.2f} to spare" if values["fits"] else f"does not fit, {-spare:.2f} too many"
    lines = [f"HBM a chip, GiB          {values['hbm_gib_per_chip']:9.2f} of {values['hbm_gib_limit']:.2f}: {verdict}"]
    return lines + [f"  {name:<22} {value:9.2f}" for name, value in values["memory_gib"].items() if value >= 0.005]


def _time(values: dict[str, Any]) -> list[str]:
    seconds = values["seconds"]
    lines = [f"seconds a step           {'low':>9} {'expected':>9} {'high':>9}"]
    for name in seconds["expected"]:
        lines.append(f"  {name:<22} " + " ".join(f"{seconds[kind][name]:9.3g}" for kind in seconds))
    totals = (values[f"step_seconds{suffix}"] for suffix in ("_low", "", "_high"))
    lines.append(f"  {'all':<22} " + " ".join(f"{total:9.3g}" for total in totals))
    shares = (values[name] for name in ("mfu_high", "mfu", "mfu_low"))
    return [*lines, f"  {'model FLOP utilisation':<22} " + " ".join(f"{share:9.1%}" for share in shares)]


def _collectives(values: dict[str, Any]) -> list[str]:
    rows = values["collectives"]
    lines = [f"{'collectives of a chip':<33} {'runs':>7} {'GiB':>9}"]
    lines += [f"  {name:<31} {row['count']:7,} {row['gib']:9.3f}" for name, row in rows.items()]
    return lines if rows else ["no collectives"]


def _run(values: dict[str, Any]) -> list[str]:
    outside = values["compiled_over_model_flops_outside_attention"]
    apart = "" if outside is None else f" (outside attention {outside:.3f})"
    lines = [
        f"FLOPs of a step: model {flop_count(values['model_tflops_per_step'] * 1e12)}, compiled "
        f"{values['compiled_over_model_flops']:.3f} of it{apart}; executed attention blocks "
        f"{values['attention_overhead']:.3f} of the pairs that attend",
        f"tokens/s {count(values['tokens_per_second'])}; {values['steps']:,} steps take {time_taken(values['hours'])}"
        + ("" if values["cost"] is None else f" and {dollars(values['cost'])}"),
    ]
    if values["muon_tflops_per_chip"]:
        share = values["muon_tflops_per_chip"] * values["chips"] / values["model_tflops_per_step"]
        each = flop_count(values["muon_tflops_per_chip"] * 1e12)
        lines.append(f"Muon: of the compiled FLOPs {each} on every chip, {share:.1%} of the model's on all of them")
    if values["open_loops"]:
        lines.append(f"{values['open_loops']} loops have a length that depends on data: counted for attention only")
    return lines


def _assumptions(values: dict[str, Any]) -> list[str]:
    a = values["assumptions"]
    price = "no price known (--price)" if a["price"] is None else f"${a['price']:g} a chip-hour"
    efficiency = ", ".join(f"{value:g}" for value in a["attention_efficiency"])
    return [
        f"Assumed: attention kernels reach {efficiency} of the peak (low, expected, high time); links carry "
        f"{a['link'] / 1e9:g} GB/s a direction,",
        f"{a['dcn'] / 1e9:g} GB/s a device between slices; {price}. low: peak and HBM rates; the "
        "others: the compiler's cycles. Sources: docs/planner.md",
    ]


def dollars(value: float) -> str:
    """$1,234; below $10 two digits, so that a short run does not seem to be free."""
    return f"${value:,.0f}" if value >= 10 or not value else f"${value:.2g}"


def time_taken(hours: float) -> str:
    """1,234.5 hours; a short run in minutes or seconds."""
    return f"{hours:,.1f} hours" if hours >= 1 else duration(3600 * hours)
