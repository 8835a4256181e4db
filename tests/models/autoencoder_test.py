"""The autoencoder's own promises: it completes, its shapes and arguments, its layers in PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.lib import trees
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.models import autoencoder
from l2l_jax.weights import torch_writer
from l2l_jax.weights.formats import autoencoder as autoencoder_format
from l2l_jax.weights.name_map import to_state_dict
from l2l_jax.weights.pretrained import read_official
from tests.helpers import images, small_model


@functools.cache
def setting():
    model = small_model("autoencoder")
    return model, jax.jit(model.init)(jax.random.key(0))


def noise_for(model):
    """Parameters none of which is 0 or 1, without compiling anything."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(leaf.dtype), model.template
    )


def inputs_of(model, params, x, mask):
    return model.corrupt(params, x, mask, jax.random.key(0))


def test_a_small_one_passes_32x32_images_through_4x4_latents():
    model = autoencoder.build()
    assert model.grid == (8, 8)
    assert 0.3e6 < trees.count(model.template) < 1e6
    shape = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    inputs = autoencoder.Inputs(shape, shape)
    latents = jax.eval_shape(model.encode, model.template, inputs)
    assert latents.shape == (2, 4, 4, 64)
    assert jax.eval_shape(model.decode, model.template, latents, inputs).shape == shape.shape


@pytest.mark.parametrize("cell", [1, 8])
def test_the_grid_is_independent_of_the_strides(cell):
    model = small_model("autoencoder", cell=cell)
    assert model.grid == (16 // cell,) * 2
    assert model.identity == small_model("autoencoder").identity, "weights are the same"
    mask = jnp.zeros((2, *model.grid), bool).at[:, 0, 0].set(True)
    seen = inputs_of(model, {}, images(2, 16), mask).images
    assert (seen[:, :cell, :cell] == 0.5).all()
    assert (seen != 0.5).any(-1).sum() == 2 * (16 * 16 - cell * cell)


@pytest.mark.slow
def test_a_mask_finer_than_the_grid_hides_exactly_its_pixels():
    model, params = setting()
    x = images(2, 16)
    mask = jnp.zeros((2, 8, 8), bool).at[:, 3, 3].set(True)  # of cells of two pixels

    def changes(pixel):
        other = x.at[:, pixel, pixel].set(1 - x[:, pixel, pixel])
        latents = [model.encode(params, inputs_of(model, params, i, mask)) for i in (x, other)]
        return bool((latents[0] != latents[1]).any())

    assert [changes(pixel) for pixel in (5, 6, 7, 8)] == [True, False, False, True]


@pytest.mark.slow
def test_the_loss_is_the_mean_squared_error_of_every_pixel():
    model, params = setting()
    x, y = images(3, 16), images(3, 16, 1)
    inputs = model.corrupt(params, x, jnp.zeros((3, 4, 4), bool), jax.random.key(0), targets=y)
    made = model.decode(params, model.encode(params, inputs), inputs)
    want = [np.mean((np.asarray(made[i]) - np.asarray(y[i])) ** 2) for i in range(3)]
    np.testing.assert_allclose(model.loss(params, inputs), want, rtol=1e-5)
    assert model.training_loss(params, inputs)[0] == pytest.approx(np.mean(want), rel=1e-5)


@pytest.mark.slow
def test_training_learns_to_complete():
    """Images of one colour each: what is hidden can be told from what is seen."""
    model, params = setting()
    colours = jax.random.uniform(jax.random.key(1), (32, 1, 1, 3))
    x = jnp.broadcast_to(colours, (32, 16, 16, 3))
    mask = jnp.zeros((32, 4, 4), bool).at[:, 1:3, 1:3].set(True)
    inputs, optimizer = inputs_of(model, params, x, mask), optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        gradient, _ = jax.grad(model.training_loss, has_aux=True)(params, inputs)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def error(params):
        made = model.reconstruct(params, x, mask, jax.random.key(0))
        return jnp.mean(jnp.abs(made - x)[:, 4:12, 4:12])

    before, state = error(params), optimizer.init(params)
    for _ in range(100):
        params, state = step(params, state)
    assert error(params) < 0.25 * before
    mean = jnp.mean(jnp.abs(x - x.mean(0)))
    assert error(params) < 0.25 * mean, "better than the same answer for every image"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(size="smal"), "Did you mean 'small'"),
        (dict(image_size=28), "cannot be halved 3 times; try image_size=24 or 32"),
        (dict(image_size=4), "cannot be halved 3 times; try image_size=8 or 16"),
        (dict(cell=5), "cut into cells of 5 pixels; try image_size=30 or 35"),
        (dict(cell=0), r"cells of 0 pixels; .*model\.args\.cell"),
        (dict(widths=(16, 20)), r"Widths \[20\] cannot be split into 8 groups"),
        (dict(groups=-1), "must be positive"),
    ],
)
def test_bad_arguments(args, message):
    with pytest.raises(ConfigError, match=message):
        autoencoder.build(**args)


def exported(path, params):
    state = to_state_dict(params, autoencoder_format.NAMES)
    torch_writer.write(path, autoencoder_format.to_torch(state, small_model("autoencoder")))
    return state


@pytest.mark.parametrize("changes", [{}, dict(widths=(4, 8), blocks=2, latent=6)])
def test_weights_survive_a_pytorch_file(tmp_path, changes):
    model = small_model("autoencoder", **changes)
    params = noise_for(model)
    exported(tmp_path / "some.pth", params)
    read = read_official(tmp_path / "some.pth", "autoencoder", {"groups": 4, "image_size": 16})
    assert autoencoder.build(**read.about["args"]) == model
    jax.tree.map(np.testing.assert_array_equal, read.params, params)


def test_other_weights_are_refused():
    with pytest.raises(WrongWeights, match="There are no official weights; train it"):
        autoencoder_format.infer_args({"encoder.conv_in.weight": np.zeros(1)}, {})


def in_torch(torch, size, state, image):
    """The layers of the docstring in PyTorch, with the weights of an exported file."""
    nn, weights = torch.nn.functional, {k: torch.tensor(v) for k, v in state.items()}

    def conv(x, name, stride=1):
        return nn.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding=1)

    def layer(x, name, stride=1):
        x, norm = conv(x, f"{name}.conv", stride), f"{name}.norm"
        x = nn.group_norm(x, size.groups, weights[f"{norm}.weight"], weights[f"{norm}.bias"], 1e-5)
        return nn.silu(x)

    levels, x = range(len(size.widths)), 2 * torch.from_numpy(image).permute(0, 3, 1, 2) - 1
    for i in levels:
        x = layer(x, f"encoder.down.{i}", 2)
    for i in range(size.blocks):
        x = layer(x, f"encoder.middle.{i}")
    x = conv(x, "encoder.out")
    for i in range(size.blocks + 1):
        x = layer(x, f"decoder.middle.{i}")
    for i in levels:
        x = nn.interpolate(layer(x, f"decoder.up.{i}"), scale_factor=2, mode="nearest")
    return ((conv(x, "decoder.out") + 1) / 2).permute(0, 2, 3, 1).numpy()


def test_an_exported_file_means_the_same_in_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    model = small_model("autoencoder")
    params = noise_for(model)
    state = exported(tmp_path / "some.pth", params)
    x = images(2, 16)
    inputs = inputs_of(model, params, x, jnp.zeros((2, 4, 4), bool))
    ours = model.decode(params, model.encode(params, inputs), inputs)
    theirs = in_torch(torch, model.size, state, np.array(x))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
