"""What benchmarks.torch_step measures."""

from benchmarks import torch_step
from vdit.patches import Grid


def test_the_mix_is_packed_whole():
    grids = torch_step.mixed_grids(40)
    assert max(grid.tokens for grid in grids) <= torch_step.LONGEST and len(set(grids)) > 10
    batches = torch_step.packed(grids, torch_step.LONGEST + torch_step.WORDS)
    held = sum(int(batch.is_patch_BL.sum()) for batch in batches)
    assert held >= sum(grid.tokens for grid in grids)  # the last step may be filled up with rows seen before
    assert {batch.segments_BL.shape for batch in batches} == {(torch_step.ROWS, 1024)}


def test_pytorch_takes_a_step():
    wall, processor = torch_step.torch_step(64, 1)(2, Grid(2, 4, 6))
    assert wall > 0 and processor > 0
