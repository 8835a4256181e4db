"""What phases measure: lambda from a retrained model, boundaries, masks of salient parameters."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from l2l_jax.engine import evaluation, measure, retrained
from l2l_jax.engine.experiment import without_data
from l2l_jax.engine.outcome import final_weights, restored, run_phases
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.run import run
from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import ConfigError
from tests.helpers import open_without_data, params_of, small_config


def config_of(method, rate=3e-2, **changes):
    """The small experiment by another method, with a learning rate that moves parameters."""
    config = small_config(**changes)
    config.unlearn.optimizer.update(dict(lr=rate, warmup=0.0))
    config.evaluate.batch_size = 8
    config.evaluators = dict(reconstruction=dict(), output_distance=dict())
    common.use_method(config, method)
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns a function: method name -> workdir of a finished run, made at the first call."""
    root = tmp_path_factory.mktemp("runs")

    @functools.cache
    def workdir_of(name):
        config = config_of(name)
        if name == "ascent":
            config.reference = str(workdir_of("retrain"))
            config.ascent.steps = 30
            config.finetune.steps = 1
        if name == "epsilon":
            config.reference = str(workdir_of("retrain"))
            config.tradeoff.solver_args.r = 0.25
        if name not in ("retrain", "ascent"):
            config.runtime.begin_from = str(workdir_of("ascent"))
        run(config, root / name)
        return root / name

    return workdir_of


def results(workdir):
    return files.read_json(workdir / "results.json")


def records(workdir, phase):
    return [r for r in files.read_jsonl(workdir / "metrics.jsonl") if r["phase"] == phase]


@pytest.mark.slow
def test_ascent_ends_at_the_distance_of_the_retrained_model(runs):
    workdir = runs("ascent")
    result, notes = results(workdir), files.read_json(workdir / "phases.json")["ascent"]
    last = records(workdir, "ascent")
    steps = len(last)
    assert 1 < steps < 30, "it ended by itself, but not at the first step"
    assert [r["step"] for r in last] == list(range(steps)), "every step has exactly one record"
    assert all(r["moved"] < notes["lam"] for r in last[:-1])
    assert last[-1]["moved"] >= notes["lam"] == pytest.approx(last[-1]["lambda"])
    assert [r["ended"] for r in last] == [0.0] * (steps - 1) + [1.0]
    assert result["steps"]["ascent"] == [steps, steps]
    assert result["ended"]["ascent"].startswith(f"ascent ended by itself at step {steps} of 30")
    assert result["cost"]["ascent"]["steps"] == steps
    assert result["cost"]["ascent"]["flops"] > 0
    assert result["cost"]["ascent"]["memory"] > 2**20
    assert final_weights(workdir).about["source"]["steps"]["ascent"] == steps


@pytest.mark.slow
def test_a_phase_that_ended_by_itself_is_not_continued(runs, caplog):
    workdir = runs("ascent")
    before, kept = params_of(workdir), records(workdir, "ascent")
    (workdir / "results.json").unlink()
    with caplog.at_level("INFO"):
        run(files.read_json(workdir / "config.json"), workdir)
    assert f"ascent: done already, {len(kept)} steps" in caplog.text
    assert records(workdir, "ascent") == kept
    assert all(np.array_equal(before[k], v) for k, v in params_of(workdir).items())


@pytest.mark.slow
def test_the_retrained_model_is_evaluated_with_the_others(runs):
    result, own = results(runs("ascent")), results(runs("retrain"))
    assert own["retrained"].keys() == result["retrained"].keys()
    assert result["digests"]["weights"]["retrained"] == own["digests"]["weights"]["retrained"]
    for side in ("retain", "forget"):
        assert result["retrained"][side]["psnr"] == pytest.approx(own["retrained"][side]["psnr"])
        assert "retrain_distance" not in result["retrained"][side]
        for variant in ("original", "unlearned"):
            assert 0 < result[variant][side]["retrain_distance"] < 1
    assert (
        result["unlearned"]["forget"]["retrain_distance"]
        != result["original"]["forget"]["retrain_distance"]
    )


@pytest.mark.slow
def test_a_lambda_that_is_not_reached_is_reported(runs, tmp_path, caplog):
    config = config_of("ascent", rate=1e-6)
    config.ascent.args.lam = 0.5
    config.ascent.steps, config.finetune.steps = 3, 1
    config.runtime.begin_from = str(runs("ascent"))
    result = run(config, tmp_path / "run")
    moved = [r["moved"] for r in records(tmp_path / "run", "ascent")]
    assert moved[0] < 1e-6 < moved[2] < 0.5, "at first nothing has moved"
    message = result["ended"]["ascent"]
    assert message.startswith(
        f"not reached: before the last of 3 steps of ascent moved was {moved[2]:.4g}, lam is 0.5; "
    )
    assert "give it more steps or a higher learning rate" in message
    assert message in caplog.text
    assert result["steps"]["ascent"] == [3, 3]


@pytest.mark.slow
def test_epsilon_ends_between_the_boundaries_of_phase_one(runs, tmp_path):
    workdir = runs("epsilon")
    notes = files.read_json(workdir / "phases.json")
    boundaries = notes["full_forgetting"]["boundaries"]
    low, high = boundaries["full_forgetting"], boundaries["full_utility"]
    assert low == notes["full_forgetting"]["forget"] < high
    first = records(workdir, "full_forgetting")[0]
    assert first["retain"] < 1e-9, "it starts at full utility"
    assert first["forget"] == pytest.approx(high, rel=0.2), "of one batch, and of 32"
    bound = low + 0.25 * (high - low)
    for record in records(workdir, "tradeoff"):
        assert record["epsilon"] == pytest.approx(bound, rel=1e-5)
    assert notes["tradeoff"]["bound"] == pytest.approx(bound)
    message = f"the forget objective is {notes['tradeoff']['forget']:.4g}, its bound is {bound:.4g}"
    assert message in results(workdir)["ended"]["tradeoff"]
    config = config_of("epsilon", reference=str(runs("retrain")))
    config.tradeoff.solver_args.epsilon = 1e6
    config.runtime.begin_from = str(workdir)
    with pytest.raises(ConfigError, match=rf"epsilon_min = {low:.6g} .*epsilon_max = {high:.6g} "):
        run(config, tmp_path / "outside")
    assert (tmp_path / "outside/checkpoints/full_forgetting").is_dir(), "phase I was reused"
    (workdir / "phases.json").unlink()  # as if killed before it was written
    (workdir / "results.json").unlink()
    run(files.read_json(workdir / "config.json"), workdir)
    again = files.read_json(workdir / "phases.json")["full_forgetting"]
    assert again["boundaries"] == boundaries
    assert again["retain"] == notes["full_forgetting"]["retain"]


@pytest.mark.slow
def test_full_utility_takes_no_step_and_is_the_original(runs, tmp_path):
    config = config_of("epsilon", reference=str(runs("retrain")))
    config.tradeoff.solver_args.r = 1
    config.runtime.begin_from = str(runs("epsilon"))
    workdir = tmp_path / "run"
    run(config, workdir)
    end = files.read_json(workdir / "phases.json")["tradeoff"]
    assert end["retain"] < 1e-9
    assert end["forget"] == pytest.approx(end["bound"], rel=0.05), "of other batches"
    found = results(workdir)
    assert found["steps"]["tradeoff"] == [0, 0]
    assert found["ended"]["tradeoff"].startswith("tradeoff starts at its solution, no step is")
    for side in ("retain", "forget"):
        assert found["unlearned"][side]["psnr"] == found["original"][side]["psnr"]
    assert not list(records(workdir, "tradeoff"))


@pytest.mark.parametrize(("r", "where"), [(0.4, "full_forgetting"), (0.6, "pretrain")])
def test_a_tradeoff_starts_at_the_nearer_boundary(tmp_path, r, where):
    """Where the phase full_forgetting ends, or where it starts: at the pretrained original."""
    config, starts = config_of("epsilon"), {}
    config.tradeoff.solver_args.r = r
    experiment = without_data(resolve(config), tmp_path)

    def advance(phase, experiment, start, original):
        starts[phase] = start
        return {"ended": phase}, 1, 1

    outcome = run_phases(experiment, advance)
    assert starts["full_forgetting"] == {"ended": "pretrain"}
    assert starts["tradeoff"] == {"ended": where}
    assert outcome.final == {"ended": "tradeoff"}


def test_a_bound_that_is_not_met_is_reported():
    notes = {"forget": 0.52, "bound": 0.5}
    message = evaluation._bounded("walk", 7, notes)
    assert message == "walk ended after 7 steps: the forget objective is 0.52, its bound is 0.5"
    for forget, bound in ((0.53, 0.5), (-0.47, -0.5), (0.1, 0.0)):
        message = evaluation._bounded("walk", 7, {"forget": forget, "bound": bound})
        assert message.startswith(
            f"not reached: after 7 steps of walk the forget objective is {forget}"
        )
    assert not evaluation._bounded("walk", 7, {"forget": -0.6, "bound": -0.5}).startswith("not")


@pytest.mark.slow
def test_only_salient_parameters_move(runs):
    """With weight decay and Adam's moments: masked parameters keep their bits."""
    start, end = params_of(runs("retrain")), params_of(runs("saliency"))
    checkpoint = trees.flatten(_pretrained(runs("saliency")))
    names = [name for name in end if name.startswith("encoder/")]
    moved = sum(int((end[name] != checkpoint[name]).sum()) for name in names)
    total = sum(end[name].size for name in names)
    assert 0.4 < moved / total <= 0.501
    frozen = [name for name in end if name.startswith("decoder/")]
    assert all(np.array_equal(end[name], checkpoint[name]) for name in frozen)
    assert start.keys() == end.keys()


def _pretrained(workdir):
    """Returns the parameters after the phase `pretrain`, on the host."""
    experiment = open_without_data(workdir)
    start = experiment.initial_params()
    return experiment.canonical(restored("pretrain", experiment, start, {})[0])


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_largest_gradients_are_chosen_over_all_arrays(share):
    values = jnp.array([3.0, -8.0, 0.5, 1.0]), jnp.array([[-2.0, 7.0], [0.1, -6.0]])
    gradient = {"encoder": {"a": values[0], "b": values[1]}}
    mask = measure.largest(gradient, share)
    chosen = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(mask)])
    sizes = np.abs(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)]))
    assert chosen.dtype == bool
    assert set(sizes[chosen]) == set(sorted(sizes)[-round(8 * share) :])


def test_what_has_no_gradient_is_not_salient():
    gradient = {"a": jnp.array([0.0, 0.0, 1.0, -2.0]), "b": jnp.array([0.0, 0.0, 0.0, 3.0])}
    for share in (0.5, 0.75):
        mask = measure.largest(gradient, share)
        np.testing.assert_array_equal(mask["a"], [False, False, True, True])
        np.testing.assert_array_equal(mask["b"], [False, False, False, True])


@pytest.mark.slow
def test_invalid_references_are_refused(runs, tmp_path):
    def assert_refused(match, reference=None, **changes):
        config = config_of("l2l", reference=str(reference or runs("retrain")), **changes)
        with pytest.raises(ConfigError, match=match):
            run(config, tmp_path / "none")
        assert not (tmp_path / "none/config.json").exists()

    config = small_config()
    config.split.forget.classes = (0,)
    assert_refused("another forget split: its digest is .* this run's is", split=config.split)
    assert_refused(
        r"not clean: it was trained on other images than the retain split \(phase pretrain: 64 "
        r"images, split all of fake\); .*\(phase ascent: 32 images, split forget of fake\)",
        reference=runs("ascent"),
    )
    assert_refused("holds no run", reference=tmp_path / "nothing")
    model = small_config().model
    model.args.width = 32
    assert_refused("is another model than the config's", model=model)


@pytest.mark.slow
def test_a_reference_may_have_no_proxy(runs):
    folder = runs("retrain")
    spec, digests = (
        str(folder),
        {p.stem: files.read_json(p)["digest"] for p in (folder / "splits").glob("*.json")},
    )
    chosen = {name: SimpleNamespace(digest=x) for name, x in digests.items()}
    other = SimpleNamespace(digest="0" * 64)
    retrained.check(spec, chosen | {"proxy": other})
    with pytest.raises(ConfigError, match="made with another retain split"):
        retrained.check(spec, chosen | {"retain": other})


@pytest.mark.slow
def test_saliency_without_a_forget_objective_is_refused(tmp_path):
    config = config_of("finetune")
    config.unlearn.saliency = 0.5
    with pytest.raises(ConfigError, match=r"saliency=0\.5 needs a method with a forget objective"):
        run(config, tmp_path / "a")
    config.unlearn.saliency = 1.5
    with pytest.raises(ConfigError, match=r"at most 1, not 1\.5"):
        run(config, tmp_path / "b")


@pytest.mark.slow
def test_phases_of_epsilon_that_cannot_work_are_refused_before_they_begin(tmp_path):
    config = config_of("epsilon")
    config.phases = ("pretrain", "tradeoff")
    with pytest.raises(ConfigError, match="boundaries full_forgetting and full_utility"):
        run(config, tmp_path / "run")
    config.phases = ("pretrain", "full_forgetting", "tradeoff")
    config.full_forgetting.method = config.tradeoff.method = "max_loss"
    config.full_forgetting.args = config.tradeoff.args = {}
    with pytest.raises(ConfigError, match="the boundaries full_utility, which earlier"):
        run(config, tmp_path / "run")  # its retain objective is not 0 at the original
    config = config_of("epsilon")
    config.full_forgetting.solver_args.goal = "full_utility"
    with pytest.raises(ConfigError, match=r"has nothing to do: .* it starts there"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
