"""Floating-point operations of a function, counted on its jaxpr before anything is compiled.

Only matrix products and convolutions count, two operations a multiply-add, as is usual for model
FLOP utilisation. Loops are counted as often as they run, which XLA's own cost analysis does not do.
"""

import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

_counting = contextvars.ContextVar("counting", default=False)


def counting() -> bool:
    """Whether a count is being taken: fused kernels, opaque to it, then step aside."""
    return _counting.get()


def count(function: Callable, *args: Any) -> float:
    """FLOPs of one call with arguments of these shapes (arrays or ShapeDtypeStructs)."""
    token = _counting.set(True)
    try:
        return _jaxpr(jax.make_jaxpr(function)(*args).jaxpr)
    finally:
        _counting.reset(token)


def _jaxpr(jaxpr: core.Jaxpr) -> float:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: core.JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _conv(equation)
    inner = [_jaxpr(jaxpr) for jaxpr in _inner(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _dot(equation: core.JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    inner = math.prod(left[axis] for axis in contracted)
    return 2.0 * inner * math.prod(equation.outvars[0].aval.shape)


def _conv(equation: core.JaxprEqn) -> float:
    kernel = equation.invars[1].aval.shape
    out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / out_channels
