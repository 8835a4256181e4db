"""The PSNR of every class by itself, and the classes of the images in the grids."""

from typing import Any

import numpy as np

from l2l_jax.engine.completions import Completer
from l2l_jax.lib import pixels

ClassFigures = dict[str, dict[str, dict[str, Any]]]  # {task: {side: {class: ...}}}


def measure(completer: Completer) -> ClassFigures:
    """{task: {side: {class: {"images": count, "psnr": {variant: dB}}}}}, classes by their titles.

    The PSNR is the mean over the images of a class, on hidden pixels, as evaluators/reconstruction
    computes it over all images of a side.
    """
    found: ClassFigures = {task: {} for task in completer.tasks}
    for task in completer.tasks:
        for side in completer.sides:
            labels, titles = completer.labels(side), completer.titles(side)
            classes = {titles[label]: labels == label for label in np.unique(labels)}
            cells: dict[str, Any] = {
                name: {"images": int(rows.sum()), "psnr": {}} for name, rows in classes.items()
            }
            for variant in completer.variants:
                psnr = pixels.psnr(completer.completions(variant, side, task).mse)
                for name, rows in classes.items():
                    cells[name]["psnr"][variant] = float(np.mean(psnr[rows]))
            found[task][side] = cells
    return found


def examples(completer: Completer) -> dict[str, list[str]]:
    """{side: the class of each column of its grids} of the sides that may be shown."""
    return {
        side: [completer.titles(side)[i] for i in completer.labels(side)[rows]]
        for side in completer.shown
        for rows in [completer.grid_examples(side)]
    }
