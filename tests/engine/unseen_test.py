"""stop="unseen": a phase ends when forget images have the loss of never-seen images."""

import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.engine import unseen
from l2l_jax.engine.plan import TaskPlan, resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import run
from l2l_jax.engine.step import OVER_UNSEEN, UpdateRule, make_update, pair_losses
from l2l_jax.lib import files, sharding
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.registry import find
from l2l_jax.types import ImageToImage, Method
from tests.helpers import (
    assert_same_bits,
    once,
    open_with_data,
    params_of,
    small_config,
    small_model,
)

TASKS = tuple(
    TaskPlan(str(ratio), find("task", "random"), dict(ratio=ratio)) for ratio in (0.25, 0.5, 0.75)
)


# One step ----------------------------------------------------------------------------------------


class Counting(ImageToImage):
    """A model whose loss is its counter on white images and 10 times the hidden share on others."""

    image_size, grid, takes_tokens = 4, (4, 4), False

    def corrupt(self, params, images, mask, rng, targets=None, visible=None):
        return images, mask

    def loss(self, params, inputs):
        images, mask = inputs
        white = images.mean((1, 2, 3)) > 0.5
        share = mask.mean((1, 2))
        return share * jnp.where(white, params["encoder"], 10.0)


def nothing(model, student, teacher, batch, rng):
    return jnp.zeros(()), jnp.zeros(()), {}


def count_up():
    """An optimizer that adds 1 to every parameter, whatever its gradient."""

    def update(gradients, state, params=None):
        return jax.tree.map(jnp.ones_like, gradients), state

    made = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    return optax.with_extra_args_support(made)


def rule_of(model, tasks, ema=0.0):
    return UpdateRule(
        phase="unlearn", model=model, method=Method("x", nothing, ("encoder",), (), False), args={},
        solver=find("solver", "weighted"), solver_args={}, optimizer=count_up(),
        learning_rate=lambda step: 0.0, seed=0, tasks=len(tasks), ema=ema, stop="unseen",
        compared=tasks,
    )  # fmt: skip


def ending(offset, steps=30, ema=0.0):
    """Returns (steps done, counter where it ends, records) of a phase that counts from 0."""
    rule = rule_of(Counting(), TASKS, ema)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    white = jnp.full((8, 4, 4, 3), 255, jnp.uint8)
    pairs = {"forget": white, "calibration": 0 * white, "offset": jnp.float32(offset)}
    start = {"encoder": jnp.zeros(())}
    state, fixed = rule.init(start), rule.fixed(start, {}, pairs=pairs)
    updates, records = [jax.jit(make_update(rule, task, mesh)) for task in TASKS], []
    for step in range(steps):
        state, metrics = updates[step % 3](state, fixed, {})
        records.append({name: float(x) for name, x in metrics.items()})
    return int(state.step), float(state.result["encoder"]), records


@pytest.mark.slow
@pytest.mark.parametrize(("offset", "expected"), [(0.0, 10), (2.0, 6), (-1.0, 12), (50.0, 0)])
def test_the_phase_ends_at_the_first_step_at_which_the_losses_meet(offset, expected):
    """The gap is half of (counter - 10), so that it reaches 0 at a known step, under every task."""
    steps, counter, records = ending(offset)
    assert counter == expected, "the step that finds it changes nothing, nor do those after it"
    assert steps == expected + 1
    gaps = [record[OVER_UNSEEN] for record in records[:steps]]
    np.testing.assert_allclose(gaps, 0.5 * (np.arange(steps) - 10) + offset, atol=1e-5)
    assert [record["ended"] for record in records[:steps]] == [0.0] * expected + [1.0]


@pytest.mark.slow
def test_a_moving_average_is_what_is_compared():
    """It is the result of the phase, and lags behind the student."""
    steps, average, _ = ending(0.0, ema=0.9)
    assert 10 <= average < 11
    assert steps > 15


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mae", "diffusion"])
def test_both_images_of_a_pair_have_the_same_mask_and_draws(name):
    """So equal images have equal losses; and another turn has other masks."""
    model = small_model(name)
    rule = rule_of(model, TASKS[:2])
    params = model.init(jax.random.key(0))
    rows = np.random.default_rng(0).integers(0, 256, (4, model.image_size, model.image_size, 3))
    pairs = dict.fromkeys(("forget", "calibration"), jnp.array(rows, jnp.uint8))
    losses, later = (pair_losses(rule, params, pairs, turn) for turn in (0, 1))
    assert losses["forget"] == losses["calibration"] > 0
    assert later["forget"] != losses["forget"]


# Runs --------------------------------------------------------------------------------------------


def config_of(listed=0, folder=None, **changes):
    """The small experiment by gradient ascent with matching, for classes or a list of images."""
    config = small_config(**changes)
    settings = dict(method="max_loss", args=dict(times=0.0, retain="match"), stop="unseen")
    config.unlearn.update(dict(settings, solver_args=dict(alpha=1.0), steps=40))
    config.unlearn.tasks = ("random", "center")
    config.unlearn.optimizer.update(dict(lr=1e-3, final=1e-3, warmup=0.0))
    config.split.calibration = 3
    config.evaluators = dict(reconstruction=dict())
    config.runtime.save_every = 3
    if listed:
        source = find("dataset", "fake").load("train", **config.data.args)
        rows = np.random.default_rng(1).permutation(len(source.keys))[:listed]
        path = folder / f"list{listed}.txt"
        path.write_text("".join(f"{source.keys[row]}\n" for row in rows))
        config.split.forget.update(dict(classes=(), files=str(path)))
    return config


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    return tmp_path_factory.mktemp("lists")


@pytest.mark.slow
@pytest.mark.parametrize("listed", [1, 16])
def test_a_list_is_forgotten_until_it_looks_unseen(listed, listing, tmp_path, caplog):
    config = config_of(listed, listing)
    with caplog.at_level(logging.INFO):
        result = run(config, tmp_path / "run")
    records = [r for r in files.read_jsonl(tmp_path / "run/metrics.jsonl")
               if r["phase"] == "unlearn"]  # fmt: skip
    notes = files.read_json(tmp_path / "run/phases.json")["unlearn"]["unseen"]
    gaps = {when: notes[when]["forget"] - notes[when]["calibration"] for when in ("start", "end")}
    assert records[0]["over_unseen"] == pytest.approx(gaps["start"], abs=1e-5)
    assert all(r["over_unseen"] < 0 for r in records[:-1])
    done, total = result["steps"]["unlearn"]
    assert done == total == len(records)
    text = result["ended"]["unlearn"]
    if records[-1]["ended"]:
        assert records[-1]["over_unseen"] >= 0
        assert text.startswith(f"unlearn ended by itself at step {done} of 40: the loss on forget")
    else:
        assert text.startswith("not reached: after all 40 steps of unlearn the loss on forget")
    assert f"{notes['end']['forget']:.4g}" in text
    assert "moves the images of a list" not in caplog.text
    evaluated = {name: set(files.read_json(tmp_path / f"run/splits/{name}.json")["keys"])
                 for name in ("calibration", "retain_eval", "forget_eval")}  # fmt: skip
    assert len(evaluated["calibration"]) == 4 * 3
    assert not evaluated["calibration"] & (evaluated["retain_eval"] | evaluated["forget_eval"])
    assert "calibration" not in result["trained_on"]


@pytest.mark.slow
def test_it_continues_bit_for_bit_after_a_kill(listing, tmp_path):
    """With a planted offset, so that the losses do not meet at once."""
    config = config_of(16, listing)
    config.unlearn.steps = 7
    start = {"forget": 0.1, "calibration": 0.6}

    def make(folder):
        experiment = preflight(resolve(config), folder, StopSignal())
        experiment.note("unlearn", unseen={"start": start, "offset": -0.5})
        run(config, folder)

    whole = once("unseen", make)
    copy = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / "unlearn" / "7")
    (copy / "results.json").unlink()
    run(config, copy)
    assert_same_bits(params_of(copy), params_of(whole))
    ours, theirs = (files.read_json(each / "results.json")["ended"] for each in (copy, whole))
    assert ours == theirs
    records = list(files.read_jsonl(copy / "metrics.jsonl"))
    assert all(-0.6 < r["over_unseen"] < -0.3 for r in records if r["phase"] == "unlearn")
    assert "at its start they were 0.1 and 0.6; give it more steps" in ours["unlearn"]


@pytest.mark.slow
def test_pairs_are_of_one_class_and_use_all_images(listing, tmp_path):
    run(config_of(16, listing, phases=("pretrain",)), tmp_path / "run")
    experiment = open_with_data(tmp_path / "run")
    rule = experiment.update_rule("pretrain")
    rows = unseen._chosen(rule, experiment, 96)
    labels = [experiment.sources[part].labels[rows[side]]
              for part, side in (("train", "forget"), ("eval", "calibration"))]  # fmt: skip
    assert (labels[0] == labels[1]).all()
    counts = np.unique(rows["forget"], return_counts=True)[1]
    assert counts.tolist() == [6] * 16, "every image of the list equally often"
    assert set(rows["calibration"]) == set(experiment.splits["calibration"].indices)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mage", "diffusion"])
def test_every_kind_of_model_can_stop(name, tmp_path):
    config = config_of()
    config.model = dict(name=name, args=find("model", name).SMALLEST)
    config.unlearn.tasks = ("random",)  # one program of a model that compiles slowly
    config.unlearn.steps, config.unlearn.ema = 3, 0.5
    result = run(config, tmp_path / "run")
    assert "the loss on forget images" in result["ended"]["unlearn"]


@pytest.mark.slow
def test_any_method_can_stop(tmp_path):
    config = config_of()
    config.unlearn.method, config.unlearn.args, config.unlearn.steps = "l2l", dict(), 2
    result = run(config, tmp_path / "run")
    assert "never-seen images of their classes" in result["ended"]["unlearn"]


# Bad input ---------------------------------------------------------------------------------------


def refused(config, folder):
    with pytest.raises(ConfigError) as caught:
        preflight(resolve(config), folder / "run", StopSignal())
    return str(caught.value)


@pytest.mark.slow
def test_a_stop_without_images_to_compare_with_is_refused(tmp_path):
    config = config_of()
    config.split.calibration = 0
    assert "unlearn.stop=unseen compares with never-seen images" in refused(config, tmp_path)
    assert "--config.split.calibration=50" in refused(config, tmp_path)


def test_a_class_without_never_seen_images_is_named(tmp_path):
    config = config_of()
    config.data.args.eval = 1  # of each class: half of them is none
    assert "finds no never-seen images of class0, class1" in refused(config, tmp_path)


def test_a_phase_without_forget_images_cannot_stop(tmp_path):
    config = config_of()
    config.split.forget.classes = ()
    config.unlearn.method, config.unlearn.args = "finetune", dict()
    assert "needs forget images, and there are none" in refused(config, tmp_path)


def test_a_list_longer_than_the_retain_side_is_refused(tmp_path):
    config = config_of(40, tmp_path)
    text = refused(config, tmp_path)
    assert "list40.txt lists 40 images to forget, and only 24 are in retain" in text


@pytest.mark.slow
def test_l2l_on_a_list_without_the_stop_gives_a_warning(tmp_path, caplog):
    config = config_of(16, tmp_path)
    config.unlearn.method, config.unlearn.args, config.unlearn.stop = "l2l", dict(), ""
    preflight(resolve(config), tmp_path / "run", StopSignal())
    assert "l2l moves the images of a list far beyond never-seen ones" in caplog.text
    assert "--config.unlearn.stop=unseen" in caplog.text
    caplog.clear()
    config.unlearn.stop = "unseen"
    preflight(resolve(config), tmp_path / "other", StopSignal())
    assert "moves the images of a list" not in caplog.text


def test_an_unknown_stop_is_refused():
    config = config_of()
    config.unlearn.stop = "unsen"
    with pytest.raises(
        ConfigError, match=r"unlearn\.stop is .*'unseen', not 'unsen'\. Did you mean 'unseen'"
    ):
        resolve(config)
