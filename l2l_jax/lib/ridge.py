"""Ridge regression from sums over examples, which can be added and taken out again, in float64.

    minimise  sum_i w_i |W^T x_i + b - y_i|^2 + penalty |W|^2

The solution depends on the examples through two sums only. To take examples out, their part of the
sums is subtracted: what is left is, up to rounding, what the other examples give alone. The bias is
not penalised.
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float

from l2l_jax.lib import sealed

Matrix = Float[np.ndarray, "_ _"]


@dataclasses.dataclass(frozen=True)
class Sums:
    """The two sums of examples with D features and P targets."""

    gram: Float[np.ndarray, "D1 D1"]  # of the features and a 1: sum w x x^T
    cross: Float[np.ndarray, "D1 P"]  # sum w x y^T

    @classmethod
    def of(
        cls,
        features: Float[np.ndarray, "N D"],
        targets: Float[np.ndarray, "N P"],
        weights: Float[np.ndarray, " N"],
    ) -> "Sums":
        """Those of some examples."""
        x = np.concatenate([features, np.ones((len(features), 1))], axis=1).astype(np.float64)
        weighted = x.T * weights.astype(np.float64)
        return cls(weighted @ x, weighted @ targets.astype(np.float64))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.gram + other.gram, self.cross + other.cross)

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(self.gram - other.gram, self.cross - other.cross)

    def solved(self, penalty: float) -> tuple[Float[np.ndarray, "D P"], Float[np.ndarray, " P"]]:
        """(W, b). A penalty above 0 makes the solution unique."""
        ridge = penalty * np.eye(len(self.gram))
        ridge[-1, -1] = 0.0
        solution = np.linalg.solve(self.gram + ridge, self.cross)
        return solution[:-1], solution[-1]


def save(path: Path, sums: Sums) -> None:
    """Writes sums, atomically and with a digest."""
    sealed.write_if_possible(path, "sums", lambda f: np.savez(f, gram=sums.gram, cross=sums.cross))


def load(path: Path) -> Sums | None:
    """The sums of a file; None if it is not there or damaged."""
    import io

    content = sealed.read(path, "sums")
    if content is None:
        return None
    with np.load(io.BytesIO(content)) as arrays:
        return Sums(arrays["gram"], arrays["cross"])
