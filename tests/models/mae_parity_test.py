"""The masked autoencoder against arrays made by the official PyTorch code (facebookresearch/mae).

Tolerances are those suggested by the fixtures' authors: about ten times the float32 rounding of the
reference. A wrong LayerNorm epsilon or tanh-GELU moves the outputs by more.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.lib import optim, trees
from l2l_jax.models import mae
from l2l_jax.models.layers import positions
from l2l_jax.tasks import random
from l2l_jax.weights import name_map, torch_reader
from l2l_jax.weights.formats import mae as mae_format
from tests.helpers import FIXTURES, unpacked

IO = np.load(unpacked("mae/io.npz"))
HEADS = dict(heads=3, decoder_heads=4)
CASES = ("random", "center", "odd")
LATENT, PRED, LOSS = 5e-5, 2e-5, 1e-5


@functools.cache
def loaded(small_scale=False, **changes):
    """(model, parameters) of the official checkpoint.

    small_scale: what makes up the residual stream at 0.02 of its size, so that every variance is
    small and every epsilon shows.
    """
    state = torch_reader.read(unpacked("mae/checkpoint_model.pth"))["model"]
    if small_scale:
        residual = re.compile(
            r"(.*attn\.proj|.*mlp\.fc2|patch_embed.*|decoder_embed)\.\w+|.*_token|.*pos_embed"
        )
        state = {k: x * np.float32(0.02) if residual.fullmatch(k) else x for k, x in state.items()}
    args = mae_format.infer_args(state, HEADS)
    model = mae.build(**args | changes)
    params = name_map.to_params(state, mae_format.NAMES)
    assert not trees.difference(params, model.canonical, "file", "model")
    return model, jax.tree.map(jnp.asarray, trees.stack(params, model.template))


def pixels():
    return jnp.asarray(IO["imgs_uint8_nhwc"], jnp.float32) / 255


def inputs_of(case, model, params):
    mask = jnp.asarray(IO[f"{case}/mask"].astype(bool)).reshape(-1, *model.grid)
    return model.corrupt(params, pixels(), mask, jax.random.key(0), visible=kept(case))


def kept(case):
    return (int(IO[f"{case}/len_keep"]),) * 2


def in_their_order(latent, case):
    """Our visible patches stand in raster order, theirs in the order of the noise."""
    kept = IO[f"{case}/ids_shuffle"][:, : int(IO[f"{case}/len_keep"])]
    rank = np.argsort(np.argsort(kept, axis=1), axis=1)
    patches = np.take_along_axis(np.asarray(latent)[:, 1:], rank[..., None], axis=1)
    return np.concatenate([latent[:, :1], patches], axis=1)


@pytest.mark.parametrize("case", CASES)
def test_mask_order_is_exact(case):
    shuffle, restore = random.order(jnp.asarray(IO[f"{case}/noise"]))
    assert np.array_equal(shuffle, IO[f"{case}/ids_shuffle"])
    assert np.array_equal(restore, IO[f"{case}/ids_restore"])
    fewest, most = random.visible((4, 4), ratio=float(IO[f"{case}/mask_ratio"]))
    assert (fewest, most) == kept(case)
    assert np.array_equal(restore >= most, IO[f"{case}/mask"].astype(bool))


@pytest.mark.slow
def test_patches():
    model, _ = loaded()
    normal = (np.asarray(pixels()) - mae.MEAN) / mae.STD
    cut = normal.reshape(3, 4, 16, 4, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 16, 768)
    np.testing.assert_allclose(model.patchify(pixels()), cut, atol=1e-5)
    back = model.unpatchify(model.patchify(pixels()))
    np.testing.assert_allclose(back, pixels(), atol=1e-6)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_latents_predictions_losses_images(case, scan):
    model, params = loaded(scan=scan)
    inputs = inputs_of(case, model, params)
    latent = model.encode(params, inputs)
    np.testing.assert_allclose(in_their_order(latent, case), IO[f"{case}/latent"], atol=LATENT)
    prediction = model.decode(params, latent, inputs)
    theirs = IO[f"{case}/pred"]
    np.testing.assert_allclose(prediction[: len(theirs)], theirs, atol=PRED)
    np.testing.assert_allclose(model.loss(params, inputs).mean(), IO[f"{case}/loss"], atol=LOSS)
    normalised, same = loaded(scan=scan, norm_pix=True)
    loss = normalised.loss(same, inputs).mean()
    np.testing.assert_allclose(loss, IO[f"{case}/loss_norm_pix"], atol=LOSS)
    mask = inputs.hidden.reshape(-1, *model.grid)
    made = model.reconstruct(params, pixels(), mask, jax.random.key(0), visible=kept(case))
    hidden = np.kron(mask, np.ones((1, 16, 16), bool))[..., None]
    whole = np.where(hidden, np.clip(model.unpatchify(prediction), 0, 1), pixels())
    np.testing.assert_allclose(made, whole, atol=PRED)


@pytest.mark.slow
def test_every_block():
    model, params = loaded()
    inputs = inputs_of("random", model, params)
    table = params["positions"]["encoder"]
    encoder = model.encoder.bind(params["encoder"])
    embedded = encoder.patch_embed(model.patchify(pixels()))
    np.testing.assert_allclose(embedded, IO["random/patch_embed"], atol=LATENT)
    x = encoder.embed(inputs, table)
    for at, block in enumerate(encoder.blocks):
        x = block(x)
        theirs = IO[f"random/enc_block{at}"]
        np.testing.assert_allclose(in_their_order(x, "random"), theirs, atol=LATENT)
    decoder = model.decoder.bind(params["decoder"])
    y = decoder.fill(encoder.norm(x), inputs, params["positions"]["decoder"])
    for at, block in enumerate(decoder.blocks):
        y = block(y)
        np.testing.assert_allclose(y, IO[f"random/dec_block{at}"], atol=LATENT)
    flat = model.unpatchify(model.decode(params, model.encode(params, inputs), inputs))
    theirs = IO["random/unpatchified_pred"].transpose(0, 2, 3, 1) * mae.STD + mae.MEAN
    np.testing.assert_allclose(flat[: len(theirs)], theirs, atol=PRED)


@pytest.mark.slow
def test_small_scale_weights_show_every_epsilon():
    model, params = loaded(small_scale=True)
    inputs = inputs_of("random", model, params)
    latent = model.encode(params, inputs)
    theirs = IO["small_scale/latent"]
    np.testing.assert_allclose(in_their_order(latent, "random"), theirs, atol=LATENT)
    prediction = model.decode(params, latent, inputs)
    np.testing.assert_allclose(prediction, IO["small_scale/pred"], atol=PRED)
    loss = model.loss(params, inputs).mean()
    np.testing.assert_allclose(loss, IO["small_scale/loss"], atol=LOSS)


@pytest.mark.parametrize(("kind", "norm_pix"), [("grad_pixels", False), ("grad_normpix", True)])
@pytest.mark.slow
def test_gradients(kind, norm_pix):
    model, params = loaded(norm_pix=norm_pix)
    inputs = inputs_of("random", model, params)
    gradient = jax.grad(lambda params: model.loss(params, inputs).mean())(params)
    theirs = name_map.to_state_dict(jax.device_get(gradient), mae_format.NAMES)
    compared = [key for key in IO.files if key.startswith(f"random/{kind}/")]
    assert compared
    for key in compared:
        want = IO[key]
        atol = 1e-4 * np.abs(want).max()
        np.testing.assert_allclose(theirs[key.split("/")[-1]], want, atol=atol, err_msg=key)


@pytest.mark.slow
def test_one_adamw_step():
    """lr 6e-4, betas 0.9 and 0.95, decay 0.05 on all but biases and norms, loss on norm_pix."""
    model, params = loaded(norm_pix=True)
    after = np.load(FIXTURES / "mae" / "train_step.npz")
    inputs = inputs_of("random", model, params)

    def loss(trained):
        return model.loss(params | trained, inputs).mean()

    trained = {group: params[group] for group in ("encoder", "decoder")}
    tx = optim.adamw(optax.constant_schedule(6e-4), b1=0.9, b2=0.95, eps=1e-8,
                     weight_decay=0.05, clip=0.0)  # fmt: skip
    before, gradient = jax.value_and_grad(loss)(trained)
    updates, _ = tx.update(gradient, tx.init(trained), trained)
    trained = optax.apply_updates(trained, updates)
    np.testing.assert_allclose(before, after["loss_norm_pix_before"], atol=LOSS)
    np.testing.assert_allclose(loss(trained), after["loss_norm_pix_after"], atol=LOSS)
    theirs = name_map.to_state_dict(jax.device_get(params | trained), mae_format.NAMES)
    for key in (key for key in after.files if key.startswith("after/")):
        np.testing.assert_allclose(
            theirs[key.removeprefix("after/")], after[key], atol=2e-6, err_msg=key
        )


def test_positions():
    tables = np.load(FIXTURES / "mae" / "pos_embed.npz")
    np.testing.assert_allclose(positions.sincos_2d(48, 4, True), tables["d48_g4_cls1"], atol=1e-12)
    np.testing.assert_allclose(positions.sincos_2d(64, 7, False), tables["d64_g7_cls0"], atol=1e-12)
    larger = positions.resize(jnp.asarray(tables["interp_in"][0]), 6)
    np.testing.assert_allclose(larger, tables["interp_out"][0], atol=1e-5)
