"""The masked autoencoder's own promises: sizes, precision, scanning, weights of other shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import flops, trees
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.models import mae
from l2l_jax.tasks import center, random
from l2l_jax.weights.formats import mae as mae_format
from tests.helpers import images, small_model

PUBLISHED = {"base": 111_907_840, "large": 329_541_888, "huge": 657_074_508}


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.slow
def test_published_sizes(size):
    """Parameters of the official classes, fixed position tables included."""
    model = mae.build(size=size)
    assert trees.count(model.template) == PUBLISHED[size]
    assert model.grid == ((16, 16) if size == "huge" else (14, 14))


@pytest.mark.slow
def test_scanned_blocks_are_the_listed_ones():
    listed, scanned = small_model("mae"), small_model("mae", scan=True)
    params = listed.init(jax.random.key(0))
    stacked = trees.stack(jax.device_get(params), scanned.template)
    assert stacked["encoder"]["blocks"]["norm1"]["scale"].shape == (2, 16)
    back = trees.unstack(stacked, scanned.canonical)
    assert trees.digest(back) == trees.digest(jax.device_get(params))
    mask = random.mask(jax.random.key(1), 4, listed.grid)
    x = images(4, 16)

    def gradient(model, params):
        def loss(params):
            return model.loss(
                params, model.corrupt(params, x, mask, jax.random.key(0), visible=(4, 4))
            ).mean()

        return jax.jit(jax.grad(loss))(params)

    one = gradient(listed, params)
    recomputed = small_model("mae", remat=True), small_model("mae", scan=True, remat=True)
    for model in (scanned, *recomputed):
        given = stacked if model.scan else params
        two = trees.unstack(gradient(model, given), model.canonical)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)


@pytest.mark.slow
def test_scanning_does_not_change_the_count_of_operations():
    counts = []
    for scan in (False, True):
        model = small_model("mae", scan=scan)
        mask = random.mask(jax.random.key(1), 4, model.grid)

        def loss(params, x, model=model, mask=mask):
            return model.loss(
                params, model.corrupt(params, x, mask, jax.random.key(0), visible=(4, 4))
            ).mean()

        counts.append(flops.count(jax.grad(loss), model.template, images(4, 16)))
    assert counts[0] == counts[1] > 0


@pytest.mark.slow
def test_bfloat16_computes_in_half_and_stays_close():
    full, half = small_model("mae", dtype="float32"), small_model("mae", dtype="bfloat16")
    params = full.init(jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half.init(jax.random.key(0))))
    mask = center.mask(jax.random.key(0), 4, full.grid, cells=2)
    inputs = full.corrupt(params, images(4, 16), mask, jax.random.key(0), visible=(12, 12))
    assert half.encode(params, inputs).dtype == jnp.bfloat16
    assert half.decode(params, half.encode(params, inputs), inputs).dtype == jnp.float32
    np.testing.assert_allclose(half.loss(params, inputs), full.loss(params, inputs), rtol=0.03)


def test_a_model_of_normalised_pixels_refuses_to_complete():
    model = small_model("mae", norm_pix=True)
    params = model.init(jax.random.key(0))
    mask = center.mask(jax.random.key(0), 4, model.grid, cells=2)
    with pytest.raises(ConfigError, match="mae_visualize_vit"):
        model.reconstruct(params, images(4, 16), mask, jax.random.key(0))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(size="bas"), "Did you mean 'base'"),
        (dict(image_size=225), "try image_size=224 or 240"),
        (dict(dtype="bf16"), "Did you mean 'bfloat16'"),
    ],
)
def test_bad_arguments(args, message):
    with pytest.raises(ConfigError, match=message):
        mae.build(**args)


def test_misnamed_or_missing_parameters_are_named():
    model = small_model("mae")
    params = model.init(jax.random.key(0))
    encoder = dict(params["encoder"])
    encoder["norms"] = encoder.pop("norm")
    inputs = model.corrupt(
        params,
        images(2, 16),
        center.mask(jax.random.key(0), 2, model.grid, cells=2),
        jax.random.key(0),
    )
    with pytest.raises(ValueError, match="only in given: norms/bias"):
        model.encode(params | {"encoder": encoder}, inputs)


def test_recognising_official_files():
    state = {
        "patch_embed.proj.weight": np.zeros((768, 3, 16, 16)),
        "pos_embed": np.zeros((1, 197, 768)),
        **{f"blocks.{i}.norm1.bias": np.zeros(768) for i in range(12)},
    }
    with pytest.raises(WrongWeights, match=r"mae_pretrain_vit_base_full\.pth"):
        mae_format.infer_args(state, {"file": "mae_pretrain_vit_base.pth"})
    state |= {"decoder_embed.weight": np.zeros((512, 768))}
    state |= {f"decoder_blocks.{i}.norm1.bias": np.zeros(512) for i in range(8)}
    args = mae_format.infer_args(state, {"file": "mae_visualize_vit_base.pth"})
    assert args == {"size": "base", "image_size": 224, "norm_pix": False}
    assert mae_format.infer_args(state, {"file": "mae_pretrain_vit_base_full.pth"})["norm_pix"]
    assert mae_format.infer_args(state, {"file": "x.pth", "norm_pix_loss": True})["norm_pix"]
    del state["decoder_blocks.7.norm1.bias"]
    with pytest.raises(WrongWeights, match="--set heads=N"):
        mae_format.infer_args(state, {})
    with pytest.raises(WrongWeights, match="not a masked autoencoder"):
        mae_format.infer_args({"x": np.zeros(1)}, {})
