"""Floating-point operations of a function, counted on its jaxpr, without compiling it.

Only matrix products and convolutions are counted, with two operations per multiply-add, as is usual
for model FLOP utilisation. The body of a loop is counted once per iteration; XLA's own cost
analysis counts it once.
"""

import contextvars
import math
from collections.abc import Callable, Iterator
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
    token = _counting.set(True)
    try:
        return _jaxpr(jax.make_jaxpr(function)(*args).jaxpr)
    finally:
        _counting.reset(token)


def _jaxpr(jaxpr: core.Jaxpr) -> int | float:
    """FLOPs of all equations."""
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: core.JaxprEqn) -> int | float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _conv(equation)
    inner = [_jaxpr(jaxpr) for jaxpr in _inner(params)]
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


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
