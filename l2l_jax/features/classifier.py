"""A small convolutional classifier, trained once on the run's own training images.

The judge of data sets for which no published network exists, as paper A used a Places network for
Places.

It sees the images of every split, forgotten ones included: a judge must know what was forgotten.
Features are the 64 values before the last layer. Seeded, cached under $L2L_CACHE by the digests of
its images, its settings and this file, and stated in the report with its held-out accuracy.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from l2l_jax.lib import files, loader, weightfile
from l2l_jax.lib.errors import WrongWeights
from l2l_jax.lib.pure import Pure
from l2l_jax.lib.splits import Split
from l2l_jax.types import Array, Features, Params, Source

log = logging.getLogger(__name__)

WIDTHS = (32, 64, 128)
FEATURES = 64


class Network(nnx.Module):
    """Three strided 3x3 convolutions, mean over the image, 64 features, class logits."""

    def __init__(self, classes: int, rngs: nnx.Rngs):
        ins = (3, *WIDTHS[:-1])
        self.convs = nnx.List(
            [nnx.Conv(i, o, (3, 3), strides=2, rngs=rngs) for i, o in zip(ins, WIDTHS, strict=True)]
        )
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for width in WIDTHS])
        self.features = nnx.Linear(WIDTHS[-1] * 16, FEATURES, rngs=rngs)
        self.logits = nnx.Linear(FEATURES, classes, rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.gelu(norm(conv(x)))
        x = jax.image.resize(x, (x.shape[0], 4, 4, x.shape[-1]), "linear")
        features = jax.nn.gelu(self.features(x.reshape(x.shape[0], -1)))
        return features, self.logits(features)


def build(
    sources: Mapping[str, Source],
    train: Mapping[str, Split],
    image_size: int,
    *,
    size: int = 32,
    epochs: int = 5,
    lr: float = 2e-3,
    batch_size: int = 128,
    seed: int = 0,
) -> Features:
    """The classifier for these training splits; it resizes every image to `size`."""
    del image_size  # it resizes whatever it gets
    source = sources["train"]
    rows = np.sort(np.concatenate([split.indices for split in train.values()]))
    network = Pure(lambda rngs: Network(len(source.classes), rngs))
    settings = dict(size=size, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed)
    made_by = [*(source.keys[row] for row in rows), *source.classes, json.dumps(settings)]
    key = files.digest_of_lines([*made_by, files.sha256(Path(__file__))])

    def apply(params: Params, images: Array) -> tuple[Array, Array]:
        return network.bind(params)(_resized(images, size))

    path = files.cache_dir() / f"classifier-{key[:16]}.safetensors"
    try:
        cached = weightfile.load(path)
    except (FileNotFoundError, WrongWeights) as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s It is made again.", error)
        params = _train(network, source, rows, settings)
        about = {"model": "classifier", **settings, "images": len(rows), "classes": source.classes}
        about["accuracy"] = _accuracy(apply, params, sources["eval"], size)
        weightfile.save(path, params, about)
        cached = weightfile.load(path)
    log.info("judge: classifier, held-out accuracy %.1f %%", 100 * cached.about["accuracy"])
    return Features("classifier", cached.about, cached.params, apply)


def _resized(images: Array, size: int) -> Array:
    """[B, H, W, 3] in [0, 1] -> [B, size, size, 3] in [-1, 1], antialiased."""
    if images.shape[1] != size:
        images = jax.image.resize(images, (images.shape[0], size, size, 3), "linear")
    return 2 * images - 1


def _load(source: Source, rows: np.ndarray, size: int) -> np.ndarray:
    """uint8 [N, size, size, 3], all in memory: small images of a few ten thousand examples."""
    batches = loader.eval_batches(loader.Picked(source, rows), size, 256, loader.Host())
    return np.concatenate(list(batches))[: len(rows)]


def _train(network: Pure, source: Source, rows: np.ndarray, settings: Mapping) -> Params:
    """AdamW on the cross-entropy; the order of images is a function of the seed."""
    size, batch, seed = settings["size"], settings["batch_size"], settings["seed"]
    log.info("judge: training a classifier on %d images of this run", len(rows))
    images, labels = _load(source, rows, size), source.labels[rows]
    batch = min(batch, len(rows))
    steps = settings["epochs"] * (len(rows) // batch)
    optimizer = optax.adamw(optax.cosine_decay_schedule(settings["lr"], steps))

    @jax.jit
    def update(params: Params, state: optax.OptState, x: Array, y: Array) -> tuple:
        def loss(params: Params) -> Array:
            _, logits = network.bind(params)(_resized(x.astype(jnp.float32) / 255, size))
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = network.init(jax.random.key(seed))
    state = optimizer.init(params)
    for step in range(steps):
        epoch, at = divmod(step, len(rows) // batch)
        order = np.random.default_rng((seed, epoch)).permutation(len(rows))
        chosen = order[at * batch : (at + 1) * batch]
        params, state = update(params, state, images[chosen], labels[chosen])
    return jax.device_get(params)


def _accuracy(apply: object, params: Params, source: Source, size: int) -> float:
    images = _load(source, np.arange(len(source.keys)), size)
    forward = jax.jit(lambda x: jnp.argmax(apply(params, x.astype(jnp.float32) / 255)[1], axis=1))
    guesses = [np.asarray(forward(part)) for part in np.array_split(images, -(-len(images) // 512))]
    return float(np.mean(np.concatenate(guesses) == source.labels))
