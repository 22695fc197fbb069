"""Reads the text of a compiled HLO module: computations, instructions, shapes, trip counts and replica groups.

Only what a cost reading needs is parsed. The text is what `jax.stages.Compiled.as_text()` returns; its grammar is that
of XLA's HLO printer (https://openxla.org/xla/operation_semantics names the operations).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import numpy as np

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_LEAF = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_BITS = re.compile(r"^(?:pred|[a-z]+(\d+))")

HBM, VMEM, HOST = 0, 1, 5
"""Memory spaces in layouts."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array of an instruction's result: element type, dimensions and memory space."""

    dtype: str
    dims: tuple[int, ...]
    space: int = HBM

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Size without the padding of tiles."""
        match = _BITS.match(self.dtype)
        bits = int(match.group(1) or 8) if match else 0  # token and opaque types have no size
        return self.elements * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: as printed.
      shapes: the arrays of its result, those of a tuple one after another.
      operands: names of instructions of the same computation (for a constant or parameter: what stands in brackets).
      attributes: the text after the operands.
      root: it is the result of its computation.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool

    def attribute(self, name: str) -> str:
        """The value of `name=value` as printed; "" if there is none."""
        match = re.search(rf"(?:^|, ){name}=", self.attributes)
        if not match:
            return ""
        depth = 0
        for place in range(match.end(), len(self.attributes)):
            letter = self.attributes[place]
            depth += (letter in "([{") - (letter in ")]}")
            if letter == "," and not depth:
                return self.attributes[match.end() : place]
        return self.attributes[match.end() :]

    @property
    def calls(self) -> tuple[str, ...]:
        """Computations it runs."""
        names = ("calls", "to_apply", "body", "condition", "true_computation", "false_computation")
        found = [self.attribute(name) for name in names]
        found += self.attribute("branch_computations").strip("{}").split(", ")
        return tuple(name.lstrip("%") for name in found if name)

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)

    @property
    def cycles(self) -> int:
        """The compiler's estimate for one execution, 0 where it makes none."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(match.group(1)) if match else 0

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match.group(1) if match else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """A named list of instructions."""

    name: str
    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def root(self) -> Instruction:
        return next(instruction for instruction in self.instructions if instruction.root)

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions that compute its operands."""
        return [self.by_name[name] for name in instruction.operands if name in self.by_name]


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program of one device."""

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str) -> Module:
    """The computations of a module's text.

    Raises:
      ValueError: if the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry = name = ""
    lines: list[Instruction] = []
    text = re.sub(r"\n(?=[^\s%}]|\}.)(?!ENTRY)", "", text)  # metadata of kernels have line breaks
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name, lines = header.group(2), []
            entry = name if header.group(1) else entry
        elif line == "}" and name:
            computations[name] = Computation(name, tuple(lines))
            name = ""
        elif name and (instruction := _instruction(line)):
            lines.append(instruction)
    if entry not in computations:
        raise ValueError("the text is not that of a compiled HLO module: it has no ENTRY computation")
    return Module(computations, computations[entry])


def _instruction(line: str) -> Instruction | None:
    match = _NAME.match(line)
    if not match:
        return None
    start = match.end()
    end = _closing(line, start) if line[start] == "(" else line.index(" ", start)
    bracket = line.index("(", end)
    close = _closing(line, bracket)
    return Instruction(
        name=match.group(2),
        opcode=line[end:bracket].strip(),
        shapes=shapes(line[start:end]),
        operands=tuple(
            re.sub(r"/\*.*?\*/", "", part).strip().lstrip("%") for part in line[bracket + 1 : close - 1].split(",")
        ),
        attributes=line[close:].lstrip(", "),
        root=bool(match.group(1)),
    )


def _closing(line: str, start: int) -> int:
    """Index after the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(line)):
        depth += (line[place] == "(") - (line[place] == ")")
        if not depth:
            return place + 1
    raise ValueError(f"unbalanced brackets in HLO: {line[:120]}")


def shapes(text: str) -> tuple[Shape, ...]:
    """The arrays of a printed type."""
    out = []
    for dtype, dims, layout in _LEAF.findall(text):
        space = _SPACE.search(layout)
        out.append(
            Shape(dtype, tuple(map(int, dims.split(","))) if dims else (), int(space.group(1)) if space else HBM)
        )
    return tuple(out)


def trip_count(module: Module, caller: Computation, loop: Instruction) -> int | None:
    """How often the body of a while loop runs, or None if that depends on data.

    Understands loops that count up to a bound: condition `i < n`, body `i + step`, with constants or values that the
    loop carries unchanged from constants.
    """
    condition, body = (module.computations[loop.attribute(name).lstrip("%")] for name in ("condition", "body"))
    init = caller.operands(loop)[0]
    test = condition.root
    if test.opcode != "compare" or test.attribute("direction") != "LT":
        return None
    counter, bound = (source(condition, value) for value in condition.operands(test))
    if counter.opcode != "get-tuple-element":
        return None
    place = int(counter.attribute("index"))
    limit = _constant(caller, condition, bound, init)
    start = _carried(caller, init, place)
    step = _step(body, place)
    if limit is None or start is None or not step:
        return None
    return max(0, -(-(limit - start) // step))


def _constant(caller: Computation, inside: Computation, value: Instruction, init: Instruction) -> int | None:
    """An integer known in the condition: a constant, or an element of the loop's state."""
    if value.opcode == "get-tuple-element":
        return _carried(caller, init, int(value.attribute("index")))
    return _integer(inside, value)


def _carried(caller: Computation, init: Instruction, place: int) -> int | None:
    """The constant that element `place` of a loop's state starts as."""
    if init.opcode != "tuple":
        return None
    return _integer(caller, caller.by_name[init.operands[place]])


def source(computation: Computation, value: Instruction) -> Instruction:
    """What a value is a copy of, seen through changes of layout."""
    while value.opcode in ("copy", "bitcast", "reshape", "transpose"):
        value = computation.operands(value)[0]
    return value


def _integer(computation: Computation, value: Instruction) -> int | None:
    value = source(computation, value)
    if value.opcode != "constant" or not re.fullmatch(r"-?\d+", value.operands[0]):
        return None
    return int(value.operands[0])


def _step(body: Computation, place: int) -> int | None:
    """By how much the counter grows each time."""
    if body.root.opcode != "tuple":
        return None
    value = source(body, body.by_name[body.root.operands[place]])
    if value.opcode != "add":
        return None
    left, right = (source(body, part) for part in body.operands(value))
    return _integer(body, right) if left.opcode == "get-tuple-element" else _integer(body, left)


def groups(text: str) -> np.ndarray:
    """Devices that take part in a collective together, (groups, devices of a group).

    Args:
      text: what stands after `replica_groups=`, in one of three notations: `{{0,1},{2,3}}`, `[2,4]<=[4,2]T(1,0)` or
        `mesh['a'=2,'b'=4] {'b'}`, the last perhaps with the order of its devices, `, device_ids=([4,2]T(1,0))`.

    Raises:
      ValueError: for another notation.
    """
    if match := re.match(r"mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", text):
        return _mesh_groups(*match.groups(default=""))
    if match := re.match(r"\[([\d,]+)\]<=(\[\S*)", text):
        return _iota(match.group(2)).reshape(_numbers(match.group(1)))
    if match := re.match(r"\{((?:\{[\d,]+\},?)+)\}", text):
        return np.array([_numbers(row) for row in re.findall(r"\{([\d,]+)\}", match.group(1))])
    raise ValueError(f"replica_groups={text[:80]} is not understood")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _iota(text: str) -> np.ndarray:
    """`[4,2]T(1,0)`: 0 ... 7 as 4 x 2, transposed."""
    dims, order = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()  # type: ignore[union-attr]
    grid = np.arange(math.prod(_numbers(dims))).reshape(_numbers(dims))
    return grid.transpose(_numbers(order)) if order else grid


def _mesh_groups(axes: str, order: str, used: str) -> np.ndarray:
    """Axes are split where only a part of one takes part: `'a':(2)4` is the 4 after the leading 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    parts: list[tuple[int, bool]] = []
    wanted = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", used)
    for name, size in sizes.items():
        spans = [(int(a or 1), int(b or size)) for axis, a, b in wanted if axis == name]
        done = 1
        for before, length in sorted(spans):
            parts += [(before // done, False), (length, True)]
            done = before * length
        parts.append((size // done, False))
    devices = _iota(order) if order.startswith("[") else np.array(_numbers(order)) if order else None
    flat = np.arange(math.prod(sizes.values())) if devices is None else devices.reshape(-1)
    grid = flat.reshape([length for length, _ in parts])
    outside_first = sorted(range(len(parts)), key=lambda i: parts[i][1])
    return grid.transpose(outside_first).reshape(-1, math.prod(length for length, inside in parts if inside))
