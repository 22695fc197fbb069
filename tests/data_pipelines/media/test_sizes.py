"""Fitting sizes to the patch grid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.media.sizes import aspect_change, fit_size
from vdit.patches import Patch

SIDE = st.integers(8, 3000)
PATCHES = st.builds(Patch, st.just(4), st.integers(1, 16), st.integers(1, 16))


@pytest.mark.parametrize(
    ("source", "limit", "wanted"),
    [
        ((720, 1280), 45, (40, 72)),  # the film: within 1.3% of its aspect ratio
        ((720, 1280), 144, (72, 128)),
        ((720, 1280), 0, (720, 1280)),
        ((101, 37), 0, (104, 40)),  # odd sides: nearest multiple
        ((100, 36), 0, (104, 40)),  # halves go up
        ((99, 35), 0, (96, 32)),
        ((480, 480), 37, (48, 48)),
        ((64, 64), 64, (64, 64)),  # exactly at the limit: not scaled
        ((1000, 16), 40, (320, 8)),
        ((5, 5), 0, (8, 8)),
    ],
)
def test_examples(source: tuple[int, int], limit: int, wanted: tuple[int, int]) -> None:
    assert fit_size(*source, Patch(), limit) == wanted


@given(SIDE, SIDE, PATCHES)
def test_without_limit_each_side_changes_by_at_most_half_a_patch(height: int, width: int, patch: Patch) -> None:
    y, x = fit_size(height, width, patch)
    assert y % patch.height == 0 and x % patch.width == 0
    assert abs(y - height) * 2 <= patch.height and abs(x - width) * 2 <= patch.width


@given(SIDE, SIDE, PATCHES, st.integers(1, 400))
def test_with_limit_one_scale_explains_both_sides(height: int, width: int, patch: Patch, limit: int) -> None:
    try:
        y, x = fit_size(height, width, patch, limit)
    except ValueError:  # only where even a row or column of single patches is too much
        long, short = max(height / patch.height, width / patch.width), min(height / patch.height, width / patch.width)
        assert long / (2 * short) + 0.5 >= limit + 1 - 1e-9  # half a patch across, it rounds to more than the limit
        return
    rows, columns = y // patch.height, x // patch.width
    assert rows * columns <= limit
    assert rows * patch.height == y and columns * patch.width == x
    # Some scale of at most 1 takes both sides to within half a patch.
    low = max((rows - 0.5) * patch.height / height, (columns - 0.5) * patch.width / width)
    high = min((rows + 0.5) * patch.height / height, (columns + 0.5) * patch.width / width)
    assert low <= min(high, 1) + 1e-9


@given(st.integers(200, 3000), st.integers(200, 3000), st.integers(16, 400))
def test_scaled_sizes_use_the_limit(height: int, width: int, limit: int) -> None:
    y, x = fit_size(height, width, Patch(), limit)
    assert y * x // 64 >= 0.5 * min(limit, height * width / 64) - max(y, x) / 8


def test_of_near_sizes_the_nearest_aspect_ratio_is_taken() -> None:
    y, x = fit_size(720, 1280, Patch(), 54)  # 9x6 fills the limit, 9x5 is nearer
    assert (y, x) == (40, 72)
    assert abs(aspect_change((720, 1280), (y, x)) - 1) < 0.013


@pytest.mark.parametrize(("height", "width", "limit"), [(3, 100, 0), (100, 3, 0), (8, 4000, 10)])
def test_impossible_sizes_are_errors(height: int, width: int, limit: int) -> None:
    with pytest.raises(ValueError):
        fit_size(height, width, Patch(), limit)
