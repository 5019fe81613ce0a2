"""What a compiled program moves, read from its optimized HLO: bytes of each top-level operation, and what there is."""

import math
import re
from collections import Counter
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16}
"""The width of types whose name has no number, or another one."""

MOVES_NOTHING = {
    "after-all",
    "async-done",
    "async-update",
    "bitcast",
    "constant",
    "copy-done",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "slice-done",
    "tuple",
}
"""Operations that neither read nor write; the ends of what runs beside the program are counted where it starts."""

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")

_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"(?:to_apply|calls)=%?([\w.\-]+)")


class Traffic(NamedTuple):
    """What one program does on one device.

    Attributes:
        moved: bytes that its top-level operations read and write in the device's memory.
        fusions: top-level operations that are loops or kernels.
        collectives: how many there are of each kind.
        kernels: calls of Pallas kernels.
    """

    moved: int
    fusions: int
    collectives: dict[str, int]
    kernels: int


class Operation(NamedTuple):
    """A line of a computation: what it gives, what it is, and the rest of the line."""

    result: str
    kind: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """The names of its operands."""
        return re.findall(r"%([\w.\-]+)", self.rest[: _closing(self.rest)])


def traffic(hlo: str) -> Traffic:
    """What the text of an optimized program says."""
    computations, entry = _computations(hlo)
    found: Counter[str] = Counter()
    moved = _moved(computations, entry, found)
    collectives = {kind: sum(n for name, n in found.items() if name.startswith(kind)) for kind in COLLECTIVES}
    loops = found["fusion"] + found["custom-call"]
    return Traffic(moved, loops, {kind: n for kind, n in collectives.items() if n}, found["kernel"])


def bytes_of(shape: str) -> int:
    """The bytes of an array, or of a tuple, in the device's memory, with what its tiles add; 0 in faster memory."""
    return sum(_bytes(*found) for found in _ARRAY.findall(shape))


def _bytes(dtype: str, sizes: str, layout: str, *, everywhere: bool = False) -> int:
    """The bytes of one array; `everywhere`: in faster memory too."""
    if re.search(r"S\([1-9]", layout) and not everywhere:
        return 0
    bits = BITS.get(dtype) if dtype in BITS else int(re.sub(r"\D*(\d+).*", r"\1", dtype))
    shape = [int(n) for n in sizes.split(",") if n]
    order = [int(n) for n in layout.partition(":")[0].split(",") if n] or list(range(len(shape)))[::-1]
    tile = re.search(r"T\(([\d,]+)\)", layout)
    if tile:
        lengths = [int(n) for n in tile[1].split(",")][::-1]
        for axis, length in zip(order, lengths, strict=False):  # the fastest axis first
            shape[axis] = -(-shape[axis] // length) * length
    assert bits is not None
    return math.prod(shape) * bits // 8


def _computations(hlo: str) -> tuple[dict[str, dict[str, Operation]], str]:
    """The operations of each computation by name, and which one is run."""
    computations: dict[str, dict[str, Operation]] = {}
    entry, current = "", {}
    for line in hlo.splitlines():
        if line.endswith("{") and ("(" in line) and not line.startswith(" "):
            name = line.removeprefix("ENTRY ").lstrip("%").partition(" ")[0]
            current = computations[name] = {}
            entry = name if line.startswith("ENTRY") else entry
        elif found := _LINE.match(line):
            end = _closing(found[2]) if found[2].startswith("(") else found[2].index(" ")
            kind, _, rest = found[2][end:].strip().partition("(")
            current[found[1]] = Operation(found[2][:end], kind, f"({rest}")
    return computations, entry


def _closing(text: str) -> int:
    """Where the first parenthesis of a text is closed."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == ")" and not depth:
            return i + 1
    return len(text)


def _moved(computations: dict[str, dict[str, Operation]], name: str, found: Counter[str]) -> int:
    """The bytes that a computation moves, and in `found` the operations that move them."""
    moved, operations = 0, computations[name]
    for operation in operations.values():
        kind = operation.kind
        if kind in MOVES_NOTHING or kind.endswith("-done"):
            continue
        if kind == "call":
            called = _CALLED.search(operation.rest)
            assert called is not None
            moved += _moved(computations, called[1], found)
            continue
        pallas = re.search(r'custom_call_target="(tpu_custom_call|__gpu\$xla\.gpu\.triton)"', operation.rest)
        free = kind == "custom-call" and not pallas  # what the compiler itself puts there moves nothing
        if free:
            continue
        found["kernel" if pallas else kind] += 1
        found["custom-call"] += bool(pallas)
        moved += _of(operation, operations)
    return moved


def _of(operation: Operation, operations: dict[str, Operation]) -> int:
    """The bytes of one operation: each operand once, and the result."""
    read = sum(bytes_of(operations[name].result) for name in dict.fromkeys(operation.operands) if name in operations)
    if operation.kind == "copy-start":  # gives the copy, and its source once more
        return read + _bytes(*_ARRAY.findall(operation.result)[0])
    if operation.kind == "slice-start":
        return _bytes(*_ARRAY.findall(operation.result)[1], everywhere=True)
    if operation.kind in ("slice", "dynamic-slice"):
        return 2 * bytes_of(operation.result)
    return read + bytes_of(operation.result)
