"""Masks on a grid of cells. True = hidden, everywhere."""

import numpy as np

from l2l_jax.lib.errors import ConfigError


def central(grid: tuple[int, int], cells: int) -> np.ndarray:
    """[h, w] bool, the central cells x cells block; an odd remainder goes right and below."""
    if not 0 < cells < min(grid):
        raise ConfigError(
            f"A central block of {cells} cells does not fit a {grid[0]}x{grid[1]} grid; "
            f"take 1 to {min(grid) - 1}."
        )
    block = np.zeros(grid, bool)
    top, left = (grid[0] - cells) // 2, (grid[1] - cells) // 2
    block[top : top + cells, left : left + cells] = True
    return block
