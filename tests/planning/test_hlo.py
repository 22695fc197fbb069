from pathlib import Path

import numpy as np
import pytest
from planning import make_snippet as made

from vdit.planning import cost, hlo, memory

TEXT = Path(__file__).with_name("two_slices.hlo").read_text()
MODULE = hlo.parse(TEXT)
COST = cost.read(MODULE)


def test_instruction_is_read_in_full():
    line = (
        "  ROOT %a.1 = (bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/s32[]{:T(128)}) fusion(%b, /*index=1*/%c.2), "
        'kind=kLoop, calls=%f, metadata={op_name="x(y)/z"}, backend_config={"w":{"estimated_cycles":"41"},"l":["1"]}'
    )
    found = hlo.parse(f"ENTRY %e (x: f32[]) -> f32[] {{\n{line}\n}}\n").entry.root
    assert (found.name, found.opcode, found.operands, found.calls) == ("a.1", "fusion", ("b", "c.2"), ("f",))
    assert found.shapes == (hlo.Shape("bf16", (2, 3), hlo.VMEM), hlo.Shape("s32", ()))
    assert (found.bytes, found.cycles, found.op_name, found.root) == (12 + 4, 41, "x(y)/z", True)
    assert (found.attribute("kind"), found.attribute("none")) == ("kLoop", "")


def test_text_that_is_no_module():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("module @jit_step {")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("[2,4]<=[4,2]T(1,0)", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("mesh['a'=2,'b'=4] {'b'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=1,'b'=2,'c'=2], device_ids=([2,2]T(1,0)) {'b'}, dimensions={0}", [[0, 1], [2, 3]]),
        ("mesh['a'=2,'b'=2], device_ids=(0,3,1,2) {'b'}", [[0, 3], [1, 2]]),
        ("mesh['a'=8] {'a':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
    ],
)
def test_groups_in_every_notation(text, expected):
    assert hlo.groups(text).tolist() == expected


def test_groups_in_an_unknown_notation():
    with pytest.raises(ValueError, match="replica_groups=<2> is not understood"):
        hlo.groups("<2>")


def test_trip_counts():
    loops = [i for i in MODULE.entry.instructions if i.opcode == "while"]
    # The compiler has peeled one layer off the backward loop.
    assert [hlo.trip_count(MODULE, MODULE.entry, loop) for loop in loops] == [made.TURNS, made.LAYERS, made.LAYERS - 1]


def test_a_loop_whose_length_depends_on_data_is_said_to():
    text = TEXT.replace("s32[]{:T(128)} constant(7)", "s32[]{:T(128)} parameter(1)")
    assert text != TEXT
    found = cost.read(hlo.parse(text))
    assert [name.split("/", 1)[1] for name in found.open_loops] == ["shard_map/while"]
    assert found.flops == COST.flops
    assert not [c for c in found.collectives if c.kind == "collective-permute"]


def test_flops_are_those_of_the_program():
    tokens = made.ROWS * made.LENGTH / 8  # on one of eight devices
    assert COST.flops == 3 * made.LAYERS * 2 * tokens * made.WIDTH**2


def test_collectives_by_kind_and_bytes():
    weight = 2 * made.WIDTH**2  # bfloat16
    found = {}
    for c in COST.collectives:
        name = c.kind, c.slices, c.overlapped
        runs, total = found.get(name, (0, 0))
        found[name] = runs + c.count, total + c.count * c.bytes
    row = made.ROWS * made.LENGTH * made.WIDTH * 2 / 8
    layers = made.LAYERS
    assert found == {
        ("collective-permute", False, True): (made.TURNS, made.TURNS * row),
        # A layer's weight; and after the sum over slices, the half of its gradient that four devices hold quarters of.
        ("all-gather", False, False): (layers + 1, layers * weight + weight / 2),
        ("all-gather", False, True): (layers - 1, (layers - 1) * weight / 2),
        # A layer's gradient is scattered over the row's two devices and then over fsdp; slices sum quarters.
        ("reduce-scatter", False, False): (2 * layers, layers * (weight + weight / 2)),
        ("all-reduce", True, True): (layers, layers * weight / 4),
    }
    ring = next(c for c in COST.collectives if c.kind == "collective-permute")
    assert len(ring.devices) == 2


def test_cycles_count_with_trips_and_by_kind():
    assert COST.cycles == sum(op.cycles for op in COST.ops)
    matmuls = [op for op in COST.ops if op.kind == "matmul"]
    assert sum(op.count for op in matmuls) == 3 * made.LAYERS
    assert all(0.7 < op.flops / op.cycles / 131_072 < 1 for op in matmuls)  # a v5e does 131,072 FLOPs a cycle
    (ring,) = (op for op in COST.ops if op.op_name.endswith("shard_map/while/body/closed_call/mul"))
    assert (ring.kind, ring.count) == ("elementwise", made.TURNS)


def test_activations_and_gradients_among_temporaries():
    found = memory.stacked(MODULE)
    assert found["activations"] == 0  # this small program keeps them in the chip's own memory, not in HBM
    assert found["gradients"] == 0
    hbm = hlo.parse(TEXT.replace("S(1)}", "}"))
    row = made.ROWS * made.LENGTH * made.WIDTH * 2 / 8
    gathered = 2 * made.WIDTH**2
    assert memory.stacked(hbm)["activations"] == made.LAYERS * (row + gathered)


def test_convolutions_that_are_batched_dots():
    text = """
ENTRY %e (a: bf16[4,16,8], b: bf16[4,32,8]) -> bf16[4,16,32] {
  %a = bf16[4,16,8]{2,1,0} parameter(0)
  %b = bf16[4,32,8]{2,1,0} parameter(1)
  ROOT %c = bf16[4,16,32]{2,1,0} convolution(%a, %b), ATTRIBUTES
}
"""
    heads = "window={size=4 stride=3 pad=0_0 lhs_dilate=4}, dim_labels=0bf_0oi->0bf"  # only equal heads meet
    entry = hlo.parse(text.replace("ATTRIBUTES", heads)).entry
    assert cost.matmul_flops(entry, entry.root) == 2 * 4 * 16 * 32 * 8


def test_dot():
    text = """
ENTRY %e (a: f32[4,16,8], b: f32[4,8,32]) -> f32[4,16,32] {
  %a = f32[4,16,8]{2,1,0} parameter(0)
  %b = f32[4,8,32]{2,1,0} parameter(1)
  ROOT %c = f32[4,16,32]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}
}
"""
    entry = hlo.parse(text).entry
    assert cost.matmul_flops(entry, entry.root) == 2 * 4 * 16 * 32 * 8


def test_traffic_counts_slices_and_writes_in_place():
    text = """
%f (p0: f32[10,256], p1: s32[], p2: f32[10,256]) -> f32[10,256] {
  %p0 = f32[10,256]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %s = f32[1,256]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,256}
  %p2 = f32[10,256]{1,0} parameter(2)
  ROOT %u = f32[10,256]{1,0} dynamic-update-slice(%p2, %s, %p1, %zero)
}

ENTRY %e (a: f32[10,256], i: s32[], b: f32[10,256]) -> f32[10,256] {
  %a = f32[10,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %b = f32[10,256]{1,0} parameter(2)
  ROOT %r = f32[10,256]{1,0} fusion(%a, %i, %b), kind=kLoop, calls=%f
}
"""
    module = hlo.parse(text)
    assert cost.memory_traffic(module, module.entry, module.entry.root) == 4 + 2 * 1024  # the index, a row, a row


def test_the_snippet_is_what_the_compiler_prints_today():
    fresh = cost.read(hlo.parse(made.compiled(2).as_text()))
    assert fresh.flops == COST.flops
    assert sum(c.count * c.bytes for c in fresh.collectives) == sum(c.count * c.bytes for c in COST.collectives)
    assert np.isclose(fresh.cycles, COST.cycles, rtol=0.02)
