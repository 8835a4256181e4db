"""Masks on a grid of cells. True = hidden, everywhere.

A task may draw on a grid `finer` times as fine as the model's, so that a hole need not end where a
cell ends; whatever overlaps a hole is then hidden from the model as a whole.
"""

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


def refined(grid: tuple[int, int], finer: int) -> tuple[int, int]:
    """The grid with every cell cut into finer x finer."""
    if finer < 1:
        raise ConfigError(f"A grid is at least 1 time as fine as the model's, not {finer}.")
    return grid[0] * finer, grid[1] * finer


def bounds(hidden: np.ndarray, finer: int) -> tuple[int, int]:
    """(fewest, most) cells of the model that a fixed mask leaves visible: the same number."""
    rows, columns = (side // finer for side in hidden.shape)
    coarse = hidden.reshape(rows, finer, columns, finer).any(axis=(1, 3))
    return int((~coarse).sum()), int((~coarse).sum())
