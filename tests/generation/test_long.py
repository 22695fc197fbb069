"""Long videos by windows that overlap."""

import numpy as np
import pytest
from small_model import PATCH

from vdit.errors import UserError
from vdit.generation.long import extend, window_count
from vdit.generation.request import Request
from vdit.generation.session import close_loop


class Counting:
    """Stands in for a generator: every frame is one brighter than the one before, on from what is given."""

    patch = PATCH

    def __init__(self):
        self.asked: list[Request] = []

    def generate(self, requests, **settings):
        return [self._video(request) for request in requests]

    def _video(self, request: Request) -> np.ndarray:
        self.asked.append(request)
        first = 0 if request.given_TYXC is None else int(request.given_TYXC[0, 0, 0, 0])
        frames = first + np.arange(request.frames, dtype=np.uint8)[:, None, None, None]
        return np.broadcast_to(frames, (request.frames, 4, 4, 3)).astype(np.uint8)


def given(count: int) -> np.ndarray:
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3))


@pytest.mark.parametrize("frames", [9, 10, 14, 40])
@pytest.mark.parametrize("head", [0, 1, 3, 5, 7])
def test_windows_follow_on_from_each_other(frames, head):
    generator = Counting()
    request = Request(np.zeros((1, 5), np.float32), frames, 4, 4, 6.0, 3, given(head) if head else None)
    parts = [own for (own,) in extend(generator, [request], window=9, overlap_groups=3)]
    np.testing.assert_array_equal(np.concatenate(parts)[:, 0, 0, 0], np.arange(frames))
    assert max(map(len, parts)) <= 9, "memory does not grow with the length"
    assert len(generator.asked) == window_count(frames, head, 9, 5)
    contexts = [0 if r.given_TYXC is None else len(r.given_TYXC) for r in generator.asked]
    assert contexts[0] == min(head, 5) and set(contexts[1:]) <= {5}
    assert len({r.seed for r in generator.asked}) == len(generator.asked)


def test_a_window_must_leave_something_to_generate():
    request = Request(np.zeros((1, 5), np.float32), 40, 4, 4, 6.0)
    for window, instead in ((5, 7), (10, 9)):
        with pytest.raises(UserError, match=f"--window={window} is not 1 .* take {instead}$"):
            next(extend(Counting(), [request], window, overlap_groups=3))


def test_the_seed_of_a_window_is_a_function_of_the_request():
    first, second = (Counting() for _ in range(2))
    request = Request(np.zeros((1, 5), np.float32), 30, 4, 4, 6.0, 7)
    for generator in (first, second):
        list(extend(generator, [request], 9))
    assert [r.seed for r in first.asked] == [r.seed for r in second.asked]


def test_many_are_made_together():
    generator = Counting()
    requests = [Request(np.zeros((1, 5), np.float32), 20, 4, 4, 6.0, seed, given(3) + seed) for seed in (1, 2)]
    videos = [np.concatenate(parts) for parts in zip(*extend(generator, requests, 9), strict=True)]
    for seed, video in zip((1, 2), videos, strict=True):
        np.testing.assert_array_equal(video[:, 0, 0, 0], seed + np.arange(20))
    with pytest.raises(ValueError, match="of one length"):
        next(extend(generator, [requests[0], Request(np.zeros((1, 5), np.float32), 20, 4, 4, 6.0)], 9))


def test_a_loop_is_faded_into_its_first_frame():
    video = np.zeros((9, 4, 4, 3), np.uint8)
    video[1:] = 100
    closed = close_loop(video, 4)
    np.testing.assert_array_equal(closed[:, 0, 0, 0], [0, 100, 100, 100, 100, 80, 60, 40, 20])
    assert close_loop(video[:3], 8)[:, 0, 0, 0].tolist() == [0, 67, 33]
