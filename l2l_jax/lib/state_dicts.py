"""Arrays of a PyTorch state dict, converted to parameters of this project."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from l2l_jax.lib.errors import WrongWeights
from l2l_jax.types import Params


def array_reader(state: Mapping[str, np.ndarray], path: Path) -> Callable[[str], np.ndarray]:
    """Returns take(name), which gives a float32 array of the state dict.

    take raises WrongWeights if the name is missing; path is the file that the message names.
    """

    def take(name: str) -> np.ndarray:
        if name not in state:
            names = ", ".join(sorted(state)[:5])
            message = f"{path} has no {name}. Is it another network? It holds {names}, ..."
            raise WrongWeights(message)
        return np.asarray(state[name], np.float32)

    return take


def fold_batch_norm(
    take: Callable[[str], np.ndarray], weight: str, norm: str, epsilon: float
) -> Params:
    """Kernel and bias of a convolution with the batch normalisation after it folded in.

    weight: name of the kernel [out, in, h, w]; norm: name of the normalisation.
    """
    std = np.sqrt(np.float64(take(f"{norm}.running_var")) + epsilon)
    gain = take(f"{norm}.weight") / std
    kernel = take(weight).transpose(2, 3, 1, 0) * gain
    bias = take(f"{norm}.bias") - take(f"{norm}.running_mean") * gain
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
