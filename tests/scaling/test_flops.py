import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdit import flops

SIZES = {"S": (384, 12), "B": (768, 12), "L": (1024, 24), "XL": (1152, 28)}
PRINTED = {  # Peebles & Xie 2022, table 4, "Gflops"
    "S/8": "0.36", "S/4": "1.41", "S/2": "6.06", "B/8": "1.42", "B/4": "5.56", "B/2": "23.01",
    "L/8": "5.01", "L/4": "19.70", "L/2": "80.71", "XL/8": "7.39", "XL/4": "29.05", "XL/2": "118.64",
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_dit_figures_to_the_printed_digits(name):
    size, patch = name.split("/")
    assert f"{flops.dit_multiply_adds(*SIZES[size], int(patch)) / 1e9:.2f}" == PRINTED[name]


def test_dit_xl2_at_512_pixels():
    assert f"{flops.dit_multiply_adds(*SIZES['XL'], 2, latent=64) / 1e9:.1f}" == "524.6"


def test_forward_count_by_hand():
    d, depth, patch, e, patches, text = 32, 3, 48, 16, 10, 4
    n = patches + text
    block = 3 * d * d * n + d * d * n + 2 * 4 * d * d * n + 2 * n * n * d  # qkv, output, feed-forward, scores and mix
    rest = patch * d * patches * 2 + 24 * d * patches + e * d * text + 128 * d + 6 * d * d + 2 * d * d
    counted = flops.forward_flops(d, depth, 4, patch, patches, text, e)
    assert counted == 2 * (depth * block + rest)
    assert flops.training_flops(flops.ModelShape(d, depth, patch, e), patches, text) == 3 * counted


def test_gated_feed_forward_has_a_third_matrix():
    assert flops.block_weights(8, 4, gated=True) - flops.block_weights(8, 4) == 4 * 64


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), min_size=1, max_size=6), st.integers(0, 20))
def test_a_packed_batch_costs_its_segments_and_padding_nothing(sizes, padding):
    shape = flops.ModelShape(16, 2, 12, 8)
    segments, text_index = [], []
    for number, (patches, text) in enumerate(sizes):
        segments += [number + 1] * (patches + text)
        text_index += [0] * text + [-1] * patches
    segments_BL = np.array([segments + [0] * padding])
    text_index_BL = np.array([text_index + [-1] * padding])
    p, t = np.array(sizes).T
    assert [list(found) for found in flops.segment_sizes(segments_BL, text_index_BL)] == [list(p), list(t)]
    expected = sum(float(flops.training_flops(shape, patches, text)) for patches, text in sizes)
    assert flops.batch_training_flops(shape, segments_BL, text_index_BL) == pytest.approx(expected)
    sums = flops.training_flops_of_sums(shape, p.sum(), t.sum(), ((p + t) ** 2).sum(), len(sizes))
    assert sums == pytest.approx(expected)


def test_counts_approach_6nd_for_wide_models_and_short_segments():
    shape = flops.ModelShape(4096, 32, 64)
    n = flops.parameters(shape)
    assert n.total - n.without_embeddings == (2 * 64 + 24) * 4096
    many = flops.training_flops(shape, 64 * np.ones(10)).sum()
    assert many == pytest.approx(flops.flops_6nd(n.without_embeddings, 640), rel=0.02)
    assert flops.flops_6nd(2, 3) == 36


def test_planned_sizes_are_those_of_the_model():
    from flax import nnx

    from vdit.config import MeshConfig, ModelConfig
    from vdit.data import Interface
    from vdit.models import rotary
    from vdit.models.transformer import SpacetimeTransformer, parameter_counts
    from vdit.parallel.mesh import make_mesh, use_mesh

    with use_mesh(make_mesh(MeshConfig())):
        config, interface = ModelConfig(width=64, depth=3), Interface(48, 16)
        model = nnx.eval_shape(lambda: SpacetimeTransformer(config, interface, nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    body, total = parameter_counts(params)
    planned = flops.parameters(flops.shape_of(config, 48, 16))
    assert planned.without_embeddings == body
    assert planned.total == pytest.approx(total, rel=0.02)
    assert params["time_in"].shape == (flops.TIME_FEATURES, 64)
    assert rotary.POSITION_FEATURES == flops.POSITION_FEATURES


@given(st.lists(st.integers(1, 40), max_size=8), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 8]))
def test_attention_area_counts_blocks_that_share_a_segment(lengths, block_q, block_k):
    segments = np.repeat(np.arange(len(lengths)), lengths)
    q = [set(segments[i : i + block_q]) for i in range(0, len(segments), block_q)]
    k = [set(segments[i : i + block_k]) for i in range(0, len(segments), block_k)]
    blocks = sum(bool(a & b) for a in q for b in k)
    assert flops.attention_area(np.array(lengths, int), block_q, block_k) == blocks * block_q * block_k
    assert flops.attention_area(np.array(lengths, int), 1, 1) == sum(n * n for n in lengths)
