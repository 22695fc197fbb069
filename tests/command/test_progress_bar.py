import io

import pytest

from vdit.command import progress_bar
from vdit.command.progress_bar import COMPILING, ProgressBar


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_bar.time, "monotonic", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_time_left_leaves_the_first_unit_out(clock):
    bar = ProgressBar("run", "step", total=11)
    assert bar.seconds_left is None
    clock.now += 60  # compilation
    bar.advance()
    assert bar.seconds_left is None
    for _ in range(4):
        clock.now += 2
        bar.advance()
    assert bar.seconds_left == pytest.approx(6 * 2)


def test_a_resumed_count_is_timed_from_where_it_began(clock):
    bar = ProgressBar("run", "step", total=100, done=90)
    clock.now += 30
    bar.advance()
    clock.now += 3
    bar.advance(3)
    assert bar.seconds_left == pytest.approx(6 * 1)


def test_another_count_begins_anew(clock):
    bar = ProgressBar("clips", "step")
    for done in (1, 2, 3):
        clock.now += 5
        bar.move_to(done, 3)
    assert bar.seconds_left == 0
    bar.move_to(1, 5)
    clock.now += 7
    bar.move_to(2, 5)
    assert bar.seconds_left == pytest.approx(3 * 7)


def test_a_log_gets_a_line_at_first_and_then_now_and_again(clock, capsys):
    bar = ProgressBar("denoising", "step", total=40, note=COMPILING)
    for _ in range(8):
        clock.now += 4
        bar.advance(note="loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        "denoising: 0/40 steps, compiling (usually a minute)",
        "denoising: 3/40 steps, loss 0.5, 2.5 min left",
        "denoising: 6/40 steps, loss 0.5, 2.3 min left",
    ]


def test_without_a_total_a_line_says_what_is_done(clock, capsys):
    bar = ProgressBar("validation loss", "example")
    clock.now += 11
    bar.advance(64)
    assert capsys.readouterr().err == "validation loss: 64 examples\n"


def test_a_terminal_shows_a_bar_with_note_and_time_left(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with ProgressBar("run", "step", total=4, note=COMPILING) as bar:
        assert "0/4, compiling (usually a minute)" in terminal.getvalue()
        for _ in range(4):
            clock.now += 8
            bar.advance(note="loss 0.25, 1.2k tokens/s")
    shown = terminal.getvalue().split("\r")[-1]
    assert "run: 100%" in shown and "4/4, loss 0.25, 1.2k tokens/s, 0 s left" in shown
