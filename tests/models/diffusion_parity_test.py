"""The diffusion model against arrays made by the official PyTorch code of Palette (branch i2i).

The weights are drawn again from their seeds (tests/_torchlike.py), to 1e-6 of what PyTorch drew;
expected arrays are rounded to less than a tenth of the tolerance, which is the one suggested by
their authors. The released losses are averages over the whole batch in which the other side's rows
count as zeros; they are put together here from parts of the package.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import trees
from l2l_jax.methods import l2l
from l2l_jax.models import diffusion
from l2l_jax.models.layers import denoising, noise_schedule, unet
from l2l_jax.models.layers.noise_schedule import BUFFERS, Schedule
from l2l_jax.types import Batch, UnlearnBatch
from l2l_jax.weights import torch_reader, torch_writer
from l2l_jax.weights.formats import diffusion as diffusion_format
from l2l_jax.weights.name_map import to_params, to_state_dict
from l2l_jax.weights.pretrained import read_official
from tests import _torchlike
from tests.helpers import assert_same_bits, unpacked

IO, SCHEDULES, EXAMPLE = (
    np.load(unpacked(f"palette/{name}.npz")) for name in ("io", "schedules", "format_example_io")
)
RECIPES = json.loads(unpacked("palette/weights.json").read_text())
OUTPUT, FEATURES, SAMPLES = 1e-4, 2e-4, 5e-4
LOSS, GRADIENT = 1e-5, 1e-4  # relative, of the value and of the largest entry
KNOWN = {
    "official/train": Schedule(),
    "official/test": Schedule(*diffusion.RELEASED_TEST),
    "tiny/train": Schedule("linear", 50, 1e-6, 0.2),
    "tiny/test": Schedule("linear", 5, 0.01, 0.7),
}
RETAIN = IO["labels"] > 0
KEY = jax.random.key(0)
ALPHA = float(IO["forget_alpha"])
CASES = ("ours", "max_loss", "noisy_label", "random_encoder", "retain_label")
SAME = "learn_noise0_no_fix_decoder"  # as noisy_label: the same loss by other flags


def last(x):
    """[N, C, H, W] -> [N, H, W, C]."""
    return jnp.asarray(np.moveaxis(x, -3, -1))


@functools.cache
def states():
    buffers = {name: SCHEDULES[f"tiny/train/{name}"] for name in BUFFERS}
    made = _torchlike.palette_states(RECIPES, buffers)
    for name, state in made.items():
        np.testing.assert_allclose(_torchlike.checks(state), RECIPES["checks"][name], atol=5e-5)
    return made


HEADS = {"head": 32, "groups": 32}  # of official files; these have no published size


@functools.cache
def model():
    args = diffusion_format.infer_args(states()["network_Network"], {"image_size": 32, **HEADS})
    shape = dict(width=32, multipliers=(1, 2), blocks=1, attention=(2,), head=32, groups=32)
    trained = dict(schedule="linear", steps=50, beta_start=1e-6, beta_end=0.2)
    assert args == dict(size="published", image_size=32, cell=16) | shape | trained
    return diffusion.build(
        **args | dict(cell=1), tying="tied", sampler="ddpm", sample_steps=0,
        sample_schedule=("linear", 5, 0.01, 0.7),
    )  # fmt: skip


@functools.cache
def params(name):
    state = diffusion_format.from_torch(states()[name])
    return to_params(state, diffusion_format.NAMES)


def teacher():
    return params("network_Network")


def drawn():
    """T's inputs with the recorded draws."""
    made = model().noised(
        (last(IO["y_0"]) + 1) / 2, jnp.asarray(IO["mask"][:, 0] > 0),
        jnp.asarray(IO["loss/sample_gammas"][:, 0]), last(IO["noise"]), last(IO["cond_noise"]),
    )  # fmt: skip
    np.testing.assert_allclose(made.condition, last(IO["y_cond"]), atol=1e-6)
    return made


def output(params, inputs):
    return model().decode(params, model().encode(params, inputs), inputs)


@pytest.mark.slow
def test_a_gamma_is_drawn_between_two_of_the_schedule():
    gammas = model().schedule.gammas
    before, after = gammas[IO["loss/t"] - 1], gammas[IO["loss/t"]]
    between = before + IO["loss/u"][:, 0] * (after - before)
    np.testing.assert_allclose(between, IO["loss/sample_gammas"][:, 0], atol=1e-7)


@pytest.mark.parametrize("name", KNOWN)
def test_schedules(name):
    schedule = KNOWN[name]
    assert np.array_equal(schedule.betas, SCHEDULES[f"{name}/betas"]), "in float64"
    for buffer, value in schedule.buffers.items():
        assert np.array_equal(value, SCHEDULES[f"{name}/{buffer}"]), buffer
    assert noise_schedule.infer_schedule(schedule.buffers) == schedule


@pytest.mark.parametrize("name", noise_schedule.NAMES)
def test_other_schedules(name):
    expected = SCHEDULES[f"other_betas/{name}"]
    np.testing.assert_allclose(Schedule(name, len(expected)).betas, expected, rtol=1e-12)


@pytest.mark.slow
def test_unet():
    gamma, (given, noisy) = IO["unet/gammas"][:, 0], jnp.split(last(IO["unet/input"]), 2, axis=-1)
    embedded = unet.gamma_embedding(jnp.asarray(gamma), 32)
    np.testing.assert_allclose(embedded, IO["unet/gamma_embedding"], atol=1e-6)
    inputs = diffusion.Inputs(given, noisy, None, jnp.asarray(gamma), None)
    maps = model().encode(teacher(), inputs)
    for i, made in enumerate(maps):
        np.testing.assert_allclose(made[:1], last(IO[f"unet/feat{i}_sample0"]), atol=FEATURES)
    assert len(maps) == 5
    made = model().decode(teacher(), maps, inputs)
    np.testing.assert_allclose(made, last(IO["unet/output"]), atol=OUTPUT)


def test_q_sample():
    """Retain rows are noised as usual; a forget row's target becomes its noise and nothing else."""
    hidden = jnp.ones((3, 32, 32), bool)
    gamma, noise = jnp.asarray(IO["unet/gammas"][:, 0]), last(IO["noise"])
    made = model().noised((last(IO["y_0"]) + 1) / 2, hidden, gamma, noise, noise)
    np.testing.assert_allclose(made.noisy, last(IO["q_sample/y_noisy_original"]), atol=1e-6)
    both = jnp.where(RETAIN[:, None, None, None], made.noisy, model().only_noise(made).noisy)
    np.testing.assert_allclose(both, last(IO["q_sample/y_noisy_with_labels"]), atol=1e-6)


def predict(noisy, gamma, given=None):
    given = last(IO["y_cond"]) if given is None else given
    inputs = diffusion.Inputs(given, noisy, None, jnp.broadcast_to(gamma, (len(noisy),)), None)
    return output(teacher(), inputs)


@pytest.mark.slow
def test_p_mean_variance():
    """Of pure noise, at three steps of the schedule of sampling."""
    given, noisy = last(IO["y_cond"]), last(IO["noise"])
    for row, t in enumerate(IO["p_mean_variance/t"]):
        at = {name: value[t] for name, value in model().sample_schedule.buffers.items()}
        one = functools.partial(predict, given=given[row : row + 1])
        mean, log_variance = denoising.posterior(one, noisy[row : row + 1], at)
        np.testing.assert_allclose(mean[0], last(IO["p_mean_variance/mean"])[row], atol=OUTPUT)
        variance = IO["p_mean_variance/log_variance"][row, 0, 0, 0]
        np.testing.assert_allclose(log_variance, variance, rtol=1e-6)
        implied = at["sqrt_recip_gammas"] * noisy[row] - at["sqrt_recipm1_gammas"] * one(
            noisy[row : row + 1], at["gammas"]
        )
        expected = last(IO["p_mean_variance/y0_hat_unclipped"])[row]
        np.testing.assert_allclose(implied[0], expected, atol=OUTPUT)


def step_noise(t):
    """The recorded draws of steps 4, 3, 2, 1; step 0 draws none."""
    return last(IO["restoration/step_noise"])[jnp.maximum(4 - t, 0)]


@pytest.mark.slow
def test_sampling_from_the_context():
    hidden, start = last(IO["mask"]) > 0, last(IO["y_cond"])
    made = jax.jit(model().sample, static_argnums=3)(teacher(), start, hidden, step_noise)
    np.testing.assert_allclose(made, last(IO["restoration/output"]), atol=SAMPLES)
    np.testing.assert_allclose(
        np.where(hidden, 0, made), np.where(hidden, 0, last(IO["y_0"])), atol=1e-6
    )


@pytest.mark.slow
def test_every_step_of_sampling():
    """What each step begins with; ret_arr is the start and what steps 4, 2 and 0 lead to."""
    seen, hidden, start = [], last(IO["mask"]) > 0, last(IO["y_cond"])

    def watched(noisy, gamma):
        jax.debug.callback(lambda x: seen.append(np.array(x)), noisy, ordered=True)
        return predict(noisy, gamma)

    made = denoising.ddpm(watched, start, start, hidden, model().sample_schedule, step_noise)
    made.block_until_ready()
    jax.effects_barrier()
    expected = last(IO["restoration/ret_arr"]).reshape(4, 3, 32, 32, 3)
    for one, other in zip((seen[0], seen[1], seen[3], made), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=SAMPLES)


@pytest.mark.slow
def test_sampling_from_noise_with_nothing_known():
    start = last(IO["restoration_no_mask/start_noise"])
    hidden = jnp.ones((3, 32, 32, 1), bool)
    made = jax.jit(
        lambda start: denoising.ddpm(
            predict, start, start, hidden, model().sample_schedule, step_noise
        )
    )(start)
    np.testing.assert_allclose(made, last(IO["restoration_no_mask/output"]), atol=SAMPLES)


def rows(errors, which):
    """Mean over the whole batch of what one side's rows hold, as released."""
    return jnp.mean(jnp.where(which[:, None, None, None], errors, 0.0))


def released(student, case, inputs):
    """A loss of the released code on the recorded batch."""
    m, goal = model(), teacher()
    noise = m.only_noise(inputs)
    if case in ("ours", "random_encoder"):
        mine, total = m.encode(student, inputs), 0.0
        keep, drop = m.encode(goal, inputs), m.encode(goal, noise)
        drawn_maps = _torchlike.feature_noise(RECIPES["feature_noise"])
        for own, a, b, z in zip(mine, keep, drop, drawn_maps, strict=True):
            if case == "random_encoder":  # moments over the whole batch, retain rows included
                both = jnp.where(RETAIN[:, None, None, None], a, b)
                b = last(z) * jnp.std(both, ddof=1) + jnp.mean(both)
            total += rows((own - a) ** 2, RETAIN) + ALPHA * rows((own - b) ** 2, ~RETAIN)
        return total
    if case == "retain_label":
        made, wanted = output(student, inputs), output(goal, inputs)
        same, other = (made - wanted) ** 2, (made - wanted[RETAIN]) ** 2
        return rows(same, RETAIN) + ALPHA * rows(other, ~RETAIN)
    share = jnp.mean(inputs.hidden, axis=(1, 2, 3))  # released: over all pixels, not the hole's
    keep = m.loss(student, inputs) * share
    drop = m.loss(student, inputs if case == "max_loss" else noise) * share
    sign = -1 if case == "max_loss" else 1
    return (jnp.sum(keep * RETAIN) + sign * ALPHA * jnp.sum(drop * ~RETAIN)) / len(keep)


def compare(case, value, gradient):
    """With what is recorded of a loss; its gradient, of the parameters that were kept."""
    np.testing.assert_allclose(value, IO[f"loss/{case}/value"], rtol=LOSS)
    theirs = to_state_dict(jax.device_get(gradient), diffusion_format.NAMES)
    prefix, seen = f"loss/{case}/grad/", 0
    for name in IO.files:
        if name.startswith(prefix):
            expected, seen = IO[name], seen + 1
            allowed = GRADIENT * np.abs(expected).max()
            np.testing.assert_allclose(theirs[name.removeprefix(prefix)], expected, atol=allowed)
    assert seen == (3 if case in ("ours", "random_encoder") else 5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_released_losses(case):
    loss = functools.partial(released, case=case, inputs=drawn())
    compare(case, *jax.jit(jax.value_and_grad(loss))(params("network_unlearned")))
    if case == "noisy_label":
        others = [name for name in IO.files if f"/{SAME}/" in name]
        assert len(others) == 6
        for name in others:
            assert np.array_equal(IO[name], IO[name.replace(SAME, case)])


class Recorded:
    """The model, whose T makes the recorded inputs of the rows that it is given as images."""

    def __init__(self):
        self.drawn = drawn()

    def __getattr__(self, name):
        return getattr(model(), name)

    def corrupt(self, params, images, mask, rng, targets=None, visible=None):
        return jax.tree.map(lambda x: x[images], self.drawn)


@pytest.mark.slow
def test_l2l_is_the_released_loss():
    """Its means are those of each side, the released of the whole batch of one and two."""
    sides = [Batch(jnp.flatnonzero(which), None) for which in (RETAIN, ~RETAIN)]
    recorded = Recorded()

    def loss(student):
        retain, forget, _ = l2l.objectives(
            recorded, student, teacher(), UnlearnBatch(*sides), KEY, target="released"
        )
        return (retain + 2 * ALPHA * forget) / 3

    compare("ours", *jax.jit(jax.value_and_grad(loss))(params("network_unlearned")))


@pytest.mark.slow
def test_features_of_student_and_teacher():
    """The last map of both, and what each map adds to the loss."""
    m, inputs = model(), drawn()
    mine = m.encode(params("network_unlearned"), inputs)
    keep, drop = (m.encode(teacher(), x) for x in (inputs, m.only_noise(inputs)))
    both = jnp.where(RETAIN[:, None, None, None], keep[-1], drop[-1])
    np.testing.assert_allclose(mine[-1], last(IO["loss/ours/student_last_feat"]), atol=FEATURES)
    np.testing.assert_allclose(both, last(IO["loss/ours/teacher_last_feat"]), atol=FEATURES)
    each = [
        rows((own - a) ** 2, RETAIN) + ALPHA * rows((own - b) ** 2, ~RETAIN)
        for own, a, b in zip(mine, keep, drop, strict=True)
    ]
    np.testing.assert_allclose(each, IO["loss/ours/per_feature"], rtol=LOSS)


@pytest.mark.slow
def test_a_file_with_a_teacher_in_it(tmp_path):
    """The form of the files after unlearning; the teacher's copy is passed over."""
    state = states()["format_example_with_teacher"]
    torch_writer.write(tmp_path / "16_Network.pth", state)
    assert any(name.startswith("teacher_denoise_fn.") for name in state)
    read = read_official(tmp_path / "16_Network.pth", "diffusion", {"image_size": 8, **HEADS})
    m = diffusion.build(**read.about["args"] | dict(tying="tied"))
    given, noisy = jnp.split(last(EXAMPLE["input"]), 2, axis=-1)
    inputs = diffusion.Inputs(given, noisy, None, jnp.asarray(EXAMPLE["gammas"][:, 0]), None)
    weights = diffusion_format.adapt(read.params, m)
    made = m.decode(weights, m.encode(weights, inputs), inputs)
    np.testing.assert_allclose(made, last(EXAMPLE["output_student"]), atol=OUTPUT)
    assert np.abs(made - last(EXAMPLE["output_teacher"])).max() > 10 * OUTPUT


@pytest.mark.slow
def test_there_and_back_is_the_same(tmp_path):
    official = states()["network_Network"]
    torch_writer.write(tmp_path / "a.pth", official)
    read = read_official(tmp_path / "a.pth", "diffusion", {"image_size": 32, **HEADS})
    frozen = diffusion.build(**read.about["args"])
    assert frozen.tying == "frozen"
    assert not trees.difference(read.params, frozen.canonical, "file", "model")
    state = diffusion_format.to_torch(to_state_dict(read.params, diffusion_format.NAMES), frozen)
    torch_writer.write(tmp_path / "b.pth", state)
    assert_same_bits(torch_reader.read(tmp_path / "b.pth"), dict(official))
