"""A Flax NNX module as pure functions of a plain nested dict.

`nnx.merge` fills leaves by sorted position, not by name: a renamed or permuted tree would be
accepted in silence. `Pure.bind` is the only place that merges, and it compares names and shapes
first; under jit that costs nothing at run time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from l2l_jax.lib import trees
from l2l_jax.types import Array, Params


class Pure:
    """`build(rngs)` makes the module; `template` holds names, shapes and dtypes of its arrays."""

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        self._graph, state, rest = nnx.split(abstract, nnx.Param, ...)
        if jax.tree.leaves(rest):
            raise ValueError("The module holds state besides parameters; steps could not be pure.")
        self.template: Params = nnx.to_pure_dict(state)

    def init(self, rng: Array) -> Params:
        """Fresh parameters; rng is a typed key."""
        return nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(rng)), nnx.Param))

    def bind(self, params: Params) -> nnx.Module:
        """The module with these parameters; ValueError names what differs from the template."""
        if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, self.template):
            raise ValueError(trees.difference(params, self.template, "given", "model"))
        return nnx.merge(self._graph, params)
