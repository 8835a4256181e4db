"""Arrays of a PyTorch state dict as this project's parameters."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.types import Params


def taker(state: Mapping[str, np.ndarray], path: Path) -> Callable[[str], np.ndarray]:
    """name -> array of an official file; WrongWeights names what is missing, and what is there."""

    def take(name: str) -> np.ndarray:
        if name not in state:
            some = ", ".join(sorted(state)[:5])
            raise WrongWeights(f"{path} has no {name}. Is it another network? It holds {some}, ...")
        return np.asarray(state[name], np.float32)

    return take


def folded(take: Callable[[str], np.ndarray], weight: str, norm: str, epsilon: float) -> Params:
    """A convolution, [out, in, h, w], with the batch normalisation after it: kernel and bias."""
    spread = np.sqrt(np.float64(take(f"{norm}.running_var")) + epsilon)
    gain = take(f"{norm}.weight") / spread
    kernel = take(weight).transpose(2, 3, 1, 0) * gain
    bias = take(f"{norm}.bias") - take(f"{norm}.running_mean") * gain
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
