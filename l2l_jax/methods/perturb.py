"""Perturb: move the parameters towards a fresh initialisation (UNDO, Lee et al., NeurIPS 2025).

    theta <- (1 - a) theta + a theta0        theta0: a new draw of the model's initialisation

The second of the three steps of "Distillation Robustifies Unlearning" (arXiv 2506.06278): unlearn,
perturb, distill. Unlearning hides knowledge in the parameters; the perturbation damages it, and
methods/distill.py then rebuilds what the retain images need. `a` is the share of the fresh
initialisation. At a = 0 nothing changes, to the last bit; at a = 1 nothing is left.

`layers` replaces `a` for parts of the model: pairs of a path and its share, such as
(("encoder/blocks/0", 0.8), ("decoder", 0.2)). A path is the beginning of the names of parameters in
a weights file; the last pair that fits a parameter counts. In the bundled MAE it is the early
blocks of the encoder that hold the knowledge which relearning brings back.

The phase takes no step and reads no image. It costs one initialisation of the model. The draw
depends on the seed and the name of the phase, so that two phases of one run draw differently, and
neither draws what a `pretrain` of the run started from. The result is not stored: a continued run
computes it again from the end of the phase before.
"""

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.lib import trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Bounds, ImageToImage, Metrics, Params, Rng, Scalar, UnlearnBatch

TRAINABLE = ("encoder", "decoder")
SIDES = ()
TEACHER = False
MAKES_ORIGINAL = False
BOUNDS = {"a": Bounds(0, 1), "layers": Bounds(0, 1)}


def begin(
    model: ImageToImage, params: Params, rng: Rng, *, a: int | float = 0.5, layers: tuple = ()
) -> Params:
    """Returns all groups; those of TRAINABLE are moved. ConfigError as `objectives`."""
    shares, fresh = _shares(model, a, layers), model.init(rng)

    def blend(x: jax.Array, y: jax.Array, share: np.ndarray) -> jax.Array:
        mixed = (1 - share) * x + share * y
        return jnp.where(share == 0, x, jnp.where(share == 1, y, mixed)).astype(x.dtype)

    moved = {group: jax.tree.map(blend, params[group], fresh[group], shares[group])
             for group in TRAINABLE}  # fmt: skip
    return params | moved


def _shares(model: ImageToImage, a: int | float, layers: tuple) -> Params:
    """The share of every parameter of TRAINABLE: float32 arrays that broadcast to it."""
    canonical = {group: model.canonical[group] for group in TRAINABLE}
    shapes = trees.flatten(canonical)
    shares = dict.fromkeys(shapes, float(a))
    for pair in layers:
        if not (isinstance(pair, tuple | list) and list(map(type, pair))[:1] == [str]
                and len(pair) == 2 and isinstance(pair[1], int | float)):  # fmt: skip
            raise ConfigError(
                f"perturb: layers are pairs of a path and a share, such as (('encoder', 0.7),), "
                f"not {pair!r}."
            )
        path, share = pair
        fitting = [name for name in shapes if f"{name}/".startswith(f"{path.rstrip('/')}/")]
        if not fitting:
            parts = dict.fromkeys("/".join(name.split("/")[:3]) for name in shapes)
            raise ConfigError(
                f"perturb: no parameter has a name that begins with {path!r}. The model has "
                f"{', '.join(parts)}."
            )
        shares |= dict.fromkeys(fitting, float(share))
    full = {name: np.full((1,) * len(shapes[name].shape), x, np.float32)
            for name, x in shares.items()}  # fmt: skip
    template = {group: model.template[group] for group in TRAINABLE}
    return trees.stack(trees.unflatten(full), template)


def objectives(
    model: ImageToImage,
    student: Params,
    teacher: Params,
    batch: UnlearnBatch,
    rng: Rng,
    *,
    a: int | float = 0.5,
    layers: tuple = (),
) -> tuple[Scalar, Scalar, Metrics]:
    """Returns (0, 0, {}): there is nothing to minimise.

    ConfigError if `layers` holds anything but pairs, or a path that no parameter has.
    """
    del student, teacher, batch, rng
    _shares(model, a, layers)
    return jnp.zeros(()), jnp.zeros(()), {}
