"""A small convolutional classifier, trained once on the run's own training images.

The feature network for data sets without a published one; paper A used a Places network for Places
in the same way. It is trained on the training images of every split, forget images included, since
it has to recognise the forgotten classes. Features are the 64 values before the last layer.
Training is seeded. The result is cached under $L2L_CACHE by the digests of its training images, its
settings and this file; that of configs/fashion_mnist.py is bundled (launch/ship_classifier.py). The
report states its accuracy on the held-out images of the run.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from l2l_jax.data import loader
from l2l_jax.lib import files, pixels
from l2l_jax.lib.nnx_pure import PureModule
from l2l_jax.types import (
    SEED_BOUNDS,
    Bounds,
    FeatureNetwork,
    Images,
    NetworkContext,
    Params,
    Source,
    SplitLike,
)

log = logging.getLogger(__name__)

WIDTHS = (32, 64, 128)
FEATURES = 64
BOUNDS = {
    "size": Bounds(8, 1024),
    "epochs": Bounds(1, 10_000),
    "lr": Bounds(0, 0.1, open_low=True),  # the weights of a first layer are about 0.2
    "batch_size": Bounds(1, 1 << 20),
    "seed": SEED_BOUNDS,
}

Features = Float[Array, "B D"]
Logits = Float[Array, "B C"]
Apply = Callable[[Params, Array], tuple[Features, Logits]]


class Network(nnx.Module):
    """Three strided 3x3 convolutions, resized to 4x4, 64 features, class logits."""

    def __init__(self, classes: int, rngs: nnx.Rngs):
        ins = (3, *WIDTHS[:-1])
        self.convs = nnx.List(
            [nnx.Conv(i, o, (3, 3), strides=2, rngs=rngs) for i, o in zip(ins, WIDTHS, strict=True)]
        )
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for width in WIDTHS])
        self.features = nnx.Linear(WIDTHS[-1] * 16, FEATURES, rngs=rngs)
        self.logits = nnx.Linear(FEATURES, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W 3"]) -> tuple[Features, Logits]:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.gelu(norm(conv(x)))
        x = jax.image.resize(x, (x.shape[0], 4, 4, x.shape[-1]), "linear")
        features = jax.nn.gelu(self.features(x.reshape(x.shape[0], -1)))
        return features, self.logits(features)


def build(
    context: NetworkContext,
    *,
    size: int = 32,
    epochs: int = 5,
    lr: float = 2e-3,
    batch_size: int = 128,
    seed: int = 0,
) -> FeatureNetwork:
    """The classifier of the run's images; it resizes every image to size x size.

    It is trained on the splits without the suffix "_eval", except a proxy of another data set,
    which has other classes. Its accuracy is measured on the splits of the eval part, if any.
    """
    sources, splits = context.sources, context.splits
    held_out = {name: split for name, split in splits.items() if split.part == "eval"}
    trained_on = {
        name: split
        for name, split in splits.items()
        if split.part != "proxy" and not name.endswith("_eval")
    }
    train = _examples(sources, trained_on, size)
    test = _examples(sources, held_out, size)
    classes = sources["train"].classes
    network = PureModule(lambda rngs: Network(len(classes), rngs))
    settings = dict(size=size, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed)

    def apply(params: Params, images: Images) -> tuple[Features, Logits]:
        return network.bind(params)(_resized(images, size))

    def make() -> tuple[Params, dict[str, Any]]:
        params = _train(network, apply, *train, settings)
        return params, {"model": "classifier", **settings, "images": len(train[0])}

    params, about = context.cached(f"classifier-{_key(train, classes, settings)}", make)
    about = about | {"held_out": len(test[0])}
    if len(test[0]):
        about["accuracy"] = _accuracy(apply, params, *test)
        log.info("feature network: classifier, held-out accuracy %.1f %%", 100 * about["accuracy"])
    return FeatureNetwork("classifier", about, params, apply)


def _examples(
    sources: Mapping[str, Source], splits: Mapping[str, SplitLike], size: int
) -> tuple[UInt8[np.ndarray, "N size size 3"], Int[np.ndarray, " N"]]:
    """(images, labels) of all splits, in memory: a few tens of thousands of small images."""
    images, labels = [np.zeros((0, size, size, 3), np.uint8)], [np.zeros(0, np.int32)]
    for split in splits.values():
        source = sources[split.part]
        picked = loader.Subset(source, split.indices)
        batches = loader.eval_batches(picked, size, 256, loader.Host())
        images.append(np.concatenate(list(batches))[: len(picked)])
        labels.append(source.labels[split.indices])
    return np.concatenate(images), np.concatenate(labels)


def _key(train: tuple, classes: tuple[str, ...], settings: Mapping) -> str:
    """A digest of all that the classifier depends on."""
    total = hashlib.sha256(files.sha256(Path(__file__)).encode())
    total.update(json.dumps([classes, settings]).encode())
    for array in train:
        total.update(array.tobytes())
    return total.hexdigest()[:16]


def _resized(images: Images, size: int) -> Float[Array, "B {size} {size} 3"]:
    """[B, H, W, 3] in [0, 1] -> [B, size, size, 3] in [-1, 1], antialiased."""
    if images.shape[1] != size:
        images = jax.image.resize(images, (images.shape[0], size, size, 3), "linear")
    return 2 * images - 1


def _train(
    network: PureModule, apply: Apply, images: np.ndarray, labels: np.ndarray, settings: Mapping
) -> Params:
    """Parameters trained with AdamW on the cross-entropy; the seed gives the order of images."""
    log.info("feature network: training a classifier on %d images of this run", len(images))
    batch, seed = min(settings["batch_size"], len(images)), settings["seed"]
    epoch_steps = len(images) // batch
    steps = settings["epochs"] * epoch_steps
    optimizer = optax.adamw(optax.cosine_decay_schedule(settings["lr"], steps))

    @jax.jit
    def update(params: Params, state: optax.OptState, x: Array, y: Array) -> tuple:
        def loss(params: Params) -> Array:
            logits = apply(params, pixels.to_unit_range(x))[1]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = network.init(jax.random.key(seed))
    state = optimizer.init(params)
    for step in range(steps):
        epoch, batch_index = divmod(step, epoch_steps)
        order = np.random.default_rng((seed, epoch)).permutation(len(images))
        rows = order[batch_index * batch : (batch_index + 1) * batch]
        params, state = update(params, state, images[rows], labels[rows])
    return jax.device_get(params)


def _accuracy(apply: Apply, params: Params, images: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the images that are classified correctly, in [0, 1]."""
    forward = jax.jit(functools.partial(apply, params))
    parts = np.array_split(images, -(-len(images) // 512))
    guesses = [
        np.asarray(forward(pixels.to_unit_range(jnp.asarray(part)))[1]).argmax(1) for part in parts
    ]
    return float(np.mean(np.concatenate(guesses) == labels))
