"""What a compiled program does on one device, read from the text of its HLO instructions.

An instruction in the body of a loop counts as often as the loop runs, if the program says how
often. Programs for TPUs have some collectives in pieces, which run beside the work of others, and a
reduce-scatter as the fusion of an all-reduce and a slice; both are read as what they were.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SCATTER = "all-reduce-scatter"  # how the name of such a fusion begins


@dataclasses.dataclass(frozen=True)
class Array:
    """The type of an array on one device."""

    dtype: str  # HLO's name, such as "f32" or "bf16"
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        bits = re.search(r"\d+", self.dtype)  # "pred" has none: a byte
        return self.size * max(int(bits[0]) // 8 if bits else 1, 1)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction, and how often a call of the program runs it."""

    name: str
    kind: str  # the opcode, such as "dot"; a started collective has the name of the whole
    outputs: tuple[Array, ...]
    operands: tuple[Array, ...]
    text: str  # operands and attributes
    times: int
    looped: bool  # in the body of a loop

    @property
    def bytes(self) -> int:
        """Bytes of what it takes or returns, whichever is more, of all its runs."""
        sides = self.outputs, self.operands
        return self.times * max(sum(array.bytes for array in side) for side in sides)


def instructions(text: str) -> list[Instruction]:
    """All instructions that run, of a program's text (`compiled.as_text()`)."""
    computations, entry = _computations(text)
    found: list[Instruction] = []

    def visit(name: str, times: int, looped: bool) -> None:
        lines = computations.get(name, [])
        types = {own: _arrays(shape) for own, shape, _, _ in lines}
        for own, shape, kind, rest in lines:
            taken, _, attributes = rest.partition(")")
            operands = [types.get(word, ()) for word in re.findall(r"%([\w.\-]+)", taken)]
            base = kind.removesuffix("-start")
            flat = tuple(array for arrays in operands for array in arrays)
            outputs = _arrays(shape)
            if kind != base:  # (operands, results, contexts) of a started collective
                outputs = outputs[len(flat) :] or outputs
            if base == "all-reduce" and name.startswith(_SCATTER):
                base = "reduce-scatter"
            found.append(Instruction(own, base, outputs, flat, rest, times, looped))
            count = _trips(attributes, computations) if kind == "while" else 1
            for called in _called(kind, attributes):
                visit(called, times * count, looped or kind == "while")

    visit(entry, 1, False)
    return found


def collectives(text: str, least: int = 1024) -> list[Instruction]:
    """The collectives of a program that move at least so many bytes in a run.

    The pieces of one collective have one channel; the largest stands for it.
    """
    found: dict[str, Instruction] = {}
    for x in instructions(text):
        if x.kind in COLLECTIVES and x.bytes >= least * x.times:
            channel = _CHANNEL.search(x.text)
            key = channel[1] if channel else x.name
            found[key] = max(found.get(key, x), x, key=lambda x: x.bytes)
    return list(found.values())


def flops(text: str) -> float:
    """FLOPs of all matrix products and convolutions on one device; see lib/flops.py.

    Of a program for CPU or GPU; a TPU's matrix products are convolutions of other forms.
    """
    return sum(_flops(x) * x.times for x in instructions(text) if x.kind in ("dot", "convolution"))


def total_bytes(found: list[Instruction]) -> dict[str, int]:
    """{kind: bytes} of collectives."""
    totals: collections.Counter[str] = collections.Counter()
    for x in found:
        totals[x.kind] += x.bytes
    return dict(totals)


def _computations(text: str) -> tuple[dict[str, list[tuple[str, str, str, str]]], str]:
    """({name: its instructions as (name, type, opcode, rest of the line)}, the entry's name)."""
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    entry = current = ""
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            current = start[2]
            found[current] = []
            entry = current if start[1] else entry
        elif (parsed := _INSTRUCTION.match(line)) and current:
            found[current].append(parsed.groups())  # type: ignore[arg-type]  # four strings
    return found, entry


def _trips(attributes: str, computations: Mapping[str, list[tuple[str, str, str, str]]]) -> int:
    """How often a loop runs: as XLA notes, or the only whole number that its condition holds."""
    if known := _TRIPS.search(attributes):
        return int(known[1])
    condition = _CONDITION.search(attributes)
    lines = computations.get(condition[1], []) if condition else []
    numbers = [rest for _, _, kind, rest in lines if kind == "constant"]
    found = [re.match(r"(\d+)\)", rest) for rest in numbers]
    return int(found[0][1]) if len(found) == 1 and found[0] else 1


def _called(kind: str, attributes: str) -> Iterator[str]:
    """The computations that an instruction runs; not the sum of a collective or of a reduction."""
    if kind not in ("while", "fusion", "call", "conditional", "async-start"):
        return
    yield from _CALLED.findall(attributes)
    for branches in _BRANCHES.findall(attributes):
        yield from re.findall(r"%?([\w.\-]+)", branches)


def _arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a type: one, or those of a tuple."""
    return tuple(
        Array(dtype, tuple(int(n) for n in shape.split(",") if n))
        for dtype, shape in _SHAPE.findall(text)
    )


def _flops(x: Instruction) -> float:
    out = math.prod(x.outputs[0].shape)
    if x.kind == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", x.text)
        axes = [int(n) for n in contracted[1].split(",") if n] if contracted else []
        return 2.0 * out * math.prod(x.operands[0].shape[axis] for axis in axes)
    labels = re.search(r"dim_labels=\w+_(\w+)->", x.text)
    assert labels, "a convolution names its axes"
    kernel = x.operands[1].shape
    return 2.0 * out * math.prod(kernel) / kernel[labels[1].index("o")]
