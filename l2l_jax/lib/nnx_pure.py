"""A Flax NNX module as pure functions of a plain nested dict.

`nnx.merge` assigns leaves by sorted position, not by name, so it would accept a renamed or permuted
tree silently. `PureModule.bind`, the only place that merges, compares names and shapes first; under
jit this costs nothing at run time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l_jax.lib import trees
from l2l_jax.types import Params, Rng


class _Keys(nnx.RngStream):
    """The keys of nnx.RngStream, counted in Python.

    Flax counts in an array. Inside a trace each update of that array makes an error with a long
    text and drops it, which takes a third of the time to trace `init`.
    """

    def __init__(self, key: Rng):
        super().__init__(key, tag="default")
        self.drawn = 0

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.drawn)
        self.drawn += 1
        return key


def _rngs(key: Rng) -> nnx.Rngs:
    """nnx.Rngs(key), faster inside a trace."""
    rngs = nnx.Rngs()
    rngs.default = _Keys(key)  # pyright: ignore[reportAttributeAccessIssue]: streams are attributes
    return rngs


class PureModule:
    """The module that build(rngs) makes, as pure functions.

    template: names, shapes and dtypes of its parameters, as jax.ShapeDtypeStruct. ValueError if the
    module has state besides parameters.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        abstract = nnx.eval_shape(lambda: build(_rngs(jax.random.key(0))))
        self._graph, state, rest = nnx.split(abstract, nnx.Param, ...)
        if jax.tree.leaves(rest):
            raise ValueError("The module has state besides parameters, so it is no pure function.")
        self.template: Params = nnx.to_pure_dict(state)

    def init(self, rng: Rng) -> Params:
        """Fresh parameters."""
        return nnx.to_pure_dict(nnx.state(self._build(_rngs(rng)), nnx.Param))

    def bind(self, params: Params) -> Any:
        """The module with these parameters; ValueError if they differ from the template."""
        if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, self.template):
            raise ValueError(trees.difference(params, self.template, "given", "model"))
        return nnx.merge(self._graph, params)
