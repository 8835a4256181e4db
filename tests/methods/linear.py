"""A linear model of patches whose unit c copies the mean of channel c, and images for it."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.types import Batch, UnlearnBatch
from tests.helpers import ROOT

PATH = ROOT / "tests" / "plugins" / "models" / "example_linear.py"


def linear_model(gain=1.0):
    """(the model with 4x4 patches of 4x4 pixels and four units, its planted parameters).

    gain: what the decoder multiplies the means by.
    """
    spec = importlib.util.spec_from_file_location("planted_linear", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build(image_size=16, cell=4, width=4)
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), model.template)
    for c in range(3):
        params["encoder"]["kernel"][c::3, c] = 1 / 16
        params["decoder"]["kernel"][c, c::3] = gain
    return model, jax.tree.map(jnp.asarray, params)


def of_channels(*channels, seed=0, count=8):
    """[count, 16, 16, 3]: random in these channels, 0 in the others."""
    made = np.zeros((count, 16, 16, 3), np.float32)
    drawn = np.random.default_rng(seed).random(made.shape, np.float32)
    made[..., list(channels)] = drawn[..., list(channels)]
    return jnp.asarray(made)


def batch(retain, forget, hide=True):
    """Both sides with the upper half of every image hidden, or with nothing hidden."""
    mask = jnp.zeros((len(retain), 4, 4), bool).at[:, :2].set(hide)
    return UnlearnBatch(*(Batch(side, mask) for side in (retain, forget)))
