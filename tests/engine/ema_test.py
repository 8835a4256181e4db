"""The moving average of a phase: its result in every place that asks for one, and nowhere else."""

import logging
import shutil
from types import SimpleNamespace

import flax.struct
import jax
import numpy as np
import pytest

from l2l_jax.engine import evaluation, measure, reuse
from l2l_jax.engine.experiment import without_data
from l2l_jax.engine.outcome import (
    Outcome,
    describe_parameters,
    final_weights,
    restored,
    run_phases,
)
from l2l_jax.engine.plan import complete_config, resolve
from l2l_jax.engine.run import evaluate_again, run
from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import find
from l2l_jax.types import Array, Params
from l2l_jax.weights import __main__, safetensors
from l2l_jax.weights.safetensors import Weights
from tests.helpers import (
    assert_same_bits,
    finished_run,
    once,
    opened,
    params_of,
    small_config,
    small_model,
    trained,
)


def config_of(pretrain=0.5, unlearn=0.9, **changes):
    config = small_config(**changes)
    config.pretrain.ema, config.unlearn.ema = pretrain, unlearn
    config.evaluators = dict(reconstruction=dict())
    config.runtime.save_every = 3
    return config


@pytest.fixture(scope="module")
def workdir():
    """Of a run whose phases are both averaged; whoever alters it takes a copy."""
    return once("averaged", lambda folder: run(config_of(), folder))


@pytest.fixture
def copy(workdir, tmp_path):
    return shutil.copytree(workdir, tmp_path / "copy")


def state_of(workdir, phase):
    bench = opened(workdir)
    checkpoints = bench.checkpoints(phase, writes=False)
    state = jax.device_get(bench.saved_state(phase, checkpoints))
    checkpoints.close()
    return state


def named(tree):
    """{path: array} of any tree."""
    return {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(tree)}


def differ(a, b):
    a, b = named(a), named(b)
    return a.keys() != b.keys() or any(not np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_what_a_phase_hands_on_and_what_is_judged_is_the_average(workdir):
    made, moved = state_of(workdir, "pretrain"), state_of(workdir, "unlearn")
    assert differ(made.student, made.average)
    assert differ(moved.student, moved.average)
    bench = opened(workdir)
    outcome = jax.device_get(run_phases(bench, restored))
    groups = {group: outcome.original[group] for group in made.average}
    assert_same_bits(named(groups), named(made.average))
    assert_same_bits(named({"encoder": outcome.final["encoder"]}), named(moved.average))
    assert_same_bits(named(outcome.final["decoder"]), named(made.average["decoder"]))
    results = files.read_json(workdir / "results.json")
    params = {"original": outcome.original, "unlearned": outcome.final}
    digests = {name: trees.digest(bench.canonical(tree)) for name, tree in params.items()}
    assert results["digests"]["weights"] == digests, "those of the run that trained it"


@pytest.mark.slow
def test_results_and_page_say_so(workdir, copy):
    told = {
        "original": "moving average of phase pretrain, decay 0.5, 25% of it what the phase began "
        "with",
        "unlearned": "moving average of phase unlearn, decay 0.9, 53% of it what the phase began "
        "with",
    }
    before = files.read_json(workdir / "results.json")
    assert before["evaluated"] == told
    assert f"<dd>{told['unlearned']}, <code>" in (workdir / "report.html").read_text()
    shutil.rmtree(copy / "checkpoints" / "unlearn" / "6")
    evaluate_again(copy)
    after = files.read_json(copy / "results.json")
    assert after["evaluated"]["unlearned"].startswith(
        "moving average of phase unlearn, decay 0.9, at step 3 of 6, 73% of it"
    )
    assert after["digests"]["weights"]["original"] == before["digests"]["weights"]["original"]
    assert after["digests"]["weights"]["unlearned"] != before["digests"]["weights"]["unlearned"]


@pytest.mark.slow
def test_the_export_is_the_average(workdir, tmp_path):
    out = tmp_path / "out.safetensors"
    __main__.main(["export", str(workdir), str(out)])
    loaded, bench = safetensors.load(out), opened(workdir)
    whole = bench.initial_params() | state_of(workdir, "pretrain").average
    whole |= state_of(workdir, "unlearn").average
    assert trees.digest(loaded.params) == trees.digest(bench.canonical(whole))
    assert loaded.about["source"]["result"].startswith("moving average of phase unlearn, decay 0.9")


@pytest.mark.slow
@pytest.mark.parametrize("left", [6, 3])
def test_continued_at_its_end_or_in_the_middle_it_is_the_same_run(left, workdir, copy, caplog):
    """Finished (6), the average is taken up again; cut at step 3, student and average go on."""
    caplog.set_level(logging.INFO)
    if left == 3:
        shutil.rmtree(copy / "checkpoints" / "unlearn" / "6")
    outcome = trained(config_of(), copy)
    assert ("unlearn: continuing from step 3 of 6" in caplog.text) == (left == 3)
    assert "pretrain: done already" in caplog.text
    assert ("unlearn: done already" in caplog.text) == (left == 6)
    assert_same_bits(named(state_of(copy, "unlearn")), named(state_of(workdir, "unlearn")))
    assert_same_bits(params_of(copy), params_of(workdir))
    final = opened(copy).canonical(outcome.final)
    assert_same_bits(trees.flatten(final), params_of(workdir))


@pytest.mark.slow
def test_it_begins_with_the_weights_that_were_loaded(tmp_path, caplog):
    """With Palette's bug, most of this average would be a random initialisation."""
    caplog.set_level(logging.INFO)
    path, key = tmp_path / "w.safetensors", jax.random.key(123)
    loaded = jax.device_get(small_model("mae").init(key))
    safetensors.save(path, loaded, {"model": "mae", "args": find("model", "mae").SMALLEST})
    config = config_of(unlearn=0.9999, phases=("unlearn",), weights=str(path))
    config.unlearn.optimizer.lr = 0.05
    final = jax.device_get(trained(config, tmp_path / "run").final)
    student = state_of(tmp_path / "run", "unlearn").student
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree["encoder"])])
            for tree in (loaded, final, student)]  # fmt: skip
    apart, moved = (np.abs(tree - flat[0]).max() for tree in flat[1:])
    assert 0 < apart < 1e-3 * moved
    assert moved > 0.01
    assert "0 MiB of their moving average, 0 MiB of optimizer state" in caplog.text
    assert "unlearn.ema=0.9999 is slow for 6 steps" in caplog.text
    assert "will still count 100 %" in caplog.text


@pytest.mark.slow
def test_a_boundary_is_where_the_average_is(tmp_path, monkeypatch):
    """What a phase with it finds out about its end is about what the next one begins with."""
    seen = []

    def means(recipe, experiment, rows, student, fixed):
        seen.append(jax.device_get(student))
        return [], {"retain": 0.0, "forget": 0.0}

    monkeypatch.setattr(measure, "mean_gradients", means)
    config = config_of()
    config.unlearn.update(dict(solver="epsilon", solver_args=dict(goal="keep"), steps=2))
    trained(config, tmp_path / "run")
    assert_same_bits(named(seen[0]), named(state_of(tmp_path / "run", "unlearn").average))


@flax.struct.dataclass
class Before:
    """A state as it was before there were averages."""

    step: Array
    student: Params
    optimizer: object


def test_a_checkpoint_without_an_average_is_restored_as_such(tmp_path):
    """Orbax compares the names of what is there with those of what is wanted, None included."""
    bench = without_data(resolve(small_config()), tmp_path)
    state = bench.initial_state("unlearn", bench.initial_params())
    checkpoints = bench.checkpoints("unlearn", writes=True)
    checkpoints.save(0, Before(state.step, state.student, state.optimizer))
    checkpoints.wait()
    back = bench.saved_state("unlearn", checkpoints)
    checkpoints.close()
    assert back.average is None
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert_same_bits(named(back), named(state))


@pytest.mark.slow
def test_without_an_average_it_is_the_last_step(tmp_path):
    workdir = finished_run()
    state, bench = state_of(workdir, "unlearn"), opened(workdir)
    assert state.average is None
    final = jax.device_get(run_phases(bench, restored).final)
    assert_same_bits(named({"encoder": final["encoder"]}), named(state.student))
    told = {v: f"last step of phase {p}" for v, p in (("original", "pretrain"),
                                                      ("unlearned", "unlearn"))}  # fmt: skip
    assert files.read_json(workdir / "results.json")["evaluated"] == told
    assert final_weights(workdir).about["source"]["result"] == told["unlearned"]
    names = files.read_json(workdir / "checkpoints/unlearn/6/default/_METADATA")["tree_metadata"]
    assert {name.split("'")[1] for name in names} == {"step", "student", "optimizer"}


def test_what_was_evaluated_in_words(tmp_path):
    config = config_of(weights="bundled:x")
    plan = resolve(config)
    words = describe_parameters
    assert words(plan, {}) == words(plan, {"unlearn": (0, 6)}) == "as loaded from bundled:x"
    config.unlearn.ema = 0.0
    plain = resolve(config)
    assert words(plain, {"pretrain": (2, 2), "unlearn": (6, 6)}) == "last step of phase unlearn"
    assert words(plain, {"unlearn": (3, 6)}) == "step 3 of 6 of phase unlearn"
    begun = "moving average of phase pretrain, decay 0.5, 25% of it what the phase began with"
    assert words(plain, {"pretrain": (2, 2), "unlearn": (0, 6)}) == begun
    whole = "moving average of phase unlearn, decay 0.9, 100% of it what the phase began with"
    assert words(plan, {"unlearn": (1, 1)}) == whole, "it was at its end before it moved"
    longer = config_of(weights="bundled:x")
    longer.unlearn.steps = 100
    average = "moving average of phase unlearn, decay 0.9"
    assert words(resolve(longer), {"unlearn": (100, 100)}) == average
    about = {"source": {"result": "last step of phase pretrain"}}
    longer.reference = "runs/retrained"
    experiment = SimpleNamespace(plan=resolve(longer), reference=Weights({}, about))
    outcome = Outcome({}, {}, {"unlearn": (6, 6)})
    described = evaluation.describe_variant("retrained", experiment, outcome)
    assert described == "the reference runs/retrained, last step of phase pretrain"
    config.weights = ""
    assert words(resolve(config), {}) == "a random initialisation"


@pytest.mark.parametrize("value", [1.0, -0.1, 2, float("nan")])
def test_decays_that_are_none_are_refused(value):
    config = config_of()
    config.unlearn.ema = float(value)
    with pytest.raises(
        ConfigError,
        match=rf"unlearn\.ema is at least 0 and below 1, not {float(value)}: decay of a moving",
    ):
        resolve(config)


def test_a_phase_with_another_average_is_another_phase():
    """No run takes it over, though the last steps of both are the same."""
    ours, theirs = (files.as_json(complete_config(config_of(unlearn=x))) for x in (0.9, 0.0))
    assert reuse.difference(theirs, ours, "pretrain") == ""
    assert reuse.difference(theirs, ours, "unlearn") == "unlearn.ema is 0.0 there, 0.9 here"
