"""What the compiler's temporary memory holds: activations kept for the backward pass, gradients, the rest."""

from __future__ import annotations

from collections.abc import Iterator

from vdit.planning.hlo import HBM, HOST, Computation, Instruction, Module, source, trip_count


def stacked(module: Module) -> dict[str, int]:
    """Bytes of the arrays that loops over layers fill, an entry a layer.

    The loop of the forward pass stacks what the backward pass needs, the loop of the backward pass the gradients.

    Returns:
      {"activations", "gradients", "host activations"}: of the loops that stack most, on one device.
    """
    found = {"activations": 0, "gradients": 0, "host activations": 0}
    for caller, loop in _loops(module, module.entry):
        trips = trip_count(module, caller, loop)
        if not trips or trips < 2:
            continue
        body = module.computations[loop.attribute("body").lstrip("%")]
        written = [
            shape
            for place, shape in enumerate(loop.shapes)
            if shape.dims and shape.dims[0] == trips and not _passed_on(body, place)
        ]
        backward = "transpose(" in loop.op_name
        hbm = sum(shape.bytes for shape in written if shape.space == HBM)
        kind = "gradients" if backward else "activations"
        found[kind] = max(found[kind], hbm)
        if not backward:
            found["host activations"] = max(
                found["host activations"], sum(shape.bytes for shape in written if shape.space == HOST)
            )
    return found


def _loops(module: Module, computation: Computation) -> Iterator[tuple[Computation, Instruction]]:
    for instruction in computation.instructions:
        if instruction.opcode == "while":
            yield computation, instruction
        if instruction.opcode in ("while", "call", "conditional"):
            for name in instruction.calls:
                yield from _loops(module, module.computations[name])


def _passed_on(body: Computation, place: int) -> bool:
    """Element `place` of the loop's state leaves the body as it entered."""
    if body.root.opcode != "tuple":
        return False
    value = source(body, body.by_name[body.root.operands[place]])
    return value.opcode == "get-tuple-element" and int(value.attribute("index")) == place
