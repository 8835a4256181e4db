"""The baselines of paper A and the ascent of paper B are what their docstrings say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.noise import latents_like
from l2l_jax.lib.objectives import output_distance
from l2l_jax.methods import ascent, max_loss, noisy_label, random_encoder, retain_label
from l2l_jax.types import Batch, ImageToImage, TokenModel, UnlearnBatch
from tests.helpers import images

KEY = jax.random.key(4)


class Linear(ImageToImage):
    """The smallest model: E scales the visible values, D scales them back."""

    image_size, grid, takes_tokens, shows_hidden = 2, (2, 2), False, False

    def corrupt(self, params, images, mask, rng, targets=None, visible=None):
        return jnp.where(mask[..., None], 0.0, images), images if targets is None else targets

    def encode(self, params, inputs):
        return params["encoder"] * inputs[0]

    def decode(self, params, latents, inputs):
        return params["decoder"] * latents

    def loss_mask(self, inputs):
        return jnp.ones((1, 1, 1, 1), bool)

    def loss(self, params, inputs):
        outputs = self.decode(params, self.encode(params, inputs), inputs)
        return jnp.mean((outputs - inputs[1]) ** 2, axis=(1, 2, 3))

    def training_loss(self, params, inputs):
        return jnp.mean(self.loss(params, inputs)), {}


class Tokens(Linear, TokenModel):
    """A model of four codes: the quarter of [0, 1] in which the mean of a cell lies."""

    takes_tokens, codes = True, 4

    def tokenize(self, params, images):
        return jnp.clip(images.mean(-1) * 4, 0, 3).astype(jnp.int32)

    def corrupt(self, params, images, mask, rng, targets=None, visible=None):
        tokens = images if jnp.issubdtype(images.dtype, jnp.integer) else None
        tokens = self.tokenize(params, images) if tokens is None else tokens
        target = tokens if targets is None else targets
        assert jnp.issubdtype(target.dtype, jnp.integer), "targets are codes"
        shown = jnp.where(mask, 0, tokens)
        return shown[..., None].astype(jnp.float32), target[..., None].astype(jnp.float32)


class Masked(Linear):
    """The loss counts on hidden cells; D adds the mean of all latents to each."""

    def decode(self, params, latents, inputs):
        return params["decoder"] * (latents + latents.mean((1, 2), keepdims=True))

    def loss_mask(self, inputs):
        return (inputs[0] == 0).all(-1, keepdims=True)


MODEL = Linear()
TEACHER = {"encoder": jnp.float32(1.0), "decoder": jnp.float32(1.0)}
STUDENT = {"encoder": jnp.float32(1.5), "decoder": jnp.float32(0.5)}


def batch(count=6):
    masks = jax.random.bernoulli(KEY, 0.5, (2, count, 2, 2)).at[..., 0, 0].set(True)
    parts = [Batch(images(count, 2, i), m) for i, m in zip((1, 2), masks, strict=True)]
    return UnlearnBatch(*parts)


def outputs(params, part, mask=None, model=MODEL):
    inputs = model.corrupt(params, part.images, part.mask if mask is None else mask, KEY)
    return model.decode(params, model.encode(params, inputs), inputs), inputs


def over(squares, *masks):
    """Mean over the cells that all masks hide of each example, averaged; 0 where there is none."""
    hidden = np.logical_and.reduce(masks)[..., None] * np.ones(3)
    sums, counts = (np.sum(x, axis=(1, 2, 3)) for x in (hidden * squares, hidden))
    return np.mean(sums / np.maximum(counts, 1))


def losses(params, part):
    return np.asarray(MODEL.loss(params, outputs(params, part)[1]))


@pytest.mark.slow
def test_max_loss_rises_up_to_its_bound_and_no_further():
    given = batch()
    retain, forget, metrics = max_loss.objectives(MODEL, STUDENT, TEACHER, given, KEY, times=1.2)
    risen, began = losses(STUDENT, given.forget), losses(TEACHER, given.forget)
    assert 0 < (risen >= 1.2 * began).sum() < 6, "some are there and some are not"
    np.testing.assert_allclose(retain, losses(STUDENT, given.retain).mean(), rtol=1e-6)
    np.testing.assert_allclose(forget, np.maximum(1.2 * began - risen, 0).mean(), rtol=1e-5)
    assert metrics["at_the_bound"] == pytest.approx((risen >= 1.2 * began).mean())

    def slope(times, student):
        def value(scale):
            return max_loss.objectives(
                MODEL, student | {"decoder": scale}, TEACHER, given, KEY, times=times
            )[1]

        return float(jax.grad(value)(student["decoder"]))

    far = {"encoder": jnp.float32(9.0), "decoder": jnp.float32(9.0)}
    assert slope(1.2, far) == 0, "beyond the bound nothing pushes any more"
    assert slope(0.0, far) < 0, "without one it goes on for ever"
    np.testing.assert_allclose(slope(1e6, STUDENT), slope(0.0, STUDENT), rtol=1e-5)
    for wrong in (-1.0, 0.5, 1.0, np.nan):
        with pytest.raises(ConfigError, match="more than 1, or 0 for no bound"):
            max_loss.objectives(MODEL, STUDENT, TEACHER, given, KEY, times=wrong)


@pytest.mark.slow
def test_noisy_label_learns_noise_like_the_forget_images():
    given = batch(2000)
    drop = given.forget.replace(images=0.1 * given.forget.images + jnp.array([0.2, 0.5, 0.8]))
    given = given.replace(forget=drop)
    retain, forget, _ = noisy_label.objectives(MODEL, STUDENT, {}, given, KEY)
    np.testing.assert_allclose(retain, losses(STUDENT, given.retain).mean(), rtol=1e-6)
    made = np.asarray(outputs(STUDENT, drop)[0])
    like = np.asarray(drop.images)
    mean, std = like.mean((0, 1, 2)), like.std((0, 1, 2))
    expected = np.mean((made - mean) ** 2 + std**2)  # of noise that knows nothing of the image
    np.testing.assert_allclose(forget, expected, rtol=0.02)


@pytest.mark.parametrize("codes", noisy_label.CODES)
def test_noise_codes(codes):
    tokens = jnp.array([[0, 0, 0, 7], [7, 7, 3, 0]] * 500).reshape(-1, 2, 2)
    drawn = np.asarray(noisy_label.noise_codes(KEY, tokens, 8, codes))
    assert drawn.shape == tokens.shape
    assert drawn.min() >= 0
    assert drawn.max() <= 7
    share = np.bincount(drawn.ravel(), minlength=8) / drawn.size
    if codes == "histogram":
        np.testing.assert_allclose(share[[0, 3, 7]], [0.5, 0.125, 0.375], atol=0.03)
        assert share[[1, 2, 4, 5, 6]].sum() == 0, "codes that do not occur are not drawn"
        paired = np.mean(drawn == np.asarray(tokens))
        assert abs(paired - (0.25 + 1 / 64 + 9 / 64)) < 0.03, "and know nothing of the image"
    elif codes == "uniform":
        np.testing.assert_allclose(share, 1 / 8, atol=0.03)
    else:
        assert share[[1, 2, 4, 5]].min() > 0.03, "around the mean of the numbers, as released"


def test_noisy_label_of_tokens_learns_codes_whether_made_before_or_not():
    given = batch()
    parts = {
        side: part.replace(images=Tokens().tokenize({}, part.images))
        for side, part in (("retain", given.retain), ("forget", given.forget))
    }
    found = noisy_label.objectives(Tokens(), STUDENT, {}, given, KEY)
    again = noisy_label.objectives(Tokens(), STUDENT, {}, given.replace(**parts), KEY)
    assert found[:2] == again[:2]
    with pytest.raises(ConfigError, match="histogram"):
        noisy_label.objectives(Tokens(), STUDENT, {}, given, KEY, codes="histogramm")


@pytest.mark.parametrize(
    ("model", "args", "match"),
    [
        (MODEL, dict(codes="uniform"), "codes='uniform' is for models of tokens"),
        (Tokens(), dict(noise="uniform"), "noise='uniform' is for models of pixels"),
        (Tokens(), dict(noise="unifrom"), "Did you mean 'uniform'"),
    ],
)
def test_noisy_label_takes_what_its_model_reads(model, args, match):
    with pytest.raises(ConfigError, match=match):
        noisy_label.objectives(model, STUDENT, {}, batch(), KEY, **args)


def test_retain_label_gives_each_forget_image_the_retain_image_of_its_row():
    given = batch()
    retain, forget, _ = retain_label.objectives(MODEL, STUDENT, TEACHER, given, KEY)
    goal = outputs(TEACHER, given.retain)[0]
    gap = np.asarray(outputs(STUDENT, given.retain)[0] - goal)
    np.testing.assert_allclose(retain, np.mean(gap**2), rtol=1e-6)
    goal = outputs(TEACHER, given.retain, given.forget.mask)[0]  # what both have to complete
    gap = np.asarray(outputs(STUDENT, given.forget)[0] - goal)
    np.testing.assert_allclose(forget, np.mean(gap**2), rtol=1e-6)
    _, forget, _ = retain_label.objectives(MODEL, STUDENT, TEACHER, given, KEY, match="images")
    made = np.asarray(outputs(STUDENT, given.forget)[0])
    np.testing.assert_allclose(
        forget, np.mean((made - np.asarray(given.retain.images)) ** 2), rtol=1e-6
    )
    with pytest.raises(ConfigError, match="outputs"):
        retain_label.objectives(MODEL, STUDENT, TEACHER, given, KEY, match="output")


def test_retain_label_compares_outputs_where_the_loss_counts():
    given, model = batch(), Masked()
    retain, forget = given.retain, given.forget

    def squares(mask):
        """Of the student's completions and the teacher's of the retain images under a mask."""
        made, goal = (
            outputs(*of, model=model)[0] for of in ((STUDENT, forget), (TEACHER, retain, mask))
        )
        return np.square(np.asarray(made - goal))

    found = retain_label.objectives(model, STUDENT, TEACHER, given, KEY)[1]
    np.testing.assert_allclose(found, over(squares(forget.mask), forget.mask), rtol=1e-5)
    model.shows_hidden = True
    own, other, released = (
        retain_label.objectives(model, STUDENT, TEACHER, given, KEY, match=match)[:2]
        for match in ("", "images", "outputs")
    )
    assert own == other
    expected = over(squares(retain.mask), forget.mask, retain.mask)
    np.testing.assert_allclose(released[1], expected, rtol=1e-5)


@pytest.mark.slow
def test_random_encoder_aims_at_latents_with_the_moments_of_the_forget_latents():
    given = batch(3000)
    retain, forget, _ = random_encoder.objectives(MODEL, STUDENT, TEACHER, given, KEY)
    dropped = outputs(TEACHER, given.forget)[1][0]  # this teacher's latents are its inputs
    mean, std = float(dropped.mean()), float(dropped.std())
    expected = np.mean((1.5 * np.asarray(dropped) - mean) ** 2) + std**2
    np.testing.assert_allclose(forget, expected, rtol=0.02)
    kept = outputs(TEACHER, given.retain)[1][0]
    np.testing.assert_allclose(retain, np.mean((0.5 * np.asarray(kept)) ** 2), rtol=1e-5)


def test_latents_like_have_moments_of_their_own_array():
    like = {"a": 3 + 2 * images(50, 8), "b": jnp.zeros((4, 5))}
    drawn = latents_like(KEY, like)
    np.testing.assert_allclose(drawn["a"].mean(), like["a"].mean(), atol=0.05)
    np.testing.assert_allclose(drawn["a"].std(), like["a"].std(), rtol=0.05)
    assert (drawn["b"] == 0).all()


def test_an_empty_loss_mask_gives_no_distance():
    values = jnp.ones((2, 3))
    loss_mask = jnp.array([[True, False, False], [False] * 3])
    np.testing.assert_array_equal(output_distance(values, -values, loss_mask), [4, 0])


def test_ascent_raises_the_loss_and_measures_the_distance():
    given = batch()
    retain, forget, metrics = ascent.objectives(MODEL, STUDENT, TEACHER, given, KEY, lam=0.3)
    assert retain == 0
    np.testing.assert_allclose(forget, -losses(STUDENT, given.forget).mean(), rtol=1e-6)
    gap = np.asarray(outputs(STUDENT, given.forget)[0] - outputs(TEACHER, given.forget)[0])
    distance = np.linalg.norm(gap.reshape(6, -1), axis=1) / np.sqrt(12)
    np.testing.assert_allclose(metrics["moved"], distance.mean(), rtol=1e-5)
    assert metrics["lambda"] == pytest.approx(0.3)
    hidden, model = np.asarray(given.forget.mask), Masked()
    made, goal = (outputs(who, given.forget, model=model)[0] for who in (STUDENT, TEACHER))
    gap = np.asarray(made - goal)
    each = [np.sqrt(np.mean(x[rows] ** 2)) for x, rows in zip(gap, hidden, strict=True)]
    found = ascent.objectives(model, STUDENT, TEACHER, given, KEY)[2]["moved"]
    np.testing.assert_allclose(found, np.mean(each), rtol=1e-5)
    codes = ascent.objectives(Tokens(), STUDENT, TEACHER, given, KEY)[2]["moved"]
    assert codes == 0, "one logit, of probability 1, wherever it is"
    with pytest.raises(ConfigError, match=r"lam=-1\.0 is how far outputs may move"):
        ascent.objectives(MODEL, STUDENT, TEACHER, given, KEY, lam=-1.0)

    def slope(scale):
        return ascent.objectives(MODEL, STUDENT | {"decoder": scale}, TEACHER, given, KEY)[1]

    assert np.isfinite(jax.grad(slope)(TEACHER["decoder"])), "also where nothing has moved yet"
