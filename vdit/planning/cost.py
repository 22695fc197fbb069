"""What one step of a compiled program does on one device: cycles, matrix products, memory traffic, collectives.

Everything is multiplied by the trip counts of the loops around it, which XLA's own cost_analysis() does not do.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from vdit.planning.hlo import HBM, Computation, Instruction, Module, groups, source, trip_count

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all", "partition-id")
_COPIES = ("copy", "transpose", "reshape", "bitcast")
_SLICES = ("slice", "dynamic-slice", "dynamic-update-slice", "pad", "concatenate", "gather", "scatter", "broadcast")


@dataclasses.dataclass(frozen=True)
class Op:
    """Work of the matrix and vector units: one instruction, run `count` times.

    Attributes:
      kind: "matmul", "elementwise", "copies" (changes of layout), "slices" (cutting and joining) or "prefetch" (copies
        that run beside the computation).
      cycles: the compiler's estimate of all runs.
      flops: of the matrix products in it, all runs.
      bytes: HBM traffic of all runs.
    """

    kind: str
    name: str
    op_name: str
    count: int
    cycles: int
    flops: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective, run `count` times.

    Attributes:
      kind: one of `COLLECTIVES`.
      bytes: the whole array on one device, of one run: the result of a gather, what is reduced, what is exchanged.
      devices: numbers of the devices of one group.
      overlapped: the compiler runs it beside computation.
      slices: it goes over the data-centre network, between all slices.
    """

    kind: str
    op_name: str
    count: int
    bytes: int
    devices: tuple[int, ...]
    overlapped: bool
    slices: bool = False


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Pallas call, run `count` times; the compiler knows nothing of its cost."""

    name: str
    op_name: str
    count: int


@dataclasses.dataclass
class Cost:
    """All that one step does on one device.

    Attributes:
      open_loops: loops whose length depends on data; what they do is not counted.
    """

    ops: list[Op] = dataclasses.field(default_factory=list)
    collectives: list[Collective] = dataclasses.field(default_factory=list)
    kernels: list[Kernel] = dataclasses.field(default_factory=list)
    open_loops: list[str] = dataclasses.field(default_factory=list)

    @property
    def flops(self) -> float:
        """FLOPs of matrix products outside Pallas calls."""
        return sum(op.flops for op in self.ops)

    @property
    def cycles(self) -> int:
        return sum(op.cycles for op in self.ops)


def read(module: Module) -> Cost:
    """Counts what the entry computation does."""
    cost = Cost()
    _walk(module, module.entry, 1, cost)
    return cost


def _walk(module: Module, computation: Computation, count: int, cost: Cost) -> None:
    for instruction in computation.instructions:
        opcode = instruction.opcode
        if opcode == "while":
            trips = trip_count(module, computation, instruction)
            if trips is None:
                cost.open_loops.append(instruction.op_name or instruction.name)
            else:
                _walk(module, module.computations[instruction.attribute("body").lstrip("%")], count * trips, cost)
        elif opcode in (
            "call",
            "conditional",
        ):  # of a conditional's branches one runs; which is not known, so all count
            for name in instruction.calls:
                _walk(module, module.computations[name], count, cost)
        elif opcode not in _FREE and not opcode.endswith(("-done", "-update")):
            _leaf(module, computation, instruction, count, cost)


def _leaf(module: Module, computation: Computation, instruction: Instruction, count: int, cost: Cost) -> None:
    """Adds one instruction of a computation that is run `count` times."""
    inside = list(_inside(module, instruction))
    for owner, part in [] if _continues(inside, instruction) else [(computation, instruction), *inside]:
        if part.opcode.removesuffix("-start") in COLLECTIVES:
            beside = part.opcode.endswith("-start") or instruction.name.startswith("async-")
            cost.collectives.append(_collective(owner, part, count, beside))
    if instruction.opcode == "custom-call":
        if "tpu_custom_call" in instruction.attribute("custom_call_target"):
            cost.kernels.append(Kernel(instruction.name, instruction.op_name, count))
        return
    if instruction.opcode == "send" and (
        transfer := re.search(r'megascale_transfer_type="(\w+)"', instruction.attributes)
    ):
        kind = transfer.group(1).lower().replace("_", "-")
        cost.collectives.append(
            Collective(kind, instruction.op_name, count, instruction.shapes[0].bytes, (), True, True)
        )
    if instruction.opcode.removesuffix("-start") in (*COLLECTIVES, "send", "recv"):
        return
    flops = sum(matmul_flops(owner, part) for owner, part in [(computation, instruction), *inside])
    kind = _kind(instruction, [part.opcode for _, part in inside] or [instruction.opcode], flops)
    traffic = memory_traffic(module, computation, instruction)
    if instruction.cycles or flops or traffic:
        op_name = instruction.op_name or next((part.op_name for _, part in inside if part.op_name), "")
        cost.ops.append(
            Op(kind, instruction.name, op_name, count, count * instruction.cycles, count * flops, count * traffic)
        )


def _continues(inside: list[tuple[Computation, Instruction]], fusion: Instruction) -> bool:
    """A fusion shows a collective that an earlier one has started.

    A collective that runs beside computation is printed again in every fusion from its start to its end.
    """
    ends = any("AsyncCollectiveDone" in part.attributes for _, part in inside if part.opcode == "custom-call")
    return ends or any(name.startswith("async_collective_fusion") for name in fusion.calls)


def _inside(module: Module, instruction: Instruction) -> Iterator[tuple[Computation, Instruction]]:
    """Every instruction of the computations that a fusion (or an asynchronous start) runs, at any depth."""
    if instruction.opcode not in ("fusion", "async-start"):
        return
    for name in instruction.calls:
        computation = module.computations[name]
        for part in computation.instructions:
            yield computation, part
            yield from _inside(module, part)


def _kind(instruction: Instruction, opcodes: list[str], flops: float) -> str:
    if instruction.opcode.endswith("-start"):
        return "prefetch"
    if flops:
        return "matmul"
    work = [opcode for opcode in opcodes if opcode not in _FREE and opcode != "fusion"]
    if all(opcode in _COPIES for opcode in work):
        return "copies"
    return "slices" if all(opcode in _COPIES + _SLICES for opcode in work) else "elementwise"


def _collective(owner: Computation, part: Instruction, count: int, overlapped: bool) -> Collective:
    kind = part.opcode.removesuffix("-start")
    result = part.bytes if not part.opcode.endswith("-start") else max(shape.bytes for shape in part.shapes)
    size = max(result, sum(operand.bytes for operand in owner.operands(part)))
    if kind == "collective-permute":
        pairs = re.findall(r"\{(\d+),(\d+)\}", part.attribute("source_target_pairs"))
        devices: tuple[int, ...] = tuple(map(int, pairs[0])) if pairs else ()
    else:
        devices = tuple(int(device) for device in groups(part.attributes.split("replica_groups=")[1])[0])
    if kind == "all-reduce" and any(
        user.opcode in ("dynamic-slice", "slice") and part.name in user.operands for user in owner.instructions
    ):
        kind = "reduce-scatter"  # the compiler prints one that it fuses as an all-reduce of which each takes its slice
    return Collective(kind, part.op_name, count, size, devices, overlapped)


def matmul_flops(computation: Computation, instruction: Instruction) -> float:
    """FLOPs (2 per multiply-add) of a dot or convolution, 0 for anything else.

    The TPU compiler writes dots as convolutions, batch dimensions as spatial ones; only positions of the window that
    meet an element of the input count.
    """
    if instruction.opcode == "dot":
        left = computation.operands(instruction)[0].shapes[0]
        contracted = [int(i) for i in re.findall(r"\d+", instruction.attribute("lhs_contracting_dims"))]
        return 2.0 * instruction.shapes[0].elements * float(np.prod([left.dims[i] for i in contracted]))
    if instruction.opcode != "convolution":
        return 0.0
    (left, right), out = (x.shapes[0] for x in computation.operands(instruction)), instruction.shapes[0]
    lhs, rhs, result = re.split("_|->", instruction.attribute("dim_labels"))
    window = _window(instruction.attribute("window"), sum(label.isdigit() for label in lhs))
    products = right.dims[rhs.index("i")] * out.dims[result.index("f")] * left.dims[lhs.index("b")]
    products //= int(instruction.attribute("batch_group_count") or 1)
    for axis, (stride, low, dilate_in, dilate_window) in enumerate(window):
        sizes = [shape.dims[labels.index(str(axis))] for shape, labels in ((left, lhs), (right, rhs), (out, result))]
        products *= _meetings(sizes, stride, low, dilate_in, dilate_window)
    return 2.0 * products


def _window(text: str, axes: int) -> list[tuple[int, int, int, int]]:
    """(stride, padding before, dilation of the input, dilation of the window) of every spatial axis."""

    def values(name: str, default: str) -> list[str]:
        match = re.search(rf"\b{name}=(\S+?)(?=[\s}}]|$)", text)
        return match.group(1).split("x") if match else [default] * axes

    pads = [pad.split("_")[0] for pad in values("pad", "0_0")]
    columns = values("stride", "1"), pads, values("lhs_dilate", "1"), values("rhs_dilate", "1")
    return [tuple(map(int, row)) for row in zip(*columns, strict=True)]  # type: ignore[misc]


def _meetings(sizes: list[int], stride: int, low: int, dilate_in: int, dilate_window: int) -> int:
    """Pairs of an output place and a place of the window that meet an element of the input, along one axis.

    Args:
      sizes: of the input, the window and the output.
      stride, low: step of the window, and padding before the input.
      dilate_in, dilate_window: distance between elements of the input and of the window.
    """
    size, window, out = sizes
    begin = np.arange(out, dtype=np.int64) * stride - low
    total = 0
    for k in range(window):
        place = begin + k * dilate_window
        total += int(np.sum((place >= 0) & (place <= (size - 1) * dilate_in) & (place % dilate_in == 0)))
    return total


def memory_traffic(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Bytes that one run moves to and from HBM. Of an array that is only cut or written in part, the part counts."""
    if instruction.opcode != "fusion":
        return _plain_traffic(computation, instruction)
    fused = module.computations[instruction.calls[0]]
    total = 0
    for parameter in fused.instructions:
        if parameter.opcode == "parameter":
            operand = computation.by_name.get(instruction.operands[int(parameter.operands[0])])
            if operand is not None and operand.shapes and operand.shapes[0].space == HBM:
                total += min(_bytes_read(fused, parameter), operand.bytes)
    results = fused.operands(fused.root) if fused.root.opcode == "tuple" else [fused.root]
    for result, shape in zip(results, instruction.shapes, strict=False):
        if shape.space == HBM:
            total += _bytes_written(fused, result)
    return total


def _plain_traffic(computation: Computation, instruction: Instruction) -> int:
    written = sum(shape.bytes for shape in instruction.shapes if shape.space == HBM)
    operands = computation.operands(instruction)
    if instruction.opcode in ("dynamic-slice", "slice"):
        return 2 * written
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].bytes
    if instruction.opcode in ("copy-start", "slice-start"):  # the result is (destination, source, context)
        shape = instruction.shapes[0]
        return sum(min(shape.bytes, x.bytes) for x in instruction.shapes[:2] if x.space == HBM)
    return written + sum(shape.bytes for x in operands for shape in x.shapes if shape.space == HBM)


def _bytes_read(fused: Computation, parameter: Instruction) -> int:
    """Bytes of a fusion's parameter that it reads: only slices, if slices are all that it takes."""
    total = 0
    for user in fused.instructions:
        if parameter.name not in user.operands:
            continue
        if user.opcode == "bitcast":
            total += _bytes_read(fused, user)
        elif user.opcode in ("dynamic-slice", "slice"):
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            total += 0  # written in place
        else:
            return parameter.bytes
    return total


def _bytes_written(fused: Computation, result: Instruction) -> int:
    result = source(fused, result) if result.opcode == "bitcast" else result
    if result.opcode == "dynamic-update-slice":
        return fused.operands(result)[1].bytes
    return result.bytes
