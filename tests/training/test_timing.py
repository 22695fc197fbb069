import types

import pytest

from vdit.training import timing
from vdit.training.timing import StepClock

PEAK = 4e12


class World:
    """A clock, a run and its batches that move as the test says."""

    def __init__(self, monkeypatch) -> None:
        self.now = 50.0
        self.run = types.SimpleNamespace(position=types.SimpleNamespace(patches=0, text=0), training_flops=0.0)
        self.batches = types.SimpleNamespace(waited=0.0)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.time, "time", lambda: 1000 + self.now)
        monkeypatch.setattr(timing, "peak_rate", lambda: (PEAK, "published"))

    def clock(self, earlier=None) -> StepClock:
        return StepClock(self.run, self.batches, earlier)

    def step(self, clock: StepClock, seconds: float, waited: float = 0.0) -> None:
        self.now += seconds
        self.batches.waited += waited
        self.run.position.patches += 90
        self.run.position.text += 10
        self.run.training_flops += 1e12
        clock.step()


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_speed_counts_patches_and_caption_tokens_since_the_last_lap(world):
    clock = world.clock()
    world.step(clock, 30)
    clock.lap()
    for _ in range(4):
        world.step(clock, 0.5)
    assert clock.speed() == {"tokens_per_second": 200.0, "tflops": pytest.approx(2), "mfu": pytest.approx(0.5)}
    clock.lap()
    world.step(clock, 1)
    assert clock.speed()["tflops"] == pytest.approx(1)


def test_seconds_per_step_leave_compilation_out(world):
    clock = world.clock()
    world.step(clock, 30)
    assert clock.seconds_per_step == 30, "there is no other"
    world.step(clock, 1)
    with clock.paused():
        world.now += 3
    world.step(clock, 1)
    assert clock.seconds_per_step == pytest.approx((1 + 3 + 1) / 2)


def test_goodput_is_the_share_of_steps_that_count(world):
    clock = world.clock()
    world.step(clock, 10)  # compilation
    world.step(clock, 4)
    world.step(clock, 4, waited=1)
    with clock.paused():
        world.now += 2
    found = clock.report()
    assert found["productive_seconds"] == 7
    assert found["goodput"] == pytest.approx(7 / 20) and found["data_wait"] == pytest.approx(1 / 20)


def test_goodput_counts_the_time_between_two_attempts_and_what_was_lost(world):
    first = world.clock()
    world.step(first, 10)
    world.step(first, 6)
    kept = first.report()
    world.step(first, 6)  # lost: the run was killed, and resumes from the step before
    world.now += 8
    second = world.clock(earlier=kept)
    world.step(second, 5)
    world.step(second, 6)
    found = second.report()
    assert found["began"] == kept["began"] and found["started"] > kept["started"]
    assert found["productive_seconds"] == 12 and found["goodput"] == pytest.approx(
        12 / (10 + 6 + 6 + 8 + 5 + 6), abs=1e-4
    )


def test_the_names_of_times_are_those_that_a_row_gets(world):
    clock = world.clock()
    world.step(clock, 1)
    assert {*clock.report(), *clock.speed()} == set(timing.TIMES)
