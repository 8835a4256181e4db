"""The diffusion model's own promises: its size, its T, its samplers, its files, its refusals."""

import functools
import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from l2l_jax.engine import retrained
from l2l_jax.lib import sharding, trees
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.lib.objectives import latent_distance
from l2l_jax.methods import l2l
from l2l_jax.models import diffusion
from l2l_jax.models.layers import denoising, noise_schedule, unet
from l2l_jax.models.layers.noise_schedule import BUFFERS, Schedule
from l2l_jax.tasks import center
from l2l_jax.types import Batch, UnlearnBatch
from l2l_jax.weights import __main__, safetensors, torch_reader, torch_writer
from l2l_jax.weights.formats import diffusion as diffusion_format
from l2l_jax.weights.formats import diffusion as files
from l2l_jax.weights.name_map import to_state_dict
from l2l_jax.weights.pretrained import load, read_official
from l2l_jax.weights.safetensors import Weights
from tests.helpers import images, small_model

HOLE = jnp.zeros((2, 4, 4), bool).at[:, 1:3, 1:3].set(True)
PIXELS = np.repeat(np.repeat(np.asarray(HOLE), 4, 1), 4, 2)[..., None]


@functools.cache
def setting(**changes):
    model = small_model("diffusion", **changes)
    return model, noise_for(model)


def noise_for(model):
    """Parameters none of which is 0 or 1, without compiling anything; one embedding for both."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(leaf.dtype), model.template
    )
    return (
        diffusion_format.adapt({**params, "decoder": {**params["decoder"], "embed": None}}, model)
        if (model.tying == "frozen")
        else params
    )


def draws(model, seed=0, count=2):
    rng = np.random.default_rng(seed)
    shape = (count, model.image_size, model.image_size, 3)
    epsilon, fill = rng.normal(size=(2, *shape)).astype(np.float32)
    return jnp.asarray(epsilon), jnp.asarray(fill)


@pytest.mark.slow
def test_the_published_size_has_62_64_million_parameters_and_thirteen_maps():
    model = diffusion.build(tying="tied")
    assert trees.count(model.template) == 62_641_347
    shape = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    gamma = jax.ShapeDtypeStruct((1,), jnp.float32)
    inputs = diffusion.Inputs(shape, shape, None, gamma, shape)
    maps = jax.eval_shape(model.encode, model.template, inputs)
    sides = [(m.shape[-1], m.shape[1]) for m in maps]
    assert sides == [*[(64, 256)] * 3, (64, 128), *[(128, 128)] * 2, (128, 64), *[(256, 64)] * 2,
                     (256, 32), *[(512, 32)] * 3]  # fmt: skip
    assert jax.eval_shape(model.decode, model.template, maps, inputs).shape == shape.shape
    attending = [name for name in trees.flatten(model.template) if "/qkv/kernel" in name]
    assert attending == ["encoder/middle/1/qkv/kernel"], "16 is no factor of the released network"


# T -----------------------------------------------------------------------------------------------


def test_a_hole_is_noise_in_what_is_given_and_a_mixture_in_what_is_denoised():
    model, x = setting()[0], images(2, 16)
    epsilon, fill = draws(model)
    gamma = jnp.array([0.81, 0.19])
    made = model.noised(x, HOLE, gamma, epsilon, fill)
    y = np.asarray(x) * 2 - 1
    signal, noise = (np.array(v)[:, None, None, None] for v in ([0.9, 0.19**0.5], [0.19**0.5, 0.9]))
    np.testing.assert_allclose(made.condition, np.where(PIXELS, fill, y), atol=1e-6)
    mixed = signal * y + noise * np.asarray(epsilon)
    np.testing.assert_allclose(made.noisy, np.where(PIXELS, mixed, y), atol=1e-6)
    assert np.array_equal(made.epsilon, epsilon)


def test_levels_are_spread_over_the_schedule_and_never_beyond_it():
    model = small_model("diffusion", steps=50, beta_end=0.2)
    x, mask = jnp.zeros((4096, 16, 16, 3)), jnp.zeros((4096, 4, 4), bool)
    made = jax.jit(lambda key: model.corrupt({}, x, mask, key).gamma)(jax.random.key(0))
    gammas = model.schedule.gammas
    assert gammas[-1] <= made.min() < gammas[-2]
    assert gammas[1] < made.max() <= gammas[0]
    place = np.searchsorted(-gammas, -np.asarray(made))  # of 1 .. 49, each as often as the others
    counts = np.bincount(place, minlength=50)[1:]
    assert counts.sum() == 4096
    assert counts.min() > 40, "4096 / 49 is 84"


def test_other_targets_move_epsilon_to_what_would_make_them():
    model, (x, y) = setting()[0], images(4, 16).reshape(2, 2, 16, 16, 3)
    epsilon, fill = draws(model)
    gamma = jnp.array([0.04, 0.96])
    made = model.noised(x, HOLE, gamma, epsilon, fill, targets=y)
    own = model.noised(x, HOLE, gamma, epsilon, fill)
    signal, noise = jnp.sqrt(gamma)[:, None, None, None], jnp.sqrt(1 - gamma)[:, None, None, None]
    implied = signal * (y * 2 - 1) + noise * made.epsilon
    np.testing.assert_allclose(
        np.where(PIXELS, implied, 0)[0], np.where(PIXELS, own.noisy, 0)[0], atol=1e-5
    )
    moved = np.abs(made.epsilon - epsilon)[1]
    np.testing.assert_allclose(moved, np.abs(2 * (x - y))[1], atol=1e-5, err_msg="held at SNR 1")


def test_an_input_seen_as_another_y_has_the_epsilon_that_explains_it():
    model, x = setting()[0], images(2, 16)
    epsilon, fill = draws(model)
    gamma = jnp.array([0.3, 0.9])
    made = model.noised(x, HOLE, gamma, epsilon, fill)
    other, _ = draws(model, seed=1)
    seen = model.seen_as(made, other)
    expected = (other - jnp.sqrt(gamma)[:, None, None, None] * (x * 2 - 1)) / jnp.sqrt(1 - gamma)[
        :, None, None, None
    ]
    np.testing.assert_allclose(
        np.where(PIXELS, seen.epsilon, 0), np.where(PIXELS, expected, 0), atol=1e-5
    )
    assert np.array_equal(np.where(PIXELS, 0, seen.noisy), np.where(PIXELS, 0, made.noisy))
    energy = (np.where(PIXELS, expected, 0) ** 2).sum((1, 2, 3)) / 2
    np.testing.assert_allclose(model.energy(seen), energy, rtol=1e-5)


@pytest.mark.slow
def test_the_loss_is_that_of_the_hole():
    model, params = setting()
    x = images(2, 16)
    epsilon, fill = draws(model)
    made = model.noised(x, HOLE, jnp.array([0.3, 0.9]), epsilon, fill)
    outside = made.replace(epsilon=jnp.where(PIXELS, made.epsilon, 99.0))
    loss = jax.jit(model.loss)
    np.testing.assert_array_equal(loss(params, made), loss(params, outside))
    output = model.decode(params, model.encode(params, made), made)
    expected = ((output - epsilon) ** 2)[PIXELS[..., 0]].reshape(2, -1).mean(1)
    np.testing.assert_allclose(loss(params, made), expected, rtol=1e-5)


@pytest.mark.slow
def test_the_decoder_of_the_paper_does_not_move_with_the_encoder():
    x, epsilon_fill = images(2, 16), draws(setting()[0])
    for tying, still in (("frozen", True), ("tied", False)):
        model = small_model("diffusion", tying=tying)
        params = noise_for(model)
        made = model.noised(x, HOLE, jnp.array([0.3, 0.9]), *epsilon_fill)
        maps = model.encode(params, made)
        moved = jax.tree.map(lambda leaf: leaf + 0.1, params["encoder"]["embed"])
        other = params | {"encoder": params["encoder"] | {"embed": moved}}
        same = np.array_equal(model.decode(params, maps, made), model.decode(other, maps, made))
        assert same == still, tying


@pytest.mark.slow
def test_recomputing_blocks_changes_nothing():
    x = images(2, 16)
    found = []
    for remat in (False, True):
        model = small_model("diffusion", remat=remat)
        params = noise_for(model)
        made = model.noised(x, HOLE, jnp.array([0.3, 0.9]), *draws(model))
        gradient = jax.grad(lambda p, m=model, i=made: m.training_loss(p, i)[0])
        found.append(jax.jit(gradient)(params))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_resampling_blocks_are_the_same_on_eight_devices():
    """The contract's model has one level; here are three, with attention at the second."""
    model = small_model("diffusion", multipliers=(1, 1, 2), attention=(2,))
    params, x = noise_for(model), images(8, 16)
    params = jax.tree.map(lambda leaf: leaf / 4, params)
    made = model.noised(x, jnp.repeat(HOLE, 4, 0), jnp.linspace(0.1, 0.9, 8), *draws(model, 0, 8))
    found = []
    for devices in (1, 8):
        mesh = sharding.make_mesh(fsdp=-1, devices=jax.devices()[:devices])
        placed = sharding.place(params, sharding.parameter_shardings(mesh, params))
        loss = jax.jit(model.loss)
        found.append(loss(placed, jax.device_put(made, sharding.batch_sharding(mesh))))
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert [m.shape[1] for m in model.encode(params, made)] == [16, 16, 8, 8, 4, 4, 4]


# L2L's targets -----------------------------------------------------------------------------------


def l2l_of(scale=1.05, **args):
    model, params = setting()
    student = jax.tree.map(lambda x: x * scale, params)
    batch = UnlearnBatch(Batch(images(2, 16, 1), HOLE), Batch(images(2, 16, 2), HOLE))

    def objectives(images):
        forget = batch.forget.replace(images=images)
        return l2l.objectives(
            model, student, params, batch.replace(forget=forget), jax.random.key(0), **args
        )[:2]

    return jax.jit(objectives), batch.forget.images


@pytest.mark.slow
def test_the_released_target_keeps_the_context_and_the_papers_does_not():
    """E's maps of both: the released goal differs from the forget image in its hole alone."""
    model, x = setting()[0], images(2, 16, 2)
    made = model.noised(x, HOLE, jnp.array([0.5, 0.9]), *draws(model))
    goal = model.only_noise(made)
    assert np.array_equal(goal.condition, made.condition)
    assert np.array_equal(np.where(PIXELS, 0, goal.noisy), np.where(PIXELS, 0, made.noisy))
    assert np.array_equal(goal.noisy[PIXELS[..., 0]], made.epsilon[PIXELS[..., 0]])
    released, forget = l2l_of(target="released")
    paper, _ = l2l_of(target="paper")
    assert released(forget)[0] == paper(forget)[0], "the retain side is the same"
    assert 0 < released(forget)[1] < paper(forget)[1], "less is asked for"
    still, _ = l2l_of(1.0, target="released")
    retain, away = still(forget)
    assert retain == 0 < away, "at the start there is something to do on one side only"


@pytest.mark.slow
def test_student_and_teacher_share_one_gamma_and_one_draw():
    """T of the forget image and T of the noise image, and T of the retain image, once."""
    (model, params), made = setting(), []

    class Recording:
        def __getattr__(self, name):
            return getattr(model, name)

        def corrupt(self, params, images, mask, rng, **rest):
            made.append(model.corrupt(params, images, mask, rng, **rest))
            return made[-1]

    batch = UnlearnBatch(Batch(images(2, 16, 1), HOLE), Batch(images(2, 16, 2), HOLE))
    l2l.objectives(Recording(), params, params, batch, jax.random.key(0))
    kept, dropped, nothing = made
    assert np.array_equal(dropped.gamma, nothing.gamma)
    assert np.array_equal(dropped.epsilon, nothing.epsilon)
    hole = PIXELS[..., 0]
    assert np.array_equal(dropped.condition[hole], nothing.condition[hole]), "the fill, too"
    assert not np.isclose(dropped.condition[~hole], nothing.condition[~hole]).all()
    assert not np.isclose(kept.gamma, dropped.gamma).any(), "each side draws its own"


@pytest.mark.slow
def test_maps_are_added_and_relative_ones_in_units_of_their_goal():
    rng = np.random.default_rng(0)
    goal = [scale * rng.normal(size=(2, *shape)) for scale, shape in ((30.0, (4, 4)), (0.1, (7,)))]
    made = [1.5 * x + 0.2 for x in goal]
    maps = [tuple(jnp.asarray(x, jnp.float32) for x in side) for side in (made, goal)]
    apart = [np.mean((a - b) ** 2) for a, b in zip(made, goal, strict=True)]
    np.testing.assert_allclose(latent_distance(*maps), sum(apart), rtol=1e-5)
    units = [x / np.mean(b**2) for x, b in zip(apart, goal, strict=True)]
    np.testing.assert_allclose(latent_distance(*maps, relative=True), sum(units), rtol=1e-5)
    plain, forget = l2l_of()
    relative, _ = l2l_of(relative=True)
    assert not np.isclose(plain(forget)[0], relative(forget)[0])


def test_the_released_target_is_refused_where_nothing_hidden_is_shown():
    model = small_model("autoencoder")
    batch = UnlearnBatch(Batch(images(2, 16, 1), HOLE), Batch(images(2, 16, 2), HOLE))
    with pytest.raises(ConfigError, match=r"sees no hidden pixels. Leave target at 'paper'"):
        l2l.objectives(model, {}, {}, batch, jax.random.key(0), target="released")
    with pytest.raises(ConfigError, match=r"No target of l2l called 'code'"):
        l2l.objectives(model, {}, {}, batch, jax.random.key(0), target="code")
    for idle in (dict(noise="uniform"), dict(clip=True)):
        with pytest.raises(ConfigError, match=r"uses no noise image, .* leave them out"):
            l2l.objectives(
                setting()[0], {}, {}, batch, jax.random.key(0), target="released", **idle
            )


# Sampling ----------------------------------------------------------------------------------------


def perfect(image):
    """Predicts the noise that turns `image` into what it is given."""

    def predict(noisy, gamma):
        return (noisy - jnp.sqrt(gamma) * image) / jnp.sqrt(1 - gamma)

    return predict


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_few_steps_of_a_perfect_model_arrive(steps):
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)), jnp.float32)
    hidden = jnp.zeros((2, 8, 8, 1), bool).at[:, 2:6].set(True)
    start = jnp.where(hidden, 0.3, image)
    schedule = Schedule("linear", 10, 1e-3, 0.5)
    made = denoising.ddim(perfect(image), start, image, hidden, schedule, steps)
    np.testing.assert_allclose(made, image, atol=1e-4)
    noise = functools.partial(jax.random.normal, jax.random.key(0), image.shape)
    made = denoising.ddpm(perfect(image), start, image, hidden, schedule, lambda t: 0 * t + noise())
    np.testing.assert_allclose(made, image, atol=2e-2)


class Wrong(diffusion.Diffusion):
    """A model that is never right."""

    @staticmethod
    def says(noisy, gamma):
        return 0.6 * noisy + 0.5 * gamma - 0.2

    def encode(self, params, inputs):
        return ()

    def decode(self, params, hidden, inputs):
        return self.says(inputs.noisy, inputs.gamma[:, None, None, None])


def test_few_steps_are_those_of_the_formula():
    """In float64, over the schedule of sampling and not the one of training."""
    walked = ("quad", 20, 1e-3, 0.3)
    model = Wrong(**vars(small_model("diffusion", sample_schedule=walked, sample_steps=3)))
    start = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    hidden = np.zeros((2, 16, 16, 1), bool)
    hidden[:, 4:12] = True
    made = model.sample({}, jnp.float32(start), jnp.asarray(hidden), lambda _: start)
    gammas = np.cumprod(1 - Schedule(*walked).betas)[[19, 12, 6]]
    y = start
    for gamma, goal in zip(gammas, [*gammas[1:], 1.0], strict=True):
        image = np.clip((y - np.sqrt(1 - gamma) * model.says(y, gamma)) / np.sqrt(gamma), -1, 1)
        left = (y - np.sqrt(gamma) * image) / np.sqrt(1 - gamma)
        y = np.where(hidden, np.sqrt(goal) * image + np.sqrt(1 - goal) * left, start)
    np.testing.assert_allclose(made, y, atol=1e-5)
    assert 0.05 < np.mean(np.abs(y[hidden[..., 0]]) == 1) < 0.95, "some are clipped, some are not"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [{}, dict(sampler="ddpm", sample_steps=0)])
def test_completions_are_the_same_on_eight_devices(sampler):
    model, (_, params) = small_model("diffusion", **sampler), setting()
    x, mask, found = images(8, 16), jnp.repeat(HOLE, 4, 0), []
    for devices in (1, 8):
        mesh = sharding.make_mesh(fsdp=-1, devices=jax.devices()[:devices])
        placed = sharding.place(params, sharding.parameter_shardings(mesh, params))
        given = jax.device_put((x, mask), sharding.batch_sharding(mesh))
        found.append(jax.jit(model.reconstruct)(placed, *given, jax.random.key(3)))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_known_pixels_are_put_back_after_every_step():
    seen = []

    def predict(noisy, gamma):
        jax.debug.callback(lambda x: seen.append(np.array(x)), noisy)
        return jnp.full_like(noisy, 0.7) * gamma

    known, hidden = jnp.full((1, 4, 4, 3), 0.25), jnp.zeros((1, 4, 4, 1), bool).at[:, :2].set(True)
    schedule = Schedule("linear", 5, 1e-3, 0.5)
    for run in (
        lambda: denoising.ddim(predict, known, known, hidden, schedule, 5),
        lambda: denoising.ddpm(
            predict, known, known, hidden, schedule, lambda t: jnp.ones(known.shape) + t
        ),
    ):
        seen.clear()
        made = np.asarray(run())
        jax.effects_barrier()
        assert len(seen) == 5
        for each in (*seen, made):
            assert (each[:, 2:] == 0.25).all()
        assert not (made[:, :2] == 0.25).any()


def test_steps_are_spread_from_the_last_to_the_first():
    assert denoising.spread_steps(2000, 1).tolist() == [1999]
    assert denoising.spread_steps(2000, 4).tolist() == [1999, 1499, 999, 499]
    for steps in range(1, 31):
        assert (np.diff(denoising.spread_steps(30, steps)) < 0).all()
    assert denoising.spread_steps(10, 10).tolist() == list(range(9, -1, -1))


def test_the_schedule_of_sampling_is_an_argument():
    own, given = small_model("diffusion"), ("linear", 20, 1e-3, 0.4)
    other = small_model("diffusion", sample_schedule=given, sample_steps=0)
    assert own.sample_schedule == own.schedule
    assert other.sample_schedule == Schedule(*given)
    assert other.schedule == own.schedule
    assert other.identity == own.identity, "the weights are the same"
    assert own.sampling == "ddim, 2 of 10 steps, linear 1e-06 to 0.5"
    assert other.sampling == "ddim, 20 of 20 steps, linear 0.001 to 0.4"
    every = small_model("diffusion", sampler="ddpm", schedule="cosine", sample_steps=0)
    assert every.sampling == "ddpm, 10 of 10 steps, cosine"


@pytest.mark.slow
def test_completions_depend_on_the_key_and_on_nothing_else():
    model, params = setting()
    complete = jax.jit(functools.partial(model.reconstruct, params))
    x = images(2, 16)
    one, again, other = (complete(x, HOLE, jax.random.key(k)) for k in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


# Files -------------------------------------------------------------------------------------------


def official_file(path, without=(), **changes):
    """A file of the smallest network in the official form, from our own parameters."""
    model, params = setting(tying="tied")
    state = diffusion_format.to_torch(to_state_dict(params, diffusion_format.NAMES), model)
    state = {k: v for k, v in (state | changes).items() if not any(w in k for w in without)}
    torch_writer.write(path, state)
    return model, params


@pytest.mark.slow
def test_an_official_file_is_recognised_and_can_be_unlearned_as_the_paper_says(tmp_path):
    path = tmp_path / "16_Network.pth"
    _, params = official_file(path)
    config = dict(small_model("diffusion").identity)  # what a config would say
    read = load(str(path), "diffusion", dict(diffusion.SMALLEST))
    assert read.about["args"]["size"] == "test"
    assert read.about["args"]["steps"] == config["steps"] == 10
    for part in ("encoder", "decoder"):
        assert np.array_equal(
            read.params[part]["embed"]["first"]["kernel"],
            params["encoder"]["embed"]["first"]["kernel"],
        )
    released = load(str(path), "diffusion", diffusion.SMALLEST | dict(tying="tied"))
    assert "embed" not in released.params["decoder"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "message"),
    [
        (("input_blocks.1.0.in_layers.2",), r"lacks 2 arrays .*input_blocks\.1\.0\.in_layers\.2\."),
        (("out.0",), r"lacks 2 arrays of the network .*denoise_fn\.out\.0\.bias"),
        (("cond_embed",), r"lacks 4 arrays .*denoise_fn\.cond_embed\.2\.weight"),
        (("denoise_fn",), r"no file of Palette: no name in it begins with denoise_fn\."),
        (("gammas",), r"lacks gammas, sqrt_recip_gammas.*--set schedule=linear --set steps=2000"),
        (("posterior_mean_coef1",), r"lacks posterior_mean_coef1 of its noise schedule"),
    ],
)
def test_what_a_file_lacks_is_named(tmp_path, without, message):
    official_file(tmp_path / "a.pth", without=without)
    with pytest.raises(WrongWeights, match=message):
        read_official(tmp_path / "a.pth", "diffusion", {"image_size": 16})


@pytest.mark.parametrize(
    ("gone", "count"),
    [
        ("output_blocks.2.1.", 10),  # what makes a map larger, whole
        ("output_blocks.2.1.in_layers.2.weight", 1),
        ("input_blocks.8.", 10),  # the last one
        ("input_blocks.5.", 10),
        ("input_blocks.0.0.", 2),
        ("middle_block.1.qkv.bias", 1),
    ],
)
@pytest.mark.slow
def test_no_other_arrays_are_named_in_their_place(monkeypatch, gone, count):
    size = unet.Size(32, (1, 1, 2), 2, (), 32, 8)
    monkeypatch.setitem(diffusion.SIZES, "three levels", size)
    names = {name: np.zeros(1) for name in files.expected(size)} | Schedule().buffers
    kernels = {n: np.zeros((64 if ".7." in n or ".8." in n else 32, 1, 3, 3)) for n in names
               if "input" in n and n.endswith("in_layers.2.weight")}  # fmt: skip
    whole = names | kernels | {"denoise_fn.cond_embed.0.weight": np.zeros((128, 32))}
    part = {name: value for name, value in whole.items() if gone not in name}
    lost = sorted(set(whole) - set(part))
    assert len(lost) == count
    with pytest.raises(WrongWeights, match=f"lacks {count} arrays.*") as error:
        diffusion_format.infer_args(part, {})
    assert str(error.value).endswith(f"Missing: {', '.join(lost)}.")
    assert diffusion_format.infer_args(whole, {})["size"] == "three levels"


def test_a_file_without_its_schedule_can_be_told_it(tmp_path):
    official_file(tmp_path / "a.pth", without=BUFFERS)
    told = dict(image_size=16, schedule="linear", steps=10, beta_start=1e-6, beta_end=0.5)
    read = read_official(tmp_path / "a.pth", "diffusion", told)
    assert read.about["args"]["beta_end"] == 0.5


@pytest.mark.slow
def test_a_schedule_that_is_said_otherwise_than_the_file_has_it_is_refused(tmp_path):
    official_file(tmp_path / "a.pth")
    told = dict(image_size=16, beta_end=0.02, steps=20)
    match = r"linear 1e-06 to 0\.5 in 10 steps, and not one of steps=20, beta_end=0\.02; leave"
    with pytest.raises(WrongWeights, match=match):
        read_official(tmp_path / "a.pth", "diffusion", told)
    told = dict(image_size=16, beta_end=0.5, steps=10, schedule="linear")
    assert read_official(tmp_path / "a.pth", "diffusion", told).about["args"]["steps"] == 10
    flat = Schedule("const", 10, 0.1, 0.1).buffers
    official_file(tmp_path / "b.pth", **flat)
    told = dict(image_size=16, schedule="const", beta_end=0.1)
    read = read_official(tmp_path / "b.pth", "diffusion", told)
    assert read.about["args"]["schedule"] == "const", "the same by another name"


@pytest.mark.slow
def test_a_network_of_no_known_size_lacks_what_the_rest_tells_of():
    size = unet.Size(48, (1, 2), 1)
    whole = {name: np.zeros((48, 48)) for name in files.expected(size)} | Schedule().buffers
    part = {name: value for name, value in whole.items() if "middle_block.1." not in name}
    match = r"lacks 6 arrays of the network that the other arrays imply, of no known size; .*qkv"
    with pytest.raises(WrongWeights, match=match):
        diffusion_format.infer_args(part, {})


@pytest.mark.slow
def test_heads_and_groups_that_leave_no_trace_are_asked_for():
    """With another width of the heads the same arrays give other outputs."""
    size = unet.Size(48, (1, 2), 1, (2,), 16, 16)
    whole = {name: np.zeros((48, 48)) for name in files.expected(size)} | Schedule().buffers
    for known in ({}, {"head": 16}, {"groups": 16}):
        with pytest.raises(
            WrongWeights, match=r"add --set head=N --set groups=N.*model\.args\.head"
        ):
            diffusion_format.infer_args(whole, known)
    args = diffusion_format.infer_args(whole, {"head": 16, "groups": 16})
    assert (args["head"], args["groups"], args["width"]) == (16, 16, 48)
    published = {n: np.zeros((32, 32)) for n in files.expected(diffusion.SIZES["small"])}
    assert diffusion_format.infer_args(published | Schedule().buffers, {})["size"] == "small"


def test_groups_that_are_not_official_are_told_at_export(caplog):
    for groups, told in ((32, False), (8, True)):
        caplog.clear()
        files.to_torch({}, small_model("diffusion", width=32, groups=groups))
        assert ("--set groups=8" in caplog.text) == told


def test_a_schedule_nobody_knows_is_refused(tmp_path):
    odd = np.linspace(0.9, 0.1, 10).astype(np.float32)
    official_file(tmp_path / "a.pth", gammas=odd)
    with pytest.raises(WrongWeights, match="fit no noise schedule known here"):
        read_official(tmp_path / "a.pth", "diffusion", {"image_size": 16})


def test_another_schedule_than_the_configs_is_refused(tmp_path):
    official_file(tmp_path / "a.pth")
    with pytest.raises(WrongWeights, match=r"beta_end: 0\.5 there, 0\.4 in the config"):
        load(str(tmp_path / "a.pth"), "diffusion", diffusion.SMALLEST | dict(beta_end=0.4))


@pytest.mark.slow
def test_an_embedding_of_its_own_is_exported_with_a_warning_and_comes_back(caplog, tmp_path):
    model, params = setting()
    moved = jax.tree.map(lambda x: x + 1, params["encoder"]["embed"])
    params = params | {"encoder": params["encoder"] | {"embed": moved}}
    about = {"model": "diffusion", "args": diffusion.SMALLEST}
    safetensors.save(tmp_path / "a.safetensors", params, about)
    __main__.main(["export", str(tmp_path / "a.safetensors"), str(tmp_path / "a.pth")])
    assert "decodes otherwise" in caplog.text
    state = torch_reader.read(tmp_path / "a.pth")
    assert set(BUFFERS) <= state.keys()
    read = load(str(tmp_path / "a.pth"), "diffusion", diffusion.SMALLEST)
    assert not trees.difference(read.params, model.canonical, "file", "model")
    for part in ("encoder", "decoder"):
        kernels = (p[part]["embed"]["first"]["kernel"] for p in (read.params, params))
        assert np.array_equal(*kernels)


@pytest.mark.parametrize("name", noise_schedule.NAMES)
def test_every_schedule_is_recognised_by_its_buffers(name):
    schedule = Schedule(name, 40, 1e-4, 0.02)
    found = noise_schedule.infer_schedule(schedule.buffers)
    assert found.name == ("linear" if name == "const" else name), "a line without a slope"
    np.testing.assert_allclose(found.betas, schedule.betas, rtol=1e-3)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("linear", 200, 1.23456e-6, 0.1),
        Schedule("linear", 2000, 1e-6, 0.0123456),
        Schedule("linear", 2000, 1e-6, 1e-4),
        Schedule("quad", 3, 1e-3, 0.25),
        Schedule("linear", 4000, 1e-6, 1e-2),
    ],
)
def test_betas_are_recognised_to_the_digit(schedule):
    assert noise_schedule.infer_schedule(schedule.buffers) == schedule


@pytest.mark.parametrize("buffer", [np.ones(1), np.float32(1), np.full(40, np.nan)])
def test_buffers_that_are_none_are_of_no_schedule(buffer):
    assert noise_schedule.infer_schedule(dict.fromkeys(BUFFERS, buffer)) is None


def test_a_schedule_without_bounds_belongs_to_weights_whatever_bounds_are_said():
    one, two = (small_model("diffusion", schedule="cosine", beta_end=end) for end in (0.1, 0.2))
    assert one.identity == two.identity
    assert one.identity != small_model("diffusion", beta_end=0.1).identity
    assert Schedule("cosine", 10, 0.6, 0.5).betas[0] < 0.6, "and they need not be in order"


def test_a_constant_schedule_is_the_linear_one_that_its_file_is_recognised_as():
    given = small_model("diffusion", schedule="const", beta_start=0.3, beta_end=0.1)
    found = noise_schedule.infer_schedule(given.schedule.buffers)
    args = dict(schedule=found.name, beta_start=found.start, beta_end=found.end)
    assert small_model("diffusion", **args).identity == given.identity


@pytest.mark.slow
def test_bfloat16_computes_in_half_and_stays_close():
    full, half = (
        small_model("diffusion", dtype="float32"),
        small_model("diffusion", dtype="bfloat16"),
    )
    params = full.init(jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half.template))
    mask = center.mask(jax.random.key(0), 4, full.grid, cells=2)
    x = images(4, 16)
    inputs = full.corrupt(params, x, mask, jax.random.key(1))
    hidden = half.encode(params, inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(hidden)} == {jnp.dtype("bfloat16")}
    assert half.decode(params, hidden, inputs).dtype == jnp.float32
    np.testing.assert_allclose(half.loss(params, inputs), full.loss(params, inputs), rtol=0.03)
    made = [m.reconstruct(params, x, mask, jax.random.key(2)) for m in (full, half)]
    np.testing.assert_allclose(*made, atol=0.05)
    assert not np.array_equal(*made)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(size="large"), "No diffusion size called 'large'"),
        (dict(tying="frosen"), "No tying called 'frosen'. Did you mean 'frozen'"),
        (dict(sampler="ddmp"), "No sampler called 'ddmp'. Did you mean 'ddpm'"),
        (dict(schedule="linnear"), "No noise schedule called 'linnear'. Did you mean 'linear'"),
        (dict(sample_schedule=("sine", 5, 0.1, 0.2)), "No noise schedule called 'sine'"),
        (dict(sample_schedule=("linear", 5)), r"is \(name, steps, first beta, last beta\)"),
        (dict(steps=1), "at least 2 steps"),
        (dict(beta_start=0.6), "0 < start <= end < 1"),
        (dict(sample_steps=11), r"sample_steps=11: .* has 10 steps; take 1 to 10, or 0"),
        (dict(sample_steps=-1), "take 1 to 10"),
        (dict(sampler="ddpm"), r"takes all 10 steps .*sample_steps=0"),
        (
            dict(image_size=17, multipliers=(1, 2)),
            "cannot be halved 1 times, .*try image_size=16 or 20",
        ),
        (dict(image_size=16.0), r"image_size=16\.0 and cell=4 are whole numbers of pixels"),
        (dict(cell=0), "cell=0 are whole numbers of pixels, 1 or more"),
        (dict(image_size=18), "cut into cells of 4 pixels; try image_size=16 or 20"),
        (dict(groups=3, multipliers=(1, 2)), r"Widths \[8, 16\] cannot be split into 3 groups"),
        (dict(head=5), r"Widths \[8\] cannot be split into attention heads of 5"),
        (dict(blocks=-1), "are whole and positive"),
        (dict(width=8.0), "are whole and positive"),
        (dict(multipliers=2), r"multipliers are several numbers, such as \(1, 2\), not 2"),
        (dict(attention=(16,)), r"no map .* is 16 times smaller .*\[1\]\. The 16 of the released"),
        (dict(width=9, groups=1, head=9), "its width is even"),
        (dict(sample_schedule="quad"), r"not 'quad'"),
        (dict(sample_schedule=("linear", "20", 0.1, 0.2)), r"not steps='20'"),
        (dict(steps=200.0), r"not steps=200\.0"),
        (dict(beta_start="1e-6"), r"start='1e-6'"),
        (dict(sample_steps=2.5), r"sample_steps=2\.5"),
    ],
)
def test_bad_arguments(args, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a config may hold any type
    with pytest.raises(ConfigError, match=message):
        small_model("diffusion", **args)


def test_a_retrained_reference_may_share_its_embedding(monkeypatch, tmp_path):
    """pretrain makes the released variant, unlearning wants the paper's."""
    params = setting(tying="tied")[1]
    args = dict(diffusion.SMALLEST, tying="tied")
    made = Weights(params, {"model": "diffusion", "args": args})
    monkeypatch.setattr(retrained, "final_weights", lambda _: made)
    model = small_model("diffusion")
    read = retrained.load(str(tmp_path), model)
    assert not trees.difference(read.params, model.canonical, "read", "model")
    other = small_model("diffusion", beta_end=0.4)
    with pytest.raises(ConfigError, match=r"another model .*beta_end: 0\.5 there, 0\.4 in the"):
        retrained.load(str(tmp_path), other)


def test_the_docstring_says_how_the_released_evaluation_sampled():
    text = re.sub(r"\s+", " ", diffusion.__doc__)
    assert "overwrite it, so that all its images were sampled with the schedule of training" in text
    assert diffusion.RELEASED_TEST == ("linear", 2000, 1e-4, 0.09)
