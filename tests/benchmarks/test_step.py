"""What benchmarks.step says of flags that it cannot use."""

import pytest
from cli import runner


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--since=no-such-commit",), "--since=no-such-commit: fatal: invalid reference: no-such-commit"),
        (("--sizes=64",), "--sizes=64 is not WIDTHxDEPTH, such as 64x2"),
    ],
)
def test_a_mistake_is_one_line(capfd, flags, message):
    assert runner(capfd)("benchmarks.step", *flags).error == message
