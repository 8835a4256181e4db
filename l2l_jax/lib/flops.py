"""Floating-point operations and traffic of a function, counted on its jaxpr, without compiling it.

Only matrix products and convolutions are counted, with two operations per multiply-add, as is usual
for model FLOP utilisation. The body of a loop is counted once per iteration; XLA's own cost
analysis counts it once.
"""

import contextvars
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

EFFICIENCY = 0.4  # of a train step on an accelerator: the share of the peak that estimates assume

_counting = contextvars.ContextVar("counting", default=False)


def counting() -> bool:
    """Whether `count` is running: models then use no fused kernels, which it cannot count."""
    return _counting.get()


def count(function: Callable, *args: Any) -> int | float:
    """FLOPs of one call function(*args); args are arrays or jax.ShapeDtypeStruct."""
    return _total(function, args, {"dot_general": _dot, "conv_general_dilated": _conv})


def count_bytes(function: Callable, *args: Any) -> int | float:
    """Bytes of the factors and results of all products and convolutions of one call.

    What a device moves at least, if it fuses all other operations into these, keeps nothing between
    two of them, and reads every factor once.
    """
    return _total(function, args, dict.fromkeys(("dot_general", "conv_general_dilated"), _bytes))


Weigh = Mapping[str, Callable[[core.JaxprEqn], int | float]]  # {primitive: what an equation counts}


def _total(function: Callable, args: Sequence[Any], weigh: Weigh) -> int | float:
    token = _counting.set(True)
    try:
        return _jaxpr(jax.make_jaxpr(function)(*args).jaxpr, weigh)
    finally:
        _counting.reset(token)


def _jaxpr(jaxpr: core.Jaxpr, weigh: Weigh) -> int | float:
    """The count of all equations."""
    return sum(_equation(equation, weigh) for equation in jaxpr.eqns)


def _equation(equation: core.JaxprEqn, weigh: Weigh) -> int | float:
    name, params = equation.primitive.name, equation.params
    if name in weigh:
        return weigh[name](equation)
    inner = [_jaxpr(jaxpr, weigh) for jaxpr in _inner(params)]
    if name == "cond":  # the most expensive branch
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The jaxprs among the parameters of an equation: bodies of loops, branches, calls."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _dot(equation: core.JaxprEqn) -> int | float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = _shape(equation.invars[0])
    inner = math.prod(left[axis] for axis in contracted)
    return 2.0 * inner * math.prod(_shape(equation.outvars[0]))


def _conv(equation: core.JaxprEqn) -> int | float:
    kernel = _shape(equation.invars[1])
    out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(_shape(equation.outvars[0])) * math.prod(kernel) / out_channels


def _bytes(equation: core.JaxprEqn) -> int | float:
    arrays: list[Any] = [each.aval for each in (*equation.invars, *equation.outvars)]
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
