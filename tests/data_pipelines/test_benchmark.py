import numpy as np
from absl import flags

from benchmarks import data
from data_pipelines.packing.index import Index
from data_pipelines.reading.store import SHAPES


def test_ways_of_packing_come_out_in_order():
    fills = data.fills(600)
    names = ("planned", "Grain best fit of 16 rows", "16 buckets of length", "padded to the longest")
    values = [fills[f"fill, {name}"] for name in names]
    assert values == sorted(values, reverse=True) and values[0] > 0.98 and values[-1] < 0.2


def test_the_mixed_set_fits_its_rows_and_repeats():
    first, again = data.mixed_index(500), data.mixed_index(500)
    assert isinstance(first, Index) and first.measures.keys() == again.measures.keys()
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in SHAPES)
    assert 0.4 < (first.frames == 1).mean() < 0.6 and first.frames.max() > 33


def test_planning_is_measured():
    figures = data.planning(3000)
    assert figures["balance"] >= 1 and figures["examples/s planned on one core"] > 0
    assert data.TARGETS.keys() & figures.keys() == figures.keys()
    assert "many" in flags.FLAGS
