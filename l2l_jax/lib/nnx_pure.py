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


class PureModule:
    """The module that build(rngs) makes, as pure functions.

    template: names, shapes and dtypes of its parameters, as jax.ShapeDtypeStruct. ValueError if the
    module has state besides parameters.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        self._graph, state, rest = nnx.split(abstract, nnx.Param, ...)
        if jax.tree.leaves(rest):
            raise ValueError("The module has state besides parameters, so it is no pure function.")
        self.template: Params = nnx.to_pure_dict(state)

    def init(self, rng: Rng) -> Params:
        """Fresh parameters."""
        return nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(rng)), nnx.Param))

    def bind(self, params: Params) -> Any:
        """The module with these parameters; ValueError if they differ from the template."""
        if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, self.template):
            raise ValueError(trees.difference(params, self.template, "given", "model"))
        return nnx.merge(self._graph, params)
