"""The tokenizer against arrays made by the official PyTorch code (jpmorganchase/i2i_mage).

The checkpoint is as that code saved it, packed with xz. Expected arrays are cut down and rounded to
less than a tenth of the tolerance, which is the one suggested by the fixtures' authors: about ten
times the float32 rounding of the reference. Indices are exact.
"""

import functools
import io
import lzma

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from l2l_jax.lib import trees
from l2l_jax.models import vqgan
from l2l_jax.models.layers import quantize
from l2l_jax.weights import name_map, pretrained, torch_reader, torch_writer
from l2l_jax.weights.formats import vqgan as vqgan_format
from tests.helpers import FIXTURES, assert_same_bits

FOLDER = FIXTURES / "vqgan"
FILE = "vqgan_state_dict.ckpt"
ENCODED, DECODED, LOSS = 5e-5, 1e-4, 1e-5


def unpacked(name):
    return lzma.decompress((FOLDER / f"{name}.xz").read_bytes())


IO = np.load(io.BytesIO(unpacked("io.npz")))


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """The official state dict; its file also holds what Lightning writes beside it."""
    path = tmp_path_factory.mktemp("vqgan") / FILE
    path.write_bytes(unpacked(FILE))
    content = torch_reader.read(path)
    assert set(content) == {"epoch", "global_step", "pytorch-lightning_version", "state_dict"}
    return content["state_dict"]


@pytest.fixture(scope="module")
def loaded(state):
    """(model, parameters) of the checkpoint."""
    model = vqgan.build(**vqgan_format.infer_args(state, dict(image_size=64)))
    params = name_map.to_params(vqgan_format.from_torch(state), vqgan_format.NAMES)
    assert not trees.difference(params, model.canonical, "file", "model")
    return model, jax.tree.map(jnp.asarray, params)


@functools.cache
def images():
    """[2, 64, 64, 3] in [0, 1]."""
    strip = np.asarray(Image.open(FOLDER / "images.webp"))
    return np.stack(np.split(strip, 2, axis=1)).astype(np.float32) / 255


def theirs(key):
    return np.moveaxis(IO[key], 1, -1)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lightning", "bare"])
def test_both_forms_of_a_checkpoint(form, state, loaded, tmp_path):
    path = tmp_path / FILE
    if form == "bare":
        torch_writer.write(path, state)
    else:
        path.write_bytes(unpacked(FILE))
    weights = pretrained.read_official(path, "vqgan", dict(image_size=64))
    assert_same_bits(trees.flatten(weights.params), trees.flatten(jax.device_get(loaded[1])))


@pytest.mark.slow
def test_there_and_back_is_the_same(state):
    params = name_map.to_params(state, vqgan_format.NAMES)
    assert_same_bits(name_map.to_state_dict(params, vqgan_format.NAMES), state)


def test_what_the_file_tells(loaded):
    size = loaded[0].size
    assert (size.width, size.multipliers, size.blocks) == (32, (1, 2, 1), 1)
    assert (size.codes, size.code_width, loaded[0].grid) == (128, 16, (16, 16))


@pytest.mark.slow
def test_latents_tokens_losses_images(loaded):
    model, params = loaded

    @jax.jit
    def run(params):
        nothing = jnp.zeros((2, *model.grid), bool)
        inputs = model.corrupt(params, jnp.asarray(images()), nothing, jax.random.key(0))
        z, tokens = model.encode(params, inputs), model.tokenize(params, jnp.asarray(images()))
        made = model.decode(params, z, inputs)
        return z, tokens, made, model.detokenize(params, tokens), model.loss(params, inputs)

    z, tokens, made, same, loss = run(params)
    np.testing.assert_allclose(z, theirs("encoder_out"), atol=ENCODED)
    assert np.array_equal(tokens, IO["indices"])
    commitment = quantize.commitment(z, params["decoder"]["codebook"][tokens])
    np.testing.assert_allclose(commitment.mean(), IO["embed_loss"], atol=LOSS)
    expected = theirs("reconstruction_every_2nd_pixel")
    np.testing.assert_allclose(made[:, ::2, ::2], expected, atol=DECODED)
    np.testing.assert_allclose(same, made, atol=DECODED)
    error = jnp.mean(jnp.abs(made - images()), axis=(1, 2, 3))
    np.testing.assert_allclose(loss, error + commitment, atol=LOSS)


def test_given_tokens(loaded):
    model, params = loaded
    made = jax.jit(model.detokenize)(params, jnp.asarray(IO["given_indices"], jnp.int32))
    expected = theirs("given_decoded_every_2nd_pixel")
    np.testing.assert_allclose(made[:, ::2, ::2], expected, atol=DECODED)


def test_stages(loaded):
    model, params = loaded

    @jax.jit
    def stages(params):
        encoder = model.encoder.bind(params["encoder"])
        decoder = model.decoder.bind(params["decoder"])
        first = encoder.conv_in(images()[:1])
        level0, level1, level2 = encoder.down
        pooled = nnx.avg_pool(level0(first), (2, 2), (2, 2))
        x = level2(nnx.avg_pool(level1(pooled), (2, 2), (2, 2)))
        codes = decoder.conv_in(decoder.codebook[...][IO["indices"][:1].astype(int)])
        return {
            "enc_conv_in_every_4th_pixel": first[:, ::4, ::4],
            "enc_down0_first8ch_every_4th_pixel": pooled[:, ::4, ::4],
            "enc_mid_out_every_2nd_pixel": encoder.block_2(encoder.block_1(x))[:, ::2, ::2],
            "dec_conv_in_every_2nd_pixel": codes[:, ::2, ::2],
            "dec_mid_out_every_2nd_pixel": decoder.block_2(decoder.block_1(codes))[:, ::2, ::2],
        }

    for key, ours in stages(params).items():
        expected = theirs(f"stages/{key}")
        ours = ours[..., : expected.shape[-1]]
        np.testing.assert_allclose(ours, expected, atol=ENCODED, err_msg=key)
