"""Cutting clips into patches and back, positions, and what is refused."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from vdit.patches import REFERENCE_RATE, Grid, Patch, patch_positions, patchify, unpatchify

EXTENT = st.integers(1, 5)
PATCHES = st.builds(Patch, time=st.sampled_from([1, 2, 4]), height=EXTENT, width=EXTENT)
GRIDS = st.builds(Grid, EXTENT, EXTENT, EXTENT)


def clip(patch: Patch, grid: Grid, channels: int = 3, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (patch.frames(grid.t), grid.y * patch.height, grid.x * patch.width, channels)
    return rng.integers(0, 256, shape, np.uint8) if dtype == np.uint8 else rng.normal(size=shape).astype(dtype)


@given(patch=PATCHES, grid=GRIDS, channels=st.sampled_from([1, 3, 4]), dtype=st.sampled_from([np.uint8, np.float32]))
def test_round_trip(patch, grid, channels, dtype):
    video = clip(patch, grid, channels, dtype)
    assert patch.grid(*video.shape[:3]) == grid
    patches = patchify(video, patch)
    assert patches.shape == (grid.tokens, patch.size(channels))
    back = unpatchify(patches, grid, patch)
    assert patches.dtype == back.dtype == dtype
    np.testing.assert_array_equal(back, video)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("patch", "grid"), [(Patch(4, 8, 8), Grid(3, 1, 5)), (Patch(2, 3, 5), Grid(1, 3, 2))])
def test_jax_equals_numpy(patch, grid, dtype):
    video = clip(patch, grid, dtype=dtype)
    patches = patchify(video, patch)
    found = patchify(jnp.asarray(video), patch)
    assert isinstance(found, jnp.ndarray)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, patches)
    back = unpatchify(found, grid, patch)
    assert isinstance(back, jnp.ndarray)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, video)


@given(patch=PATCHES, grid=GRIDS, data=st.data())
def test_a_patch_holds_its_piece_of_the_clip(patch, grid, data):
    """Patches run over time, row, column; elements over time, row, column, channel."""
    video = clip(patch, grid)
    g, y, x = (data.draw(st.integers(0, n - 1)) for n in grid)
    patches = patchify(video, patch).reshape(*grid, patch.time, patch.height, patch.width, 3)
    rows, columns = slice(y * patch.height, (y + 1) * patch.height), slice(x * patch.width, (x + 1) * patch.width)
    frames = [0] * patch.time if g == 0 else range(1 + (g - 1) * patch.time, 1 + g * patch.time)
    for t, frame in enumerate(frames):
        np.testing.assert_array_equal(patches[g, y, x, t], video[frame, rows, columns])


def test_the_copies_of_the_first_frame_are_averaged():
    patch, grid = Patch(2, 1, 1), Grid(2, 1, 1)
    patches = np.array([[1.0, 3.0], [5.0, 6.0]], np.float32)
    np.testing.assert_array_equal(unpatchify(patches, grid, patch).ravel(), [2, 5, 6])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((0, 8, 8), "frames=0 is not 1 [+] k[*]4; cut the clip to 1"),
        ((8, 8, 8), "frames=8 is not 1 [+] k[*]4; cut the clip to 5"),
        ((5, 12, 8), "height=12 is not a positive multiple of the patch's 8"),
        ((5, 0, 8), "height=0 is not a positive multiple"),
        ((5, 8, 7), "width=7 is not a positive multiple"),
    ],
)
def test_sizes_off_the_grid_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        Patch(4, 8, 8).grid(*size)
    if min(size):
        with pytest.raises(ValueError, match=message):
            patchify(np.zeros((*size, 3), np.uint8), Patch(4, 8, 8))


@given(frames=st.integers(1, 200), time=st.integers(1, 8))
def test_floor_frames_is_the_longest_length_on_the_grid(frames, time):
    patch = Patch(time, 1, 1)
    floor = patch.floor_frames(frames)
    assert floor <= frames < floor + time
    assert patch.frames(patch.grid(floor, 1, 1).t) == floor


def test_positions():
    positions = patch_positions(Grid(2, 2, 3), Patch(4, 8, 8), fps=12.0)
    assert positions.dtype == np.float32
    group = 4 / 12 * REFERENCE_RATE
    expected = [(t * group, y, x) for t in range(2) for y in range(2) for x in range(3)]
    np.testing.assert_allclose(positions, expected, rtol=1e-6)
