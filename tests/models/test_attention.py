"""Every attention backend against the dense reference, in value and gradient, on any packing and layout."""

import contextlib
import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from hypothesis import example, given, settings
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from small_model import one_device

from vdit.config import MeshConfig
from vdit.errors import UserError
from vdit.models.attention.attention import attention
from vdit.models.attention.gpu import gpu_attention, key_ranges
from vdit.models.attention.splash import active_blocks
from vdit.parallel.mesh import make_mesh, rows_spec, tokens_spec, use_mesh

ROWS, SLOTS, HEADS, WIDTH = 2, 24, 2, 4
BLOCKS = (4, 5, 7, 64)
"""Dividing the row, not dividing it; two of which four hold the row, which is then one dense product."""
LONG = 300
"""Slots of a row that takes three of splash's smallest blocks of 128, the last of them in part."""
NAMES = ("out", "dq", "dk", "dv")
TPU = pltpu.InterpretParams()
flags.FLAGS.mark_as_parsed()  # tokamax reads absl flags, as they are in every command of ours


def segments(*rows: list[int], slots: int = SLOTS) -> np.ndarray:
    """Segment ids of rows with segments of the given lengths, then padding."""
    out = np.zeros((len(rows), slots), np.int32)
    for row, lengths in zip(out, rows, strict=True):
        row[: sum(lengths)] = np.repeat(np.arange(len(lengths)) + 1, lengths)
    return out


@st.composite
def packed_row(draw, slots: int = SLOTS) -> list[int]:
    lengths, room = [], draw(st.integers(0, slots))
    while room:
        lengths.append(draw(st.integers(1, room)))
        room -= lengths[-1]
    return lengths


def arrays(seed: int = 0, count: int = 4, dtype=np.float32, slots: int = SLOTS) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(ROWS, HEADS, slots, WIDTH)).astype(dtype) for _ in range(count)]


@functools.cache
def _function(backend: str, block: int, context: str):
    def both(q, k, v, grad, segments_BL):
        attend = functools.partial(attention, segments_BL=segments_BL, backend=backend, block=block, context=context)
        out, pull = jax.vjp(attend, q, k, v)
        return out, *pull(grad)

    return jax.jit(both)


@functools.cache
def mesh_of(context: int, tensor: int = 1) -> jax.sharding.Mesh:
    config = MeshConfig(replica=1, context=context, tensor=tensor)
    return make_mesh(config, jax.devices()[: context * tensor])


def run(
    backend: str,
    block: int,
    inputs: list[np.ndarray],
    segments_BL: np.ndarray,
    mesh: jax.sharding.Mesh | None = None,
    context: str = "auto",
) -> list[np.ndarray]:
    """[out, dq, dk, dv], each _BLHK, for inputs [q, k, v, gradient of out], each _BHLK.

    Splash leaves something in padding, whose gradient must be 0; it is cut off here.
    """
    mesh = mesh or one_device()
    real = (segments_BL > 0)[:, None, :, None]
    if backend == "splash":
        inputs = [*inputs[:3], np.where(real, inputs[3], np.zeros_like(inputs[3]))]
    interpret = pltpu.force_tpu_interpret_mode(TPU) if backend == "splash" else contextlib.nullcontext()
    with use_mesh(mesh), interpret:
        heads = NamedSharding(mesh, P(("replica", "fsdp"), "tensor", "context", None))
        placed = [jax.device_put(x, heads) for x in inputs]
        ids = jax.device_put(segments_BL, NamedSharding(mesh, tokens_spec(2)))
        found = [np.asarray(x) for x in _function(backend, block, context)(*placed, ids)]
    if backend == "splash":
        assert np.isfinite(found[0].astype(np.float32)).all()
        found[0] = np.where(real, found[0], np.zeros_like(found[0]))
    return [x.swapaxes(1, 2) for x in found]


def assert_close(found, expected, rtol=1e-4, atol=2e-6):
    for name, a, b in zip(NAMES, found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=name)


def by_hand(inputs: list[np.ndarray], segments_BL: np.ndarray) -> np.ndarray:
    q, k, v = inputs[:3]
    out = np.zeros_like(q)
    for b in range(ROWS):
        for segment in set(segments_BL[b]) - {0}:
            (own,) = np.nonzero(segments_BL[b] == segment)
            for h in range(HEADS):
                score = q[b, h, own] @ k[b, h, own].T / np.sqrt(WIDTH)
                weight = np.exp(score - score.max(-1, keepdims=True))
                out[b, h, own] = weight / weight.sum(-1, keepdims=True) @ v[b, h, own]
    return out.swapaxes(1, 2)


def test_reference_is_softmax_within_segments():
    segments_BL = segments([5, 1, 9], [24])
    out, *_ = run("reference", 0, arrays(), segments_BL)
    np.testing.assert_allclose(out, by_hand(arrays(), segments_BL), atol=1e-6)


@settings(max_examples=30)
@given(rows=st.tuples(packed_row(), packed_row()), block=st.sampled_from(BLOCKS), seed=st.integers(0, 99))
@example(rows=([SLOTS], [1] * SLOTS), block=4, seed=0)
@example(rows=([SLOTS], [1] * SLOTS), block=5, seed=0)
@example(rows=([SLOTS], [1] * SLOTS), block=7, seed=0)
@example(rows=([SLOTS], [1] * SLOTS), block=64, seed=0)
@example(rows=([], [3]), block=4, seed=0)
def test_chunked_equals_reference(rows, block, seed):
    segments_BL = segments(*rows)
    found = run("chunked", block, arrays(seed), segments_BL)
    assert_close(found, run("reference", 0, arrays(seed), segments_BL))
    for name, a in zip(NAMES, found, strict=True):
        assert not a[segments_BL == 0].any(), f"{name} is not 0 in padding"


def test_a_row_of_four_chunks_is_no_loop():
    q = jnp.zeros((ROWS, HEADS, SLOTS, WIDTH))
    ids = jnp.asarray(segments([SLOTS], [3]))
    with use_mesh(one_device()):
        traced = [str(_function("chunked", block, "auto").trace(q, q, q, q, ids).jaxpr) for block in (5, 6)]
    assert ["while" in program for program in traced] == [True, False]


@settings(max_examples=12)
@given(rows=st.tuples(packed_row(LONG), packed_row(LONG)), seed=st.integers(0, 99))
@example(rows=([LONG], [1] * LONG), seed=0)
@example(rows=([], [256, 3]), seed=0)
@example(rows=([3, 125, 128, 44], [129]), seed=0)
def test_splash_equals_reference(rows, seed):
    segments_BL, inputs = segments(*rows, slots=LONG), arrays(seed, slots=LONG)
    found = run("splash", 128, inputs, segments_BL)
    for name, a in zip(NAMES[1:], found[1:], strict=True):
        assert not a[segments_BL == 0].any(), f"{name} is not 0 in padding"
    assert_close(found, run("reference", 0, inputs, segments_BL))


LAYOUTS = {
    "ring of 2": (2, 1, "ring"),
    "ring of 4": (4, 1, "ring"),
    "ring of 8": (8, 1, "ring"),
    "all to all": (2, 1, "all_to_all"),
    "ring, heads cut": (4, 2, "ring"),
}


@pytest.mark.parametrize(("context", "tensor", "kind"), LAYOUTS.values(), ids=LAYOUTS.keys())
@settings(max_examples=8)
@given(rows=st.tuples(packed_row(), packed_row()), block=st.sampled_from((1, 4)), seed=st.integers(0, 99))
@example(rows=([SLOTS], [1] * SLOTS), block=1, seed=0)
@example(rows=([SLOTS], [1] * SLOTS), block=4, seed=0)
@example(rows=([], [3, 2]), block=4, seed=0)
def test_rows_over_several_devices_equal_reference(context, tensor, kind, rows, block, seed):
    """A device's part of a row is walked in chunks of one token, and is one product with chunks of four."""
    segments_BL = segments(*rows)
    found = run("chunked", block, arrays(seed), segments_BL, mesh_of(context, tensor), kind)
    assert_close(found, run("reference", 0, arrays(seed), segments_BL))
    for name, a in zip(NAMES, found, strict=True):
        assert not a[segments_BL == 0].any(), f"{name} is not 0 in padding"


@pytest.mark.parametrize("kind", ["ring", "all_to_all"])
@pytest.mark.parametrize("rows", [([256], [1] * 200), ([3, 140, 90], [100])], ids=["long and many", "mixed"])
def test_splash_over_several_devices_equals_reference(kind, rows):
    segments_BL, inputs = segments(*rows, slots=256), arrays(slots=256)
    found = run("splash", 128, inputs, segments_BL, mesh_of(2), kind)
    assert_close(found, run("reference", 0, inputs, segments_BL))


@pytest.mark.parametrize("rows", [([24], [5, 1, 9]), ([1] * 24, [3]), ([], [20])], ids=str)
def test_what_the_gpu_kernels_are_asked_equals_reference(rows):
    """The mask of key ranges, computed by tokamax's plain XLA code; the GPU's kernels cannot run here."""
    segments_BL, inputs = segments(*rows), arrays()

    def both(q, k, v, grad):
        attend = functools.partial(gpu_attention, segments_BL=segments_BL, implementations=("xla",))
        out, pull = jax.vjp(attend, q, k, v)
        return out, *pull(grad)

    inputs[3] = np.where((segments_BL > 0)[:, None, :, None], inputs[3], 0)
    out, *grads = (np.asarray(x).swapaxes(1, 2) for x in jax.jit(both)(*inputs))
    out = np.where((segments_BL > 0)[..., None, None], out, 0)
    assert_close([out, *grads], run("reference", 0, inputs, segments_BL))


def test_key_ranges():
    start_BL, end_BL = key_ranges(jnp.asarray(segments([2, 3], [1], slots=6)))
    np.testing.assert_array_equal(start_BL, [[0, 0, 2, 2, 2, 5], [0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(end_BL, [[2, 2, 5, 5, 5, 6], [1, 2, 3, 4, 5, 6]])


def test_active_blocks_are_those_that_share_a_segment():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = rng.integers(1, 9, 8)
        segments_BL = segments(list(lengths), slots=80)
        same = (segments_BL[:, :, None] == segments_BL[:, None]) & (segments_BL > 0)[:, :, None]
        expected = same.reshape(1, 20, 4, 20, 4).any((2, 4))
        np.testing.assert_array_equal(active_blocks(segments_BL, segments_BL, 4), expected)
        traced = jax.jit(active_blocks, static_argnums=2)(segments_BL, segments_BL, 4)
        np.testing.assert_array_equal(traced, expected)


@pytest.mark.parametrize("scale", [30.0, 1e-3])
@pytest.mark.parametrize(
    ("backend", "block", "context"), [("chunked", 4, 1), ("chunked", 64, 1), ("chunked", 1, 4), ("splash", 128, 1)]
)
def test_softmax_is_stable(backend, block, context, scale):
    """Scores of thousands overflow a softmax without its running maximum."""
    q, k, v, grad = arrays(3)
    inputs, segments_BL = [q * scale, k * scale, v, grad], segments([9, 11], [24])
    found = run(backend, block, inputs, segments_BL, mesh_of(context))
    for a, b in zip(found, run("reference", 0, inputs, segments_BL), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * max(1, scale))


WAYS = [("reference", 0, 1), *(("chunked", block, 1) for block in BLOCKS), ("chunked", 1, 4), ("chunked", 4, 4)]
WAYS += [("splash", 128, 1)]


@pytest.mark.parametrize(("backend", "block", "context"), WAYS)
def test_nothing_leaks_between_segments(backend, block, context):
    segments_BL = segments([5, 6, 7], [10, 9])
    mine = segments_BL == 2
    before, after = arrays(1), arrays(2)
    keep = mine[:, None, :, None]
    after = [np.where(keep, a, b) for a, b in zip(before, after, strict=True)]
    mesh = mesh_of(context)
    for name, a, b in zip(
        NAMES,
        run(backend, block, before, segments_BL, mesh),
        run(backend, block, after, segments_BL, mesh),
        strict=True,
    ):
        np.testing.assert_array_equal(a[mine], b[mine], err_msg=name)  # bit for bit
        assert not np.array_equal(a[~mine], b[~mine])
    before[3] = np.where(keep, before[3], 0)
    for gradient in run(backend, block, before, segments_BL, mesh)[1:]:
        assert not gradient[~mine].any()
        assert gradient[mine].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("block", "context"), [(4, 1), (5, 1), (7, 1), (64, 1), (1, 4), (4, 4)])
def test_what_is_not_finite_stays_in_its_segment(block, context, value):
    """A chunk reaches into the next segment: 0 times NaN is NaN."""
    segments_BL, inputs = segments([5, 6, 7], [10, 9, 5]), arrays(1)
    mine = segments_BL == 2
    broken = [np.where(mine[:, None, :, None], np.float32(value), x) for x in inputs]
    clean = run("chunked", block, inputs, segments_BL, mesh_of(context))
    found = run("chunked", block, broken, segments_BL, mesh_of(context))
    for name, a, b in zip(NAMES, found, clean, strict=True):
        np.testing.assert_array_equal(a[~mine], b[~mine], err_msg=name)
        assert not np.isfinite(a[mine]).all(), name


@pytest.mark.parametrize("block", [5, 64])
@pytest.mark.parametrize("broken", range(4))
def test_what_is_not_finite_is_seen_in_its_segment(broken, block):
    """In q, k, v or the gradient: none is hidden by a weight of 0 or by zeros that stand in its place."""
    segments_BL, inputs = segments([5, 6, 7], [10, 9, 5]), arrays(1)
    clean = run("chunked", block, inputs, segments_BL)
    inputs[broken] = inputs[broken].copy()
    inputs[broken][0, :, 6] = np.nan
    mine = np.zeros_like(segments_BL, bool)
    mine[0] = segments_BL[0] == 2
    out, *gradients = run("chunked", block, inputs, segments_BL)
    assert np.isfinite(out[mine]).all() == (broken == 3)
    depends = gradients if broken != 2 else gradients[:2]  # the gradient by v does not depend on v
    assert not any(np.isfinite(a[mine]).all() for a in depends)
    for name, a, b in zip(NAMES, (out, *gradients), clean, strict=True):
        np.testing.assert_array_equal(a[~mine], b[~mine], err_msg=name)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_reference_is_not_touched_by_what_padding_holds(value):
    segments_BL, inputs = segments([5, 6], [10]), arrays(1)
    padding = (segments_BL == 0)[:, None, :, None]
    found = run("reference", 0, [np.where(padding, np.float32(value), x) for x in inputs], segments_BL)
    clean = run("reference", 0, [np.where(padding, np.float32(0), x) for x in inputs], segments_BL)
    for name, a, b in zip(NAMES, found, clean, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize(("backend", "block"), [("reference", 0), ("chunked", 2), ("chunked", 4), ("splash", 128)])
def test_scores_are_not_scaled_in_bfloat16(backend, block):
    """1/sqrt(7) is off by 0.25% in bfloat16, and log2(e), by which splash multiplies, by 0.18%.

    Each query sees a key of score 7 whose value is 0, and one of score -7: what it gets, e^-14 of the second value,
    shows the error of the scores 14 times.
    """
    width, slots = 7, 16
    q = np.sqrt(width) * np.random.default_rng(0).uniform(0.5, 1.5, (ROWS, HEADS, slots, width))
    k = np.where(np.arange(slots)[:, None] % 2, -1.0, 1.0) * np.ones((ROWS, HEADS, slots, width))
    v = np.where(k < 0, 2.0**20, 0)
    rounded = [np.asarray(x, jnp.bfloat16) for x in (q, k, v, np.ones_like(q))]
    score_BHL1 = rounded[0].astype(float).sum(-1, keepdims=True) * width**-0.5
    expected = np.broadcast_to(2**20 / (1 + np.exp(2 * score_BHL1)), q.shape).swapaxes(1, 2)
    out, *_ = run(backend, block, rounded, segments(*[[2] * 8] * ROWS, slots=slots))
    error = np.log(out.astype(float) / expected)  # splash's queries are rounded twice, to either side
    assert abs(error.mean()) < 0.005 and np.abs(error).max() < (0.05 if backend == "splash" else 0.005)


@pytest.mark.parametrize(
    ("backend", "block", "context", "slots"),
    [("chunked", 5, 1, 24), ("chunked", 7, 1, 24), ("chunked", 2, 2, 24), ("splash", 128, 1, LONG)],
)
def test_bfloat16(backend, block, context, slots):
    segments_BL = segments([13, slots - 18], [4, slots - 4], slots=slots)
    exact = [jnp.asarray(x, jnp.bfloat16) for x in arrays(5, slots=slots)]
    found = run(backend, block, [np.asarray(x) for x in exact], segments_BL, mesh_of(context))
    expected = run("reference", 0, [np.asarray(x, np.float32) for x in exact], segments_BL)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b, atol=0.02 * np.abs(b).max())


def test_float64():
    segments_BL, inputs = segments([13, 6], [24]), arrays(5, dtype=np.float64)
    with jax.enable_x64(True):
        expected = run("reference", 0, inputs, segments_BL)
        for context in (1, 2, 4):
            for block in (1, 7):
                assert_close(
                    run("chunked", block, inputs, segments_BL, mesh_of(context), "ring"), expected, 1e-11, 1e-13
                )


WRONG = [
    (dict(backend="cudnn"), 1, "model.attention='cudnn' is not one of auto, chunked, splash, gpu, reference"),
    (dict(backend="chunked", context="all_to_all"), 4, "mesh.context=4 to divide the 2 heads of a device; take ring"),
    (dict(backend="reference"), 4, "model.attention=reference has no ring over mesh.context"),
    (dict(backend="gpu", context="ring"), 2, "model.attention=gpu has no ring over mesh.context"),
    (dict(backend="splash", block=100), 1, "model.attention_block=100 is not a multiple of 128"),
    (dict(backend="gpu"), 1, "model.attention=gpu: no kernel here honours segments"),
]


@pytest.mark.parametrize(("options", "context", "message"), WRONG, ids=[str(options) for options, *_ in WRONG])
def test_what_cannot_be_done_is_one_line(options, context, message):
    mesh = mesh_of(context)
    with use_mesh(mesh), pytest.raises(UserError, match=message) as raised:
        heads = NamedSharding(mesh, P(("replica", "fsdp"), "tensor", "context", None))
        placed = [jax.device_put(x, heads) for x in arrays(count=3)]
        ids = jax.device_put(segments([1], [1]), NamedSharding(mesh, tokens_spec(2)))
        attention(*placed, ids, **options)
    assert "\n" not in str(raised.value)


def test_a_list_of_blocks_that_does_not_fit():
    shapes = [jax.ShapeDtypeStruct((1, 1, 1 << 17, 8), jnp.bfloat16)] * 3
    with use_mesh(one_device()), pytest.raises(UserError, match="do not fit the TPU's scalar memory"):
        place = lambda x: jax.device_put(x, NamedSharding(one_device(), rows_spec(x.ndim)))  # noqa: E731
        attend = lambda q, k, v, s: attention(q, k, v, s, backend="splash")  # noqa: E731
        jax.eval_shape(lambda *x: attend(*map(place, x)), *shapes, jax.ShapeDtypeStruct((1, 1 << 17), jnp.int32))
