"""The moving average (EMA) of a phase is its result: in evaluation, export and later phases."""

import logging
import shutil
from types import SimpleNamespace

import flax.struct
import jax
import numpy as np
import pytest

from l2l_jax.engine import evaluation, measure, reuse
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.experiment import without_data
from l2l_jax.engine.outcome import (
    Outcome,
    describe_parameters,
    final_weights,
    restored,
    run_phases,
)
from l2l_jax.engine.plan import resolve
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
    open_without_data,
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
    """The workdir of a run with an EMA in both phases; read-only."""
    return once("averaged", lambda folder: run(config_of(), folder))


@pytest.fixture
def copy(workdir, tmp_path):
    return shutil.copytree(workdir, tmp_path / "copy")


def state_of(workdir, phase):
    experiment = open_without_data(workdir)
    checkpoints = experiment.checkpoints(phase, writes=False)
    state = jax.device_get(experiment.saved_state(phase, checkpoints))
    checkpoints.close()
    return state


def flat(tree):
    """Returns {path: array} of any tree."""
    return {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(tree)}


def differ(a, b):
    a, b = flat(a), flat(b)
    return a.keys() != b.keys() or any(not np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_the_average_is_the_result_of_a_phase(workdir):
    pretrained, unlearned = state_of(workdir, "pretrain"), state_of(workdir, "unlearn")
    assert differ(pretrained.student, pretrained.average)
    assert differ(unlearned.student, unlearned.average)
    experiment = open_without_data(workdir)
    outcome = jax.device_get(run_phases(experiment, restored))
    groups = {group: outcome.original[group] for group in pretrained.average}
    assert_same_bits(flat(groups), flat(pretrained.average))
    assert_same_bits(flat({"encoder": outcome.final["encoder"]}), flat(unlearned.average))
    assert_same_bits(flat(outcome.final["decoder"]), flat(pretrained.average["decoder"]))
    results = files.read_json(workdir / "results.json")
    params = {"original": outcome.original, "unlearned": outcome.final}
    digests = {name: trees.digest(experiment.canonical(tree)) for name, tree in params.items()}
    assert results["digests"]["weights"] == digests, "the digests that the training run wrote"


@pytest.mark.slow
def test_results_and_page_describe_the_average(workdir, copy):
    described = {
        "original": "moving average of phase pretrain, decay 0.5, 25% of it what the phase began "
        "with",
        "unlearned": "moving average of phase unlearn, decay 0.9, 53% of it what the phase began "
        "with",
    }
    before = files.read_json(workdir / "results.json")
    assert before["evaluated"] == described
    assert f"<dd>{described['unlearned']}, <code>" in (workdir / "report.html").read_text()
    shutil.rmtree(copy / "checkpoints" / "unlearn" / "6")
    (copy / "results.json").unlink()  # an unfinished run has none
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
    loaded, experiment = safetensors.load(out), open_without_data(workdir)
    expected = experiment.initial_params() | state_of(workdir, "pretrain").average
    expected |= state_of(workdir, "unlearn").average
    assert trees.digest(loaded.params) == trees.digest(experiment.canonical(expected))
    assert loaded.about["source"]["result"].startswith("moving average of phase unlearn, decay 0.9")


@pytest.mark.slow
@pytest.mark.parametrize("last_step", [6, 3])
def test_continuing_at_the_end_or_in_the_middle_gives_the_same_run(
    last_step, workdir, copy, caplog
):
    """Finished (6): the average is restored. Cut at step 3: student and average continue."""
    caplog.set_level(logging.INFO)
    if last_step == 3:
        shutil.rmtree(copy / "checkpoints" / "unlearn" / "6")
    outcome = trained(config_of(), copy)
    assert ("unlearn: continuing from step 3 of 6" in caplog.text) == (last_step == 3)
    assert "pretrain: done already" in caplog.text
    assert ("unlearn: done already" in caplog.text) == (last_step == 6)
    assert_same_bits(flat(state_of(copy, "unlearn")), flat(state_of(workdir, "unlearn")))
    assert_same_bits(params_of(copy), params_of(workdir))
    final = open_without_data(copy).canonical(outcome.final)
    assert_same_bits(trees.flatten(final), params_of(workdir))


@pytest.mark.slow
def test_the_average_begins_with_the_loaded_weights(tmp_path, caplog):
    """In the released Palette code it begins with random weights, which stay in it."""
    caplog.set_level(logging.INFO)
    path, key = tmp_path / "w.safetensors", jax.random.key(123)
    loaded = jax.device_get(small_model("mae").init(key))
    safetensors.save(path, loaded, {"model": "mae", "args": find("model", "mae").SMALLEST})
    config = config_of(unlearn=0.9999, phases=("unlearn",), weights=str(path))
    config.unlearn.optimizer.lr = 0.05
    final = jax.device_get(trained(config, tmp_path / "run").final)
    student = state_of(tmp_path / "run", "unlearn").student
    vectors = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree["encoder"])])
            for tree in (loaded, final, student)]  # fmt: skip
    average_change, student_change = (np.abs(x - vectors[0]).max() for x in vectors[1:])
    assert 0 < average_change < 1e-3 * student_change
    assert student_change > 0.01
    assert "0 MiB of their moving average, 0 MiB of optimizer state" in caplog.text
    assert "unlearn.ema=0.9999 is slow for 6 steps" in caplog.text
    assert "will still count 100 %" in caplog.text


@pytest.mark.slow
def test_a_boundary_is_measured_at_the_average(tmp_path, monkeypatch):
    """A phase measures its boundary at the parameters with which the next phase begins."""
    measured_at = []

    def means(recipe, experiment, rows, student, fixed):
        measured_at.append(jax.device_get(student))
        return [], {"retain": 0.0, "forget": 0.0}

    monkeypatch.setattr(measure, "mean_gradients", means)
    config = config_of()
    config.unlearn.update(dict(solver="epsilon", solver_args=dict(goal="full_forgetting"), steps=2))
    trained(config, tmp_path / "run")
    assert_same_bits(flat(measured_at[-1]), flat(state_of(tmp_path / "run", "unlearn").average))


@flax.struct.dataclass
class StateWithoutAverage:
    """The fields of a State that has no average."""

    step: Array
    student: Params
    optimizer: object


@pytest.mark.slow
def test_a_checkpoint_without_an_average_is_restored(tmp_path):
    """Orbax compares the names of the stored and the expected arrays, including None."""
    experiment = without_data(resolve(small_config()), tmp_path)
    state = experiment.initial_state("unlearn", experiment.initial_params())
    checkpoints = experiment.checkpoints("unlearn", writes=True)
    checkpoints.save(0, StateWithoutAverage(state.step, state.student, state.optimizer))
    checkpoints.wait()
    restored_state = experiment.saved_state("unlearn", checkpoints)
    checkpoints.close()
    assert restored_state.average is None
    assert jax.tree.structure(restored_state) == jax.tree.structure(state)
    assert_same_bits(flat(restored_state), flat(state))


@pytest.mark.slow
def test_without_an_average_the_result_is_the_last_step(tmp_path):
    workdir = finished_run()
    state, experiment = state_of(workdir, "unlearn"), open_without_data(workdir)
    assert state.average is None
    final = jax.device_get(run_phases(experiment, restored).final)
    assert_same_bits(flat({"encoder": final["encoder"]}), flat(state.student))
    described = {v: f"last step of phase {p}" for v, p in (("original", "pretrain"),
                                                      ("unlearned", "unlearn"))}  # fmt: skip
    assert files.read_json(workdir / "results.json")["evaluated"] == described
    assert final_weights(workdir).about["source"]["result"] == described["unlearned"]
    names = files.read_json(workdir / "checkpoints/unlearn/6/default/_METADATA")["tree_metadata"]
    assert {name.split("'")[1] for name in names} == {"step", "student", "optimizer"}


def test_descriptions_of_the_evaluated_parameters(tmp_path):
    config = config_of(weights="bundled:x")
    plan = resolve(config)
    describe = describe_parameters
    assert describe(plan, {}) == describe(plan, {"unlearn": (0, 6)}) == "as loaded from bundled:x"
    config.unlearn.ema = 0.0
    without = resolve(config)
    assert (
        describe(without, {"pretrain": (2, 2), "unlearn": (6, 6)}) == "last step of phase unlearn"
    )
    assert describe(without, {"unlearn": (3, 6)}) == "step 3 of 6 of phase unlearn"
    pretrained = "moving average of phase pretrain, decay 0.5, 25% of it what the phase began with"
    assert describe(without, {"pretrain": (2, 2), "unlearn": (0, 6)}) == pretrained
    only_start = "moving average of phase unlearn, decay 0.9, 100% of it what the phase began with"
    assert describe(plan, {"unlearn": (1, 1)}) == only_start, "a single step"
    longer = config_of(weights="bundled:x")
    longer.unlearn.steps = 100
    average = "moving average of phase unlearn, decay 0.9"
    assert describe(resolve(longer), {"unlearn": (100, 100)}) == average
    about = {"source": {"result": "last step of phase pretrain"}}
    longer.reference = "runs/retrained"
    experiment = SimpleNamespace(plan=resolve(longer), references=(Weights({}, about),))
    outcome = Outcome({}, {}, {"unlearn": (6, 6)})
    described = evaluation.describe_variant("retrained", experiment, outcome)
    assert described == "the reference runs/retrained, last step of phase pretrain"
    config.weights = ""
    assert describe(resolve(config), {}) == "a random initialisation"


@pytest.mark.parametrize("value", [1.0, -0.1, 2, float("nan")])
def test_invalid_decays_are_refused(value):
    config = config_of()
    config.unlearn.ema = float(value)
    with pytest.raises(
        ConfigError,
        match=rf"unlearn\.ema is .*at least 0 and below 1, not {float(value)}: decay of a moving",
    ):
        resolve(config)


def test_a_phase_with_another_decay_is_not_reused():
    """The steps of both phases are equal, but their results differ."""
    ours, theirs = (files.as_json(complete_config(config_of(unlearn=x))) for x in (0.9, 0.0))
    assert reuse.difference(theirs, ours, "pretrain") == ""
    assert reuse.difference(theirs, ours, "unlearn") == "unlearn.ema is 0.0 there, 0.9 here"
