"""Conditions that users write: what they mean, and that nothing else is read as one."""

import numpy as np
import pytest

from vdit.errors import UserError
from vdit.expressions import parse_condition

VALUES = {"motion": np.array([0.0, 0.1, 0.5, np.nan]), "height": np.array([256, 128, 512, 64], np.int32)}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("motion > 0.05", [0, 1, 1, 0]),
        ("motion > 0.05 and height >= 256", [0, 0, 1, 0]),
        ("motion > 0.4 or height == 256", [1, 0, 1, 0]),
        ("not motion > 0.05", [1, 0, 0, 1]),
        ("0.05 < motion < 0.2", [0, 1, 0, 0]),
        ("2 * motion - 0.1 >= (height + 0) / 1280", [0, 1, 1, 0]),
        ("motion != motion", [0, 0, 0, 1]),
        (" -height < -200 ", [1, 0, 1, 0]),
        ("motion / 0 > 1", [0, 1, 1, 0]),
    ],
)
def test_what_holds(text: str, holds: list[int]) -> None:
    np.testing.assert_array_equal(parse_condition(text, "data.filter")(VALUES), np.array(holds, bool))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "motion",
        "motion >",
        "motion = 3",
        "1",
        "motion + 1",
        "__import__('os').system('true')",
        "motion.real > 1",
        "motion[0] > 1",
        "motion > 'a'",
        "motion > True",
        "motion > 1j",
        "motion > 1e999",
        "motion ** 99 > 1",
        "[motion] > 1",
        "(lambda: 1)() > 0",
        "motion > 1 if height > 2 else height > 3",
        "motion in (1, 2)",
        "(motion > 1) + 1 > 1",
        "motion > 1\x00",
        "motion > 1; height > 2",
        "(" * 400 + "motion > 1" + ")" * 400,
        "not " * 240 + "motion > 1 and f()",
        "motion > 1 and " * 100 + "motion > 1",
        f"motion > {'9' * 500}",
        "motion > 1 # and\nheight > 2",
        "m := 3 > 2",
    ],
)
def test_nothing_else_is_read(text: str) -> None:
    with pytest.raises(UserError, match="data.filter=.* is not a condition such as") as caught:
        parse_condition(text, "data.filter")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(UserError, match="data.filter='sharp > 1': there is no 'sharp'; there are height, motion"):
        parse_condition("sharp > 1", "data.filter")(VALUES)
