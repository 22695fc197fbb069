import pytest

from vdit.planning.table import dollars, time_taken


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "$0"), (0.00124, "$0.0012"), (4.2, "$4.2"), (12.34, "$12"), (12345.6, "$12,346")]
)
def test_a_short_run_is_not_free(value, text):
    assert dollars(value) == text


@pytest.mark.parametrize(("hours", "text"), [(1 / 3600, "1 s"), (0.25, "15.0 min"), (1234.5, "1,234.5 hours")])
def test_a_short_run_takes_time(hours, text):
    assert time_taken(hours) == text
