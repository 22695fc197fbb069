"""The figures of `inspection` as tables and text histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdit.io.formatting import align

BAR = 40  # characters of the longest bar


def print_report(figures: dict[str, Any]) -> None:
    """Prints the figures of a data set or mixture."""
    for each in figures["datasets"]:
        _print_dataset(each, figures["split"])
    if len(figures["datasets"]) > 1:
        _print_sources(figures)
    print(f"split {figures['split']}: {sum(each['examples'] for each in figures['datasets'])} examples")
    shapes = figures["shapes"]
    tables = {
        "frames": shapes["frames"],
        "seconds": shapes["seconds"],
        "frames/second": shapes["fps"],
        "width/height": shapes["aspect"],
        "patches of a frame": shapes["area"],
        "patches (whole clip)": shapes["patches"],
        **{f"caption tokens, {kind}": table for kind, table in figures["captions"].items()},
        **figures["measures"],
        "slots (as packed)": figures["tokens_per_example"],
        "examples in a row": figures["examples_per_row"],
    }
    print(f"  {'':26}{'min':>9}{'mean':>9}{'median':>9}{'max':>9}")
    for name, table in tables.items():
        print(f"  {name:26}" + "".join(f"{table[key]:9.4g}" for key in ("min", "mean", "median", "max")))
    listed = ", ".join(f"{s['height']}x{s['width']} ({s['examples']})" for s in shapes["sizes"])
    more = "" if shapes["distinct_sizes"] <= len(shapes["sizes"]) else ", ..."
    print(f"  {shapes['distinct_sizes']} sizes (height x width, examples): {listed}{more}\n")
    _print_histogram("frames", shapes["frames"])
    _print_histogram("seconds", shapes["seconds"])
    _print_histogram("patches of a frame", shapes["area"])
    _print_histogram("slots (as packed)", figures["tokens_per_example"])
    for name, table in figures["measures"].items():
        _print_histogram(name, table)
    _print_plan(figures)
    _print_stages(figures.get("stages", ()))
    if "budget" in figures:
        _print_budget(figures)


def _print_dataset(figures: dict[str, Any], split: str) -> None:
    """What a data set is, and what its build did to the inputs."""
    path = figures["path"]
    if not figures["examples"]:
        print(f"{path}: no split {split}\n")
        return
    splits = ", ".join(f"{name} {count}" for name, count in figures["splits"].items())
    print(f"{path}: source {figures['source']}, splits {splits}\nlicence: {figures['licence']}")
    print(f"{figures['shapes']['images']} images, {figures['shapes']['hours']:.3g} hours of video")
    _print_changes(figures["changes"])
    print()


def _print_changes(changes: dict[str, Any] | None) -> None:
    if changes is None:
        print("no ledger.csv, so nothing is known of what was changed")
        return
    print("inputs: " + ", ".join(f"{count} {status}" for status, count in changes["statuses"].items()))
    if scale := changes["scale"]:
        print(f"height stored / original where it changed: {scale['min']:.3g} to {scale['max']:.3g}, ", end="")
        print(f"mean {scale['mean']:.3g}")
        listed = ", ".join(f"{each['from']} to {each['to']} ({each['clips']})" for each in changes["resized"])
        print(f"commonest changes (height x width, clips): {listed}")
    else:
        print("no size was changed")
    if changes["frames_dropped"] > 0:
        print(f"{changes['frames_dropped']:.2%} of their frames are not stored")
    for reason, count in changes["reasons"].items():
        print(f"  {count:>7} {reason}")


def _print_sources(figures: dict[str, Any]) -> None:
    """The data sets of a mixture beside each other."""
    rows: list[Sequence[str]] = [("data set", "examples", "weight", "an epoch", "tokens", "share", "images", "hours")]
    for each in figures["datasets"]:
        shapes = each.get("shapes", {"images": 0, "hours": 0.0})
        rows.append(
            (
                each["path"],
                str(each["examples"]),
                f"{each['weight']:g}",
                str(each["examples_an_epoch"]),
                str(each["tokens"]),
                f"{each['share']:.1%}",
                str(shapes["images"]),
                f"{shapes['hours']:.3g}",
            )
        )
    print(align(rows, right=range(1, len(rows[0]))), end="\n\n")


def _print_plan(figures: dict[str, Any]) -> None:
    if figures["filter"]:
        total = sum(each["examples"] for each in figures["datasets"])
        print(f"data.filter={figures['filter']!r} keeps {figures['kept']} of {total} examples")
    print(
        f"plan of {figures['path']}: {figures['rows']} rows, {figures['steps']:.1f} steps an epoch, "
        f"{figures['tokens']} tokens in {figures['slots']} slots, fill {figures['fill']:.2%}, "
        f"slowest device / mean {figures['balance']:.4f}"
        + ("" if figures["steps"] >= 1 else "; fewer rows than one step: training needs a lower data.rows_per_step")
    )


def _print_stages(stages: Sequence[dict[str, Any]]) -> None:
    if not stages:
        return
    rows: list[Sequence[str]] = [
        ("stage from step", "max area", "max frames", "left out", "examples", "rows", "fill", "balance")
    ]
    for stage in stages:
        counts = [str(stage[name]) for name in ("step", "max_area", "max_frames", "left_out", "examples", "rows")]
        rows.append((*counts, f"{stage['fill']:.2%}", f"{stage['balance']:.4f}"))
    print(align(rows, right=range(1, len(rows[0]))))


def _print_budget(figures: dict[str, Any]) -> None:
    budget = figures["budget"]
    flops = "" if budget["flops"] != budget["flops"] else f", {budget['flops']:.4g} training FLOPs"
    epochs = " + ".join(f"{each:.3g}" for each in budget["epochs"])
    print(
        f"budget: {budget['steps']} steps, {budget['patches']:.4g} tokens (patches; captions {budget['text']:.4g} "
        f"more), {budget['examples']:.4g} examples{flops}: {epochs} epochs"
    )
    if len(figures["datasets"]) > 1:
        for each, visits in zip(figures["datasets"], budget["visits"], strict=True):
            print(f"  {each['path']}: every example {visits:.3g} times")


def _print_histogram(name: str, table: dict[str, Any]) -> None:
    edges, counts = table["histogram"]["edges"], table["histogram"]["counts"]
    if len(counts) < 2:
        return
    print(f"  {name}")
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        print(f"  {low:9.4g} - {high:<9.4g}{count:>9}  {'#' * round(BAR * count / max(counts))}")
    print()
