"""The tokenizer's own promises: gradients through codes, dead codes, the critic, its arguments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.lib import trees
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.models import vqgan
from l2l_jax.models.layers import quantize
from l2l_jax.weights import torch_writer
from l2l_jax.weights.formats import vqgan as vqgan_format
from l2l_jax.weights.name_map import to_state_dict
from l2l_jax.weights.pretrained import read_official
from tests.helpers import images, small_model


@functools.cache
def setting(**changes):
    model = small_model("vqgan", **changes)
    return model, jax.jit(model.init)(jax.random.key(0))


def inputs_of(model, params, count=4):
    return model.corrupt(
        params, images(count, 16), jnp.zeros((count, *model.grid), bool), jax.random.key(0)
    )


@pytest.mark.slow
def test_published_size():
    model = vqgan.build()
    assert model.grid == (16, 16)
    assert model.template["decoder"]["codebook"].shape == (1024, 256)
    assert [len(model.template["encoder"]["down"][i]["block"]) for i in range(5)] == [2] * 5
    shortcuts = ["shortcut" in model.template["encoder"]["down"][i]["block"][0] for i in range(5)]
    assert shortcuts == [False, False, True, False, True], "where the number of channels changes"


@pytest.mark.slow
def test_there_and_back():
    model, params = setting()
    tokens = model.tokenize(params, images(4, 16))
    assert tokens.shape == (4, 8, 8)
    inputs = inputs_of(model, params)
    z = model.encode(params, inputs)
    np.testing.assert_array_equal(tokens, quantize.nearest(z, params["decoder"]["codebook"]))
    np.testing.assert_allclose(
        model.detokenize(params, tokens), model.decode(params, z, inputs), atol=1e-5
    )


def test_the_nearest_code_is_the_nearest():
    z, codes = images(1, 6)[0], images(1, 4, 1)[0].reshape(16, 3)
    apart = np.linalg.norm(np.asarray(z)[..., None, :] - np.asarray(codes), axis=-1)
    np.testing.assert_array_equal(quantize.nearest(z, codes), apart.argmin(-1))
    np.testing.assert_allclose(quantize.distances(z, codes), apart**2, atol=1e-5)


@pytest.mark.slow
def test_gradients_pass_straight_through_the_codes():
    z, codes = images(2, 4), images(1, 2, 1).reshape(-1, 3)
    weight = images(2, 4, 2)

    def loss(z):
        return jnp.sum(weight * quantize.straight_through(z, codes[quantize.nearest(z, codes)]))

    np.testing.assert_array_equal(jax.grad(loss)(z), weight)


@pytest.mark.slow
def test_the_two_terms_of_the_codebook_pull_the_right_way():
    z, codes = images(2, 4), images(1, 2, 1).reshape(-1, 3)

    def term(z, codes):
        return jnp.sum(quantize.commitment(z, codes[quantize.nearest(z, codes)]))

    value, (to_z, to_codes) = jax.value_and_grad(term, argnums=(0, 1))(z, codes)
    apart = z - codes[quantize.nearest(z, codes)]
    assert value == pytest.approx(1.25 * float(jnp.sum(jnp.mean(apart**2, axis=(1, 2, 3)))))
    np.testing.assert_allclose(to_z, 0.25 * 2 * apart / apart[0].size, atol=1e-6)
    total = -2 * jnp.sum(apart, axis=(0, 1, 2)) / apart[0].size
    np.testing.assert_allclose(to_codes.sum(0), total, atol=1e-5)


@pytest.mark.slow
def test_dead_codes_come_back_and_living_ones_are_left_alone():
    z = jax.random.normal(jax.random.key(0), (4, 8, 8, 2))
    far = 20 + jax.random.normal(jax.random.key(1), (12, 2))
    codes = jnp.concatenate([z[0, 0, :4], far])
    pull = jax.grad(lambda codes: quantize.revival(z, codes))(codes)
    assert (pull[:4] == 0).all()
    assert (jnp.abs(pull[4:]).sum(1) > 0).all()
    assert share_used(codes, steps=0, revive=1.0) == 0.25
    assert share_used(codes, steps=400, revive=0.0) == 0.25, "without it they stay dead"
    assert share_used(codes, steps=400, revive=1.0) >= 0.5


def share_used(codes, steps, revive):
    """The share of the codes in use after so many steps, each on another batch."""
    optimizer = optax.adam(0.1)

    def latents(number):
        return jax.random.normal(jax.random.key(number), (4, 8, 8, 2))

    def step(number, at):
        codes, state = at

        def loss(codes):
            z = latents(number)
            pull = quantize.commitment(z, codes[quantize.nearest(z, codes)]).sum()
            return pull + revive * quantize.revival(z, codes)

        updates, state = optimizer.update(jax.grad(loss)(codes), state)
        return optax.apply_updates(codes, updates), state

    codes, _ = jax.lax.fori_loop(0, steps, step, (codes, optimizer.init(codes)))
    tokens = quantize.nearest(latents(steps), codes)
    return float(quantize.usage_metrics(tokens, len(codes))["codebook_usage"])


@pytest.mark.slow
def test_training_learns_to_reconstruct():
    model, params = setting()
    inputs, optimizer = inputs_of(model, params), optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        gradient, metrics = jax.grad(model.training_loss, has_aux=True)(params, inputs)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, metrics

    state, seen = optimizer.init(params), []
    for _ in range(60):
        params, state, metrics = step(params, state)
        seen.append(float(metrics["pixel_error"]))
    assert seen[-1] < 0.5 * seen[0]
    assert {"codebook_usage", "codebook_perplexity"} <= metrics.keys()


@pytest.mark.slow
def test_the_critic_judges_and_the_generator_fools_in_one_backward_pass():
    """Without the discriminator the generator's gradient differs; its own is that of the hinge."""
    model, params = setting(adversarial=0.8)
    inputs = inputs_of(model, params)
    plain = small_model("vqgan", adversarial=0.0)

    def without(tree):
        return {k: v for k, v in tree.items() if k != "critic"}

    slope = jax.jit(jax.grad(model.training_loss, has_aux=True))
    gradient, metrics = slope(params, inputs)
    bare = params | {"decoder": without(params["decoder"])}
    other = jax.jit(jax.grad(plain.training_loss, has_aux=True))(bare, inputs)[0]
    assert metrics["adversarial_weight"] > 0
    last = (tree["decoder"]["conv_out"]["kernel"] for tree in (gradient, other))
    assert not np.allclose(*last)

    def judged(critic):
        whole = params | {"decoder": params["decoder"] | {"critic": critic}}
        decoder = model.decoder.bind(whole["decoder"])
        made = model.decode(whole, model.encode(whole, inputs), inputs)
        real, fake = decoder.critic(inputs.target), decoder.critic(jax.lax.stop_gradient(made))
        return jnp.mean(jax.nn.relu(1 - real)) / 2 + jnp.mean(jax.nn.relu(1 + fake)) / 2

    want = jax.jit(jax.grad(judged))(params["decoder"]["critic"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        gradient["decoder"]["critic"],
        want,
    )


@pytest.mark.slow
def test_the_adaptive_weight_is_the_ratio_of_the_slopes_at_the_last_layer():
    model, params = setting(adversarial=0.8)
    inputs = inputs_of(model, params)
    weight = jax.jit(model.training_loss)(params, inputs)[1]["adversarial_weight"]

    def slope(term):
        def value(kernel):
            conv = params["decoder"]["conv_out"] | {"kernel": kernel}
            whole = params | {"decoder": params["decoder"] | {"conv_out": conv}}
            made = model.decode(whole, model.encode(whole, inputs), inputs)
            if term == "pixels":
                return jnp.mean(jnp.abs(made - inputs.target))
            return -jnp.mean(model.decoder.bind(whole["decoder"]).critic(made))

        return jnp.linalg.norm(jax.jit(jax.grad(value))(params["decoder"]["conv_out"]["kernel"]))

    np.testing.assert_allclose(weight, slope("pixels") / (slope("gan") + 1e-4), rtol=1e-4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(size="publishd"), "Did you mean 'published'"),
        (dict(image_size=250), "tokens of 16 pixels; try image_size=240 or 256"),
        (dict(image_size=16), "try image_size=32 or 48"),
        (dict(width=40), "cannot be split into 32 groups"),
    ],
)
def test_bad_arguments(args, message):
    with pytest.raises(ConfigError, match=message):
        vqgan.build(**args)


def official_file(path, **changes):
    model, params = setting()
    state = to_state_dict(jax.device_get(params), vqgan_format.NAMES)
    torch_writer.write(path, {"state_dict": {k: v for k, v in state.items() if k not in changes}})
    return model


@pytest.mark.slow
def test_official_files_and_what_they_lack(tmp_path):
    model = official_file(tmp_path / "whole.ckpt")
    told = {"groups": 4, "image_size": 16}
    read = read_official(tmp_path / "whole.ckpt", "vqgan", told)
    assert not trees.difference(read.params, model.canonical, "file", "model")
    official_file(tmp_path / "part.ckpt", **{"decoder.conv_in.bias": None})
    with pytest.raises(WrongWeights, match=r"only in a whole vqgan: decoder/conv_in/bias"):
        read_official(tmp_path / "part.ckpt", "vqgan", told)
    with pytest.raises(WrongWeights, match="not a VQ-GAN"):
        vqgan_format.infer_args({"x": np.zeros(1)}, {})
    state = {"quantize.embedding.weight": 0, "encoder.conv_in.weight": 0, "quant_conv.weight": 0}
    with pytest.raises(WrongWeights, match="another layout"):
        vqgan_format.infer_args(state, {})


@pytest.mark.parametrize(
    ("kept", "lacks"),
    [((), r"encoder\.down\.0\.block"), ((0, 2), r"encoder\.down\.1\.block"),
     ((3,), r"encoder\.down\.0\.block.*, encoder\.down\.1\.block.*, encoder\.down\.2\.block")],
)  # fmt: skip
def test_a_level_that_is_not_there_is_named(kept, lacks):
    state = {"quantize.embedding.weight": np.zeros((16, 8)),
             "encoder.conv_in.weight": np.zeros((8, 3, 3, 3))}  # fmt: skip
    state |= {f"encoder.down.{i}.block.0.conv2.weight": np.zeros((8, 8, 3, 3)) for i in kept}
    with pytest.raises(WrongWeights, match=rf"not a whole one: it has no {lacks}"):
        vqgan_format.infer_args(state, {"groups": 4})
