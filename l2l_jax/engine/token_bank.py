"""Tokens that are computed once before training, for models over a frozen tokenizer.

With data.token_cache.views = K the training images are tokenised before the first step: K augmented
views of each, fixed for the whole phase. A step then reads tokens in place of pixels. With
data.token_cache.noise = N, noise targets are drawn from N tokenised noise images whose mean and
standard deviation are those of the forget images, in place of being tokenised in every step.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import images, loader, splits, token_cache
from l2l_jax.data.splits import Split
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.step import rows_name
from l2l_jax.lib import files, hosts, pixels, sharding
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.signatures import keyword_names
from l2l_jax.types import Array, Params

log = logging.getLogger(__name__)

BATCH = 128  # images that one process tokenises at a time
MOMENT_IMAGES = 2048  # forget images at most, whose moments the noise has


class Tokenizer:
    """The model's frozen tokenizer as a program on the devices of this process alone."""

    def __init__(self, experiment: Experiment, params: Params):
        frozen = {"tokenizer": hosts.gather(params["tokenizer"])}
        self.digest = experiment.model.inferred_args(frozen)["tokenizer_digest"]
        self._mesh = sharding.make_mesh(devices=jax.local_devices())
        whole = jax.tree.map(lambda _: sharding.replicated(self._mesh), frozen)
        self._params = sharding.place(frozen, whole)
        self._run = jax.jit(sharding.on(self._mesh, experiment.model.tokenize))
        self._batch = BATCH + -BATCH % self._mesh.size

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """[N, H, W, 3], uint8 or float32 around [0, 1] -> [N, h, w] int32."""
        parts = []
        for at in range(0, len(pictures), self._batch):
            part = pictures[at : at + self._batch]
            full = np.concatenate([part, part[-1:].repeat(self._batch - len(part), axis=0)])
            full = jax.device_put(full, sharding.batch_sharding(self._mesh))
            unit = pixels.to_unit_range(full) if full.dtype == np.uint8 else full
            parts.append(np.asarray(self._run(self._params, unit))[: len(part)])
        return np.concatenate(parts)


def views(experiment: Experiment) -> int:
    """Views of each training image that are given as tokens; 0: images are given as pixels."""
    cache = experiment.config["data"]["token_cache"]
    return cache["views"] if experiment.model.takes_tokens else 0


def noise_count(experiment: Experiment, phase: str) -> int:
    """Noise images that are tokenised before a phase; 0: its method draws them, if it needs any."""
    draws = experiment.plan.phases[phase].method.draw_noise is not None
    wanted = draws and experiment.model.takes_tokens
    return experiment.config["data"]["token_cache"]["noise"] if wanted else 0


def abstract_images(experiment: Experiment, batch: int) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what a step is given of each side."""
    if views(experiment):
        return jax.ShapeDtypeStruct((batch, *experiment.model.grid), np.uint16)
    size = experiment.model.image_size
    return jax.ShapeDtypeStruct((batch, size, size, 3), np.uint8)


def abstract_batch(
    experiment: Experiment, phase: str, sides: Iterable[str]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of what a step of a phase is given, see Experiment.batches."""
    planned = experiment.plan.phases[phase]
    batch = dict.fromkeys(sides, abstract_images(experiment, planned.batch_size))
    if planned.method.needs_seeds(**planned.args):
        rows = jax.ShapeDtypeStruct((planned.batch_size,), np.int32)
        batch |= {rows_name(side): rows for side in sides}
    place = sharding.batch_sharding(experiment.mesh)
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for name, x in batch.items()
    }


def abstract_noise(experiment: Experiment, phase: str) -> jax.ShapeDtypeStruct | None:
    """Shape and dtype of the bank of noise tokens that a step is given; None if there is none."""
    count = noise_count(experiment, phase)
    return jax.ShapeDtypeStruct((count, *experiment.model.grid), np.uint16) if count else None


def prepare(
    phase: str, experiment: Experiment, sides: Mapping[str, Split], params: Params
) -> tuple[dict[str, loader.TrainInput], Array | None]:
    """({side: what the loader reads}, the bank of noise or None); params: all groups."""
    data, size = experiment.config["data"], experiment.model.image_size
    as_tokens, noise = views(experiment), noise_count(experiment, phase)
    tokenizer = Tokenizer(experiment, params) if as_tokens or noise else None
    bank = None
    if tokenizer and noise:
        bank = noise_bank(phase, experiment, sides["forget"], tokenizer)
    if tokenizer and as_tokens:
        kept = cached(experiment, sides, tokenizer)
        return {side: (kept[side], token_cache.draw_view) for side in sides}, bank
    augment = images.augmentation(size, tuple(data["crop"]), data["flip"], data["resize"])
    picked = {s: loader.Subset(experiment.sources[x.part], x.indices) for s, x in sides.items()}
    return {side: (picked[side], augment) for side in sides}, bank


def cached(experiment: Experiment, sides: Mapping[str, Split], tokenizer: Tokenizer) -> dict:
    """{side: token_cache.TokenViews}, made now where it is missing."""
    data, size = experiment.config["data"], experiment.model.image_size
    settings, chosen = data["token_cache"], experiment.config["runtime"]["token_folder"]
    about = {
        "tokenizer": tokenizer.digest,
        "layout": experiment.model.identity["tokenizer"],
        "image_size": size,
        "crop": data["crop"],
        "flip": data["flip"],
        "views": settings["views"],
        "data": [data["name"], _absolute(data["args"])],
    }
    if data["proxy"]["name"]:
        about["proxy"] = [data["proxy"]["name"], _absolute(data["proxy"]["args"])]
    if data["resize"] != "pillow":
        about["resize"] = data["resize"]
    folder = Path(chosen).expanduser() if chosen else _default(about)
    token_cache.record_settings(folder, about)
    augment = images.augmentation(size, tuple(data["crop"]), data["flip"], data["resize"])
    below = {splits.PROXY: folder / splits.PROXY}  # its keys may be those of other images

    def filled(split: Split) -> token_cache.TokenViews:
        where, source = below.get(split.part, folder), experiment.sources[split.part]
        count, host = settings["views"], experiment.host
        return token_cache.load_or_compute(
            where, source, split, count, augment, tokenizer, host, about
        )

    return {side: filled(split) for side, split in sides.items()}


def _absolute(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a data set, with `root` as an absolute path if it is given."""
    root = args.get("root")
    return {**args, "root": str(Path(root).expanduser().resolve())} if root else dict(args)


def _default(about: Mapping[str, Any]) -> Path:
    name = files.digest_of_lines([json.dumps(about, sort_keys=True)])[:16]
    return files.cache_dir() / f"tokens-{name}"


def noise_bank(phase: str, experiment: Experiment, split: Split, tokenizer: Tokenizer) -> Array:
    """uint16 [N, h, w] on the mesh: noise as the phase's method draws it, tokenised."""
    count, size = experiment.config["data"]["token_cache"]["noise"], experiment.model.image_size
    planned = experiment.plan.phases[phase]
    draw, args = planned.method.draw_noise, planned.args
    assert draw
    args = {name: args[name] for name in keyword_names(draw)}
    rows = split.indices[np.linspace(0, len(split.indices) - 1, MOMENT_IMAGES, dtype=int)]
    picked = loader.Subset(experiment.sources[split.part], np.unique(rows))
    total, squares, pixel_count = np.zeros(3), np.zeros(3), 0
    for at in range(len(picked)):
        x = images.resize_crop(picked[at], size).reshape(-1, 3) / 255.0
        total, squares, pixel_count = (
            total + x.sum(0),
            squares + (x**2).sum(0),
            pixel_count + len(x),
        )
    mean = total / pixel_count
    std = np.sqrt(np.maximum(squares / pixel_count - mean**2, 0))
    log.info("tokens: %d noise images", count)
    base, bank = rngs.key(experiment.plan.seed, phase, "noise bank"), []
    for at in range(0, count, BATCH):
        shape = (min(BATCH, count - at), size, size, 3)
        moments = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
        noise = draw(rngs.fold(base, at), shape, *moments, **args)
        bank.append(tokenizer(np.asarray(noise)))
    tokens = hosts.from_main(np.concatenate(bank).astype(np.uint16))
    return sharding.place(tokens, sharding.replicated(experiment.mesh))
