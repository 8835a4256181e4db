"""Look at what a model has forgotten: paint a mask, compare completions, attack it and watch.

    painter = explore.Painter(image)               a widget: paint what the models may not see
    explore.completions(models, image, painter.hidden)    each model's completion, with its PSNR
    explore.grid({"original": images, ...})        rows of images under their names
    explore.relearn(model, images, held_out, hidden)      PSNR while somebody retrains the model

`python -m l2l_jax.demo RUN` shows the first two in a browser, and docs/explore.ipynb uses all.
"""

from l2l_jax.explore.attack import relearn
from l2l_jax.explore.html import Html, completions, grid
from l2l_jax.explore.painting import Painter

__all__ = ["Html", "Painter", "completions", "grid", "relearn"]
