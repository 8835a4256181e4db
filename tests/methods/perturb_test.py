"""Perturb moves what its arguments say and nothing else; distill matches a teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import objectives, sharding, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.methods import distill, perturb
from l2l_jax.types import Batch, UnlearnBatch
from tests.helpers import assert_same_bits, images, small_model

KEY = jax.random.key(3)


def flat(params):
    return {name: np.asarray(x) for name, x in trees.flatten(params).items()}


@functools.cache
def prepared(name="mae", **changes):
    """Returns (model, its parameters, flat; the fresh ones that KEY draws, flat)."""
    model = small_model(name, **changes)
    params = jax.jit(model.init)(jax.random.key(0))
    return model, params, flat(params), flat(jax.jit(model.init)(KEY))


@pytest.mark.slow
def test_no_share_changes_no_bit_and_a_whole_one_is_the_fresh_initialisation():
    model, params, before, _ = prepared()
    fresh = flat(model.init(KEY))
    zeros = -jnp.zeros_like(params["encoder"]["cls_token"])
    params = params | {"encoder": params["encoder"] | {"cls_token": zeros}}
    kept = flat(perturb.begin(model, params, KEY, a=0.0))
    assert_same_bits(kept, flat(params))
    assert np.signbit(kept["encoder/cls_token"]).all(), "not even the sign of a zero changes"
    assert_same_bits(flat(perturb.begin(model, params, KEY, a=1.0)), fresh)
    half = flat(perturb.begin(model, params, KEY))
    for name, x in half.items():
        if name != "encoder/cls_token":
            np.testing.assert_allclose(x, (before[name] + fresh[name]) / 2, atol=1e-7)


@pytest.mark.slow
def test_frozen_groups_stay():
    model, params, before, fresh = prepared("mage")
    made = flat(jax.jit(lambda x: perturb.begin(model, x, KEY, a=1.0))(params))
    groups = {name: name.split("/")[0] for name in before}
    assert set(groups.values()) == {"encoder", "decoder", "tokenizer"}
    for name, group in groups.items():
        expected = (before if group == "tokenizer" else fresh)[name]
        np.testing.assert_allclose(made[name], expected, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_shares_of_layers_act_on_those_layers_only(scan):
    """The last pair that fits counts; blocks have their shares also where they are stacked."""
    model, params, *_ = prepared(scan=scan)
    layers = (("encoder", 0.2), ("encoder/blocks/1", 1.0), ("decoder/pred/", 0.7))
    before, fresh, made = (
        flat(trees.unstack(tree, model.canonical))
        for tree in (params, model.init(KEY), perturb.begin(model, params, KEY, a=0, layers=layers))
    )
    for name, x in made.items():
        share = 0.2 if name.startswith("encoder/") else 0.0
        share = 1.0 if name.startswith("encoder/blocks/1/") else share
        share = 0.7 if name.startswith("decoder/pred/") else share
        expected = (1 - share) * before[name] + share * fresh[name]
        np.testing.assert_allclose(x, expected, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((("encoder/block/0", 0.5),), r"begins with 'encoder/block/0'.* encoder/blocks/0, "),
        ((("enc", 0.5),), "begins with 'enc'"),
        (("encoder", 0.5), "pairs of a path and a share"),
        ((("encoder", "x"),), "pairs of a path and a share"),
    ],
)
def test_layers_that_do_not_exist_are_refused(layers, words):
    model = small_model("mae")
    batch = UnlearnBatch(None, None)
    with pytest.raises(ConfigError, match=words):
        perturb.objectives(model, {}, {}, batch, KEY, layers=layers)


@pytest.mark.slow
def test_it_is_the_same_on_eight_devices():
    model, params, *_ = prepared()
    results = []
    for count in (1, 8):
        mesh = sharding.make_mesh(fsdp=-1, devices=jax.devices()[:count])
        shardings = sharding.parameter_shardings(mesh, model.template)
        start = sharding.place(jax.device_get(params), shardings)
        begin = jax.jit(lambda x, key: perturb.begin(model, x, key), out_shardings=shardings)
        results.append(flat(jax.device_get(begin(start, KEY))))
    for name, x in results[0].items():
        np.testing.assert_allclose(results[1][name], x, rtol=1e-6, atol=1e-7, err_msg=name)


def retain_batch(model, count=4):
    h, w = model.grid
    mask = jnp.zeros((count, h, w), bool).at[:, : h // 2].set(True)
    return UnlearnBatch(Batch(images(count, model.image_size, 1), mask), None)


@pytest.mark.parametrize("name", ["mae", pytest.param("mage", marks=pytest.mark.slow)])
def test_the_weights_decide_what_is_matched(name):
    model, params, *_ = prepared(name)
    batch, other = retain_batch(model), perturb.begin(model, params, KEY, a=0.3)
    both, terms = {}, dict(both={}, outputs=dict(latents=0.0), latents=dict(outputs=0.0))
    for label, args in terms.items():
        loss, forget, metrics = distill.objectives(model, other, params, batch, KEY, **args)
        assert forget == 0
        both[label] = float(loss)
        assert float(sum(metrics.values())) == pytest.approx(float(loss))
    assert both["both"] == pytest.approx(both["outputs"] + both["latents"])
    assert min(both.values()) > 0
    moved = dict(other, decoder=params["decoder"])
    latents = distill.objectives(model, moved, params, batch, KEY, outputs=0.0)[0]
    assert float(latents) == pytest.approx(both["latents"]), "latents do not depend on the decoder"
    with pytest.raises(ConfigError, match="both 0"):
        distill.objectives(model, other, params, batch, KEY, outputs=0.0, latents=0.0)


@pytest.mark.slow
def test_only_hidden_outputs_are_compared():
    """A change of the visible outputs alone is no difference."""
    model, params, *_ = prepared()
    batch = retain_batch(model)
    inputs = model.corrupt(params, batch.retain.images, batch.retain.mask, KEY)
    wanted = model.decode(params, model.encode(params, inputs), inputs)
    hidden = model.loss_mask(inputs)
    outside = objectives.output_distance(wanted + jnp.where(hidden, 0.0, 9.0), wanted, hidden)
    assert (outside == 0).all()


def test_the_divergence_is_that_of_the_definition():
    """KL(teacher || student) of masked tokens: the direction, the mean, and the mask."""
    rng = np.random.default_rng(0)
    own, wanted = rng.normal(size=(2, 2, 3, 5)).astype(np.float32)
    mask = np.array([[1, 1, 0], [0, 0, 0]], bool)[..., None]
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (wanted, own))
    each = (p * np.log(p / q)).sum(-1)
    found = objectives.divergence(jnp.array(own), jnp.array(wanted), jnp.array(mask))
    np.testing.assert_allclose(found, [each[0, :2].mean(), 0.0], rtol=1e-5)


def test_relative_terms_do_not_depend_on_the_scale():
    outputs = jax.random.normal(KEY, (2, 4, 4, 3))
    mask = jnp.ones((2, 4, 4, 1), bool)
    small, large = (objectives._variance(scale * outputs + 7, mask) for scale in (1.0, 10.0))
    assert float(large / small) == pytest.approx(100, rel=1e-4)
    assert float(small) == pytest.approx(float(jnp.var(outputs)), rel=1e-3)


@pytest.mark.slow
def test_the_codebook_follows_the_latents():
    """Outputs alone give the codebook of a VQ-GAN no gradient; its own loss does."""
    model, params, *_ = prepared("vqgan")
    batch, other = retain_batch(model), perturb.begin(model, params, KEY, a=0.5)

    def loss(student):
        return distill.objectives(model, student, params, batch, KEY)[0]

    assert (np.asarray(jax.grad(loss)(other)["decoder"]["codebook"]) != 0).any()
