"""Measures what a lower precision of the judges and of a tokenizer changes, against float32.

    python launch/precision.py                      minutes on a CPU; nothing is downloaded
    python launch/precision.py --images 200

Real images are held-out images of Fashion-MNIST; completed ones are made of them by the bundled
masked autoencoder. Judges are the bundled classifier (trained), and Inception and a small CLIP with
random weights: they have the depth of the published ones, not their features. bfloat16 is computed
as such. TF32, which CPUs lack, is imitated: the factors of every product of a layer are rounded to
10 bits; the sums are float32, as on a GPU. The tokenizer is the bundled VQ-GAN.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402

from l2l_jax.data.loader import Subset  # noqa: E402
from l2l_jax.datasets import fashion_mnist  # noqa: E402
from l2l_jax.evaluators import cosine, fid, kid  # noqa: E402
from l2l_jax.feature_networks import classifier, clip, inception  # noqa: E402
from l2l_jax.lib import resample, trees  # noqa: E402
from l2l_jax.lib.nnx_pure import PureModule  # noqa: E402
from l2l_jax.models import mae, vqgan  # noqa: E402
from l2l_jax.tasks import center  # noqa: E402
from l2l_jax.types import Params  # noqa: E402
from l2l_jax.weights import feature_networks, safetensors  # noqa: E402
from l2l_jax.weights.pretrained import BUNDLED  # noqa: E402

BATCH = 50
INCEPTION_SIZE = 75  # pixels
PRECISIONS = ("float32", "TF32", "bfloat16")
Apply = Callable[[Params, jax.Array], jax.Array]


def rounded(x: Any) -> jax.Array:
    """float32 values rounded to the 10 bits of TF32's mantissa."""
    bits = jax.lax.bitcast_convert_type(jnp.asarray(x, jnp.float32), jnp.uint32)
    even = (bits >> 13) & 1
    return jax.lax.bitcast_convert_type((bits + 0xFFF + even) & ~jnp.uint32(0x1FFF), jnp.float32)


class _Rounds:
    """Lets dense and convolutional layers round their factors while it is entered."""

    KINDS = (nnx.Linear, nnx.Conv)

    def __enter__(self) -> None:
        self._before = {kind: kind.__call__ for kind in self.KINDS}
        for kind, call in self._before.items():

            def rounding(layer: Any, x: Any, call: Any = call) -> Any:
                layer.kernel[...] = rounded(layer.kernel[...])
                return call(layer, rounded(x))

            kind.__call__ = rounding  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        for kind, call in self._before.items():
            kind.__call__ = call  # type: ignore[method-assign]


def outputs(apply: Apply, params: Params, images: np.ndarray, tf32: bool) -> np.ndarray:
    """apply(params, batch) of all images, as float32 or int32."""
    program = jax.jit(lambda params, batch: apply(params, batch))  # a program of its own
    parts = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
    if not tf32:
        return np.concatenate([np.asarray(program(params, part)) for part in parts])
    with _Rounds():
        return np.concatenate([np.asarray(program(params, part)) for part in parts])


def judges() -> dict[str, Callable[[str], tuple[Apply, Params]]]:
    """{judge: a function of "float32" or "bfloat16" that returns (features, parameters)}."""

    def trained(dtype: str) -> tuple[Apply, Params]:
        (path,) = BUNDLED.glob("classifier-*.npz")
        params, _ = feature_networks.cached(path.stem, lambda: ({}, {}))
        network = PureModule(lambda rngs: classifier.Network(10, rngs))
        as_dtype = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))

        def apply(params: Params, images: jax.Array) -> jax.Array:
            given = (2 * images - 1).astype(dtype)
            return network.bind(as_dtype(params))(given)[0].astype(jnp.float32)

        return apply, params

    def random_inception(dtype: str) -> tuple[Apply, Params]:
        network = PureModule(functools.partial(inception.Network, "fid", jnp.dtype(dtype).type))
        params = feature_networks.load("random", network.template, lambda *_: {})[0]
        size = (INCEPTION_SIZE, INCEPTION_SIZE)

        def apply(params: Params, images: jax.Array) -> jax.Array:
            prepared = resample.resize(images * 255.0, size, "clean")
            return network.bind(params)(inception.scaled(prepared, "clean"))[0]

        return apply, params

    def random_clip(dtype: str) -> tuple[Apply, Params]:
        size = clip.SIZES["tiny"]
        network = PureModule(functools.partial(clip.Network, size, jnp.dtype(dtype).type))
        params = feature_networks.load("random", network.template, lambda *_: {})[0]

        def apply(params: Params, images: jax.Array) -> jax.Array:
            resized = resample.resize_and_crop(images * 255.0, size.image, "pillow") / 255.0
            return network.bind(params)((resized - clip.MEAN) / clip.STD)

        return apply, params

    return {"classifier": trained, "Inception": random_inception, "CLIP": random_clip}


def figures(real: np.ndarray, completed: np.ndarray) -> dict[str, float]:
    """FID, KID and the mean cosine of features [N, D] of completions and their images."""
    rng = np.random.default_rng(0)
    return {
        "FID": fid.frechet(completed, real),
        "KID x 1000": 1000 * kid.distance(real, completed, 1, len(real), rng, paired=True),
        "cosine": float(np.mean(cosine.cosines(completed, real))),
    }


def images_and_completions(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(held-out images, their completions by the bundled MAE), float32 [N, 32, 32, 3] in [0, 1]."""
    source = fashion_mnist.load("eval")
    rows = np.random.default_rng(0).permutation(len(source.keys))[:count]
    picked = Subset(source, rows)
    real = np.stack([picked[at] for at in range(count)]).astype(np.float32) / 255
    model = mae.build(size="small", image_size=32, dtype="float32")
    weights = safetensors.load(BUNDLED / "mae_fashion_mnist.safetensors")
    params = jax.tree.map(jnp.asarray, trees.stack(weights.params, model.template))

    def complete(params: Params, images: jax.Array) -> jax.Array:
        mask = center.mask(jax.random.key(0), len(images), model.grid, cells=4)
        made = model.reconstruct(params, images, mask, jax.random.key(0))
        return jnp.round(made * 255) / 255

    return real, outputs(complete, params, real, False)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--images", type=int, default=600, help="a multiple of 50")
    sets = images_and_completions(parser.parse_args(argv).images)
    print(f"{len(sets[0])} images, {jax.devices()[0].device_kind}")
    for name, judge in judges().items():
        for precision in PRECISIONS:
            apply, params = judge("bfloat16" if precision == "bfloat16" else "float32")
            features = [outputs(apply, params, each, precision == "TF32") for each in sets]
            words = [f"{key} {value:.5g}" for key, value in figures(*features).items()]
            print(f"{name}, {precision}: {', '.join(words)}", flush=True)
    coder = vqgan.build(size="small", image_size=32, dtype="float32")
    weights = safetensors.load(BUNDLED / "vqgan_fashion_mnist.safetensors").params
    exact = [outputs(coder.tokenize, weights, each, False) for each in sets]
    for precision in PRECISIONS[1:]:
        dtype = "bfloat16" if precision == "bfloat16" else "float32"
        lower = vqgan.build(size="small", image_size=32, dtype=dtype)
        tokens = [outputs(lower.tokenize, weights, each, precision == "TF32") for each in sets]
        equal = [np.mean(a == b) for a, b in zip(exact, tokens, strict=True)]
        print(f"tokens, {precision}: {equal[0]:.2%} equal of real images, {equal[1]:.2%} of "
              "completed ones", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
