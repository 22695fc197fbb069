"""What was predicted of the held-out run and what came, in words and figures that claim no more than they show."""

from __future__ import annotations

import math

from vdit.io.formatting import flops, percent, span
from vdit.scaling.laws.law import Interval
from vdit.scaling.reporting.analysis import Prediction


def verdict(interval: Interval | None, measured: float | None) -> str:
    """Whether a prediction held: its interval holds the measurement; "" where one of them is not there."""
    if interval is None or measured is None:
        return ""
    return "held" if interval[0] <= measured <= interval[1] else "missed"


def digits(interval: Interval | None) -> tuple[int, int]:
    """(of a value, of the ends of its interval): significant digits, the last of which the interval still tells apart.

    [0.0016, 0.0050] has two, [2.01, 2.05] three; the value has one more.
    """
    if interval is None or not 0 < interval[0] < interval[1]:
        return 4, 4
    ends = 2 + math.floor(math.log10(interval[1] / (interval[1] - interval[0])))
    return min(ends + 1, 6), min(ends, 6)


def numbers(said: Prediction) -> tuple[str, str, str]:
    """(loss predicted, its interval, loss measured); empty where there is none."""
    value, ends = digits(said.interval)
    measured = "" if said.measured is None else f"{said.measured:#.{value}g}"
    return f"{said.loss:#.{value}g}", span(said.interval, ends), measured


def headline(said: Prediction) -> tuple[str, str, str]:
    """(label, figure, remark) of a finished held-out run: whether the prediction held, and both losses."""
    assert said.error is not None
    predicted, interval, measured = numbers(said)
    label = "prediction of the held-out run" if said.written else "held-out run, predicted only afterwards"
    figure = verdict(said.interval, said.measured) or f"off by {percent(abs(said.error))}"
    return label, figure, f"predicted {predicted}{interval and ' ' + interval}, measured {measured}"


def sentence(said: Prediction) -> str:
    """The prediction as one statement, its verdict first."""
    predicted, interval, measured = numbers(said)
    loss, where = f"a loss of {predicted}{interval and ' ' + interval}", f"at {flops(said.flops)} FLOPs"
    if said.measured is None:
        return f"**Prediction.** For the held-out run {where} the law predicts {loss}; it has not finished."
    held = f"Prediction {verdict(said.interval, said.measured)}".strip()
    when = "before the held-out run" if said.written else "only after the held-out run, by this report,"
    value, _ = digits(said.interval)
    return (
        f"**{held}.** Predicted {when} {where}: {loss}; measured: {measured}. The last value carried forward is"
        f" {said.baseline:#.{value}g}."
    )


def beside_the_interval(said: Prediction) -> str:
    """Where the measurement lies, in plain words; "" without one or without an interval."""
    held = verdict(said.interval, said.measured)
    if said.interval is None or said.measured is None:
        return ""
    side = "inside" if held == "held" else "below" if said.measured < said.interval[0] else "above"
    return f"The measured loss lies {side} the interval: the prediction **{held}**."
