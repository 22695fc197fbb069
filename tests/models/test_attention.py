"""Chunked attention against the dense reference, in value and gradient, on any packing."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from small_model import one_device

from vdit.config import UserError
from vdit.models.attention import attention
from vdit.parallel.mesh import to_global, use_mesh

ROWS, SLOTS, HEADS, WIDTH = 2, 24, 2, 4
BLOCKS = (4, 7, 64)
"""Dividing the row, not dividing it, larger than it."""


def segments(*rows: list[int]) -> np.ndarray:
    """Segment ids of rows with segments of the given lengths, then padding."""
    out = np.zeros((len(rows), SLOTS), np.int32)
    for row, lengths in zip(out, rows, strict=True):
        row[: sum(lengths)] = np.repeat(np.arange(len(lengths)) + 1, lengths)
    return out


@st.composite
def packed_row(draw) -> list[int]:
    lengths, room = [], draw(st.integers(0, SLOTS))
    while room:
        lengths.append(draw(st.integers(1, room)))
        room -= lengths[-1]
    return lengths


def arrays(seed: int = 0, count: int = 4, dtype=np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(ROWS, SLOTS, HEADS, WIDTH)).astype(dtype) for _ in range(count)]


@functools.cache
def _function(backend: str, block: int):
    def both(q, k, v, grad, segments_BL):
        function = functools.partial(attention, segments_BL=segments_BL, backend=backend, block=block)
        out, pull = jax.vjp(function, q, k, v)
        return out, *pull(grad)

    return jax.jit(both)


def run(backend: str, block: int, inputs: list[np.ndarray], segments_BL: np.ndarray) -> list[np.ndarray]:
    """[out, dq, dk, dv] for inputs [q, k, v, gradient of out]."""
    mesh = one_device()
    with use_mesh(mesh):
        return [np.asarray(x) for x in _function(backend, block)(*to_global((*inputs, segments_BL), mesh))]


def by_hand(inputs: list[np.ndarray], segments_BL: np.ndarray) -> np.ndarray:
    q, k, v = inputs[:3]
    out = np.zeros_like(q)
    for b in range(ROWS):
        for segment in set(segments_BL[b]) - {0}:
            (own,) = np.nonzero(segments_BL[b] == segment)
            for h in range(HEADS):
                score = q[b, own, h] @ k[b, own, h].T / np.sqrt(WIDTH)
                weight = np.exp(score - score.max(-1, keepdims=True))
                out[b, own, h] = weight / weight.sum(-1, keepdims=True) @ v[b, own, h]
    return out


def test_reference_is_softmax_within_segments():
    segments_BL = segments([5, 1, 9], [24])
    out, *_ = run("reference", 0, arrays(), segments_BL)
    np.testing.assert_allclose(out, by_hand(arrays(), segments_BL), atol=1e-6)


@settings(max_examples=30)
@given(rows=st.tuples(packed_row(), packed_row()), block=st.sampled_from(BLOCKS), seed=st.integers(0, 99))
@example(rows=([SLOTS], [1] * SLOTS), block=4, seed=0)
@example(rows=([SLOTS], [1] * SLOTS), block=7, seed=0)
@example(rows=([SLOTS], [1] * SLOTS), block=64, seed=0)
@example(rows=([], [3]), block=4, seed=0)
def test_chunked_equals_reference(rows, block, seed):
    segments_BL = segments(*rows)
    found = run("chunked", block, arrays(seed), segments_BL)
    expected = run("reference", 0, arrays(seed), segments_BL)
    for name, a, b in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6, err_msg=name)
        assert not a[segments_BL == 0].any(), f"{name} is not 0 in padding"


@pytest.mark.parametrize("scale", [30.0, 1e-3])
def test_softmax_is_stable(scale):
    """Scores of thousands overflow a softmax without its running maximum."""
    q, k, v, grad = arrays(3)
    inputs, segments_BL = [q * scale, k * scale, v, grad], segments([9, 11], [24])
    for a, b in zip(run("chunked", 4, inputs, segments_BL), run("reference", 0, inputs, segments_BL), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * max(1, scale))


@pytest.mark.parametrize(("backend", "block"), [("reference", 0), ("chunked", 4), ("chunked", 7), ("chunked", 64)])
def test_nothing_leaks_between_segments(backend, block):
    segments_BL = segments([5, 6, 7], [10, 9])
    mine = segments_BL == 2
    before, after = arrays(1), arrays(2)
    after = [np.where(mine[..., None, None], a, b) for a, b in zip(before, after, strict=True)]
    for name, a, b in zip(
        ("out", "dq", "dk", "dv"),
        run(backend, block, before, segments_BL),
        run(backend, block, after, segments_BL),
        strict=True,
    ):
        np.testing.assert_array_equal(a[mine], b[mine], err_msg=name)  # bit for bit
        assert not np.array_equal(a[~mine], b[~mine])
    before[3] = np.where(mine[..., None, None], before[3], 0)
    for gradient in run(backend, block, before, segments_BL)[1:]:
        assert not gradient[~mine].any()
        assert gradient[mine].any()


@pytest.mark.parametrize("block", [7])
def test_bfloat16(block):
    segments_BL = segments([13, 6], [4, 20])
    exact = [jnp.asarray(x, jnp.bfloat16) for x in arrays(5)]
    found = run("chunked", block, [np.asarray(x) for x in exact], segments_BL)
    expected = run("reference", 0, [np.asarray(x, np.float32) for x in exact], segments_BL)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b, atol=0.02 * np.abs(b).max())


def test_unknown_backend():
    with pytest.raises(UserError, match="model.attention='cudnn' is not one of reference, chunked"):
        attention(*arrays()[:3], segments([1], [1]), backend="cudnn", block=4)
