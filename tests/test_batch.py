"""Examples laid into a row, and out of it again."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from small_model import PATCH, SHAPE, SIZES, TEXT_WIDTH, clip, clips, pack

from vdit.batch import RowShape, pack_row, unpack_row
from vdit.patches import patch_positions


@settings(max_examples=30)
@given(order=st.permutations(range(len(SIZES))), count=st.integers(1, len(SIZES)))
def test_round_trip(order, count):
    examples = [clips()[i] for i in order[:count]]
    row = pack_row(examples, SHAPE, PATCH)
    found = unpack_row(row.patches_BLP, row)
    assert len(found) == count
    for patches, example in zip(found, examples, strict=True):
        np.testing.assert_array_equal(patches, example.patches_LP)


def test_every_slot():
    examples = clips()
    row = pack_row(examples, SHAPE, PATCH)
    slot = caption = 0
    for n, example in enumerate(examples):
        for i in range(len(example.text_ME)):
            assert row.segments_BL[slot] == n + 1
            assert row.token_BL[slot] == i
            assert row.text_index_BL[slot] == caption
            assert not row.is_patch_BL[slot]
            assert not row.patches_BLP[slot].any()
            np.testing.assert_array_equal(row.text_BME[caption], example.text_ME[i])
            np.testing.assert_array_equal(row.positions_BL3[slot], (-1 - i, 0, 0))
            slot, caption = slot + 1, caption + 1
        positions = patch_positions(example.grid, PATCH, example.fps)
        for i in range(example.grid.tokens):
            assert row.segments_BL[slot] == n + 1
            assert row.token_BL[slot] == i
            assert row.text_index_BL[slot] == -1
            assert row.is_patch_BL[slot]
            np.testing.assert_array_equal(row.patches_BLP[slot], example.patches_LP[i])
            np.testing.assert_array_equal(row.positions_BL3[slot], positions[i])
            slot += 1
        np.testing.assert_array_equal(row.grid_BN3[n], example.grid)
        assert int(row.ids_BN2[n, 0]) << 32 | int(row.ids_BN2[n, 1]) == example.id
    assert slot == sum(e.tokens for e in examples)
    assert not row.segments_BL[slot:].any()
    assert not row.is_patch_BL[slot:].any()
    assert (row.text_index_BL[slot:] == -1).all()
    assert not row.grid_BN3[len(examples) :].any()
    assert not row.text_BME[caption:].any()


def test_ids_of_64_bits():
    for number in (0, 2**64 - 1, 2**63 + 5, -1):
        row = pack_row([dataclasses.replace(clips()[1], id=number)], SHAPE, PATCH)
        assert int(row.ids_BN2[0, 0]) << 32 | int(row.ids_BN2[0, 1]) == number % 2**64


def test_dtypes_and_stacking():
    batch = pack([clips()[:2], clips()[2:]])
    expected = {
        "patches_BLP": (np.uint8, (64, PATCH.size())),
        "positions_BL3": (np.float32, (64, 3)),
        "segments_BL": (np.int32, (64,)),
        "token_BL": (np.int32, (64,)),
        "text_BME": (np.float32, (16, TEXT_WIDTH)),
        "text_index_BL": (np.int32, (64,)),
        "grid_BN3": (np.int32, (6, 3)),
        "ids_BN2": (np.uint32, (6, 2)),
    }
    assert {name: (a.dtype, a.shape) for name, a in vars(batch).items()} == {
        name: (dtype, (2, *shape)) for name, (dtype, shape) in expected.items()
    }
    latents = dataclasses.replace(clips()[0], patches_LP=clips()[0].patches_LP.astype(np.float16))
    assert pack_row([latents], SHAPE, PATCH).patches_BLP.dtype == np.float16


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (RowShape(51, 6, 16), "need 52 tokens of a row that holds 51; raise data.row_tokens"),
        (RowShape(64, 4, 16), "need 5 examples of a row that holds 4; raise data.row_examples"),
        (RowShape(64, 6, 10), "need 11 text of a row that holds 10; raise data.row_text"),
    ],
)
def test_what_does_not_fit_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        pack_row(clips(), shape, PATCH)


def test_what_just_fits_is_taken():
    row = pack_row(clips(), RowShape(52, 5, 11), PATCH)
    assert (row.segments_BL > 0).all()


def test_tokens_counts_caption_and_patches():
    assert clip(1, 5, 8, 8, 3).tokens == 3 + 3 * 2 * 2
