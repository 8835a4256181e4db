"""Forget footwear and bags on the bundled Fashion-MNIST photographs; keep the clothing.

    python -m l2l_jax.main --config configs/fashion_mnist.py --workdir runs/demo
    python -m l2l_jax.main --config configs/fashion_mnist.py:smoke --workdir runs/smoke
    python -m l2l_jax.main --config configs/fashion_mnist.py:pretrain --workdir runs/pretrain

The first starts from bundled weights (l2l_jax/models/bundled/README.md says how they were made, by
the third) and unlearns classes 5, 7, 8 and 9 with L2L. The second does the same in a fraction of
the steps on a tenth of the images, for tests: its figures mean nothing.
"""

import ml_collections

from configs import common

FORGET = ("Sandal", "Sneaker", "Bag", "Ankle boot")


def get_config(form: str = "") -> ml_collections.ConfigDict:
    """form: "" (the demo), "smoke" or "pretrain"."""
    if form not in ("", "smoke", "pretrain"):
        raise ValueError(
            f"configs/fashion_mnist.py has the forms smoke and pretrain, not {form!r}."
        )
    config = common.base()
    config.model = dict(name="mae", args=dict(size="small", image_size=32))
    config.data.name = "fashion_mnist"
    config.tasks = dict(
        random=dict(task="random", args=dict(ratio=0.75)),
        center=dict(task="center", args=dict(cells=4)),  # of 8: hides 16 x 16 pixels
        outpaint=dict(task="outpaint", args=dict(cells=4)),  # shows 16 x 16 pixels
    )
    config.evaluate.tasks = ("center", "outpaint")
    if form == "pretrain":
        return pretrain(config)

    config.weights = "bundled:mae_fashion_mnist"
    config.split.forget.classes = FORGET
    config.unlearn.args = dict(noise="gaussian_like")
    config.unlearn.solver_args = dict(alpha=0.25)
    config.unlearn.steps = 200
    config.unlearn.batch_size = 64
    config.unlearn.tasks = ("random", "center", "outpaint")
    config.unlearn.optimizer.lr = 3e-4
    config.runtime.save_every = 100
    if form == "smoke":
        config.unlearn.steps = 12
        config.split.images_per_class = 100
        config.split.eval_images_per_class = 25
        config.features.args = dict(epochs=1)
    return config


def pretrain(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The original of the demo, from scratch on all ten classes."""
    config.phases = ("pretrain",)
    config.pretrain = common.phase(
        "pretrain",
        steps=12_000,
        batch_size=128,
        tasks=("random", "center", "outpaint"),
        on="all",
        optimizer=dict(lr=1e-3, warmup=0.05, weight_decay=0.05, clip=1.0),
    )
    config.runtime.save_every = 1000
    return config
