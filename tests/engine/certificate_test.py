"""A guarantee is stated for the procedure that has one, and whatever would void it is refused."""

import math
import types

import jax
import numpy as np
import pytest

from configs import common
from l2l_jax.engine import certificate
from l2l_jax.engine.outcome import read_run
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.run import run
from l2l_jax.lib import accountant, files, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.record.verify import verify
from l2l_jax.registry import find
from l2l_jax.weights import safetensors
from l2l_jax.workdir.layout import Workdir
from tests.helpers import small_config, trained


def certified_config(**noisy):
    config = small_config()
    config.model = dict(name="autoencoder", args=dict(find("model", "autoencoder").SMALLEST))
    config.evaluators = dict(reconstruction=dict())
    common.use_method(config, "certified")
    config.finetune.steps = 2
    config.noisy.steps = 3
    config.noisy.solver_args.update(noisy)
    return config


def checked(config, weights=None, splits=None):
    """Checks all phases of a config as preflight does, without data and model."""
    plan = resolve(config)
    made = types.SimpleNamespace(plan=plan, weights=weights, splits=splits or {})
    for planned in plan.phases.values():
        certificate.check(made, planned)


def test_the_recipe_passes():
    checked(certified_config())


@pytest.mark.parametrize(
    ("phase", "changes", "message"),
    [
        ("noisy", dict(optimizer=dict(name="adamw")), "optimizer.name=sgd, not adamw"),
        ("noisy", dict(optimizer=dict(weight_decay=0.1)), "optimizer.weight_decay=0.0, not 0.1"),
        ("noisy", dict(optimizer=dict(warmup=0.5)), "optimizer.warmup=0.0"),
        ("noisy", dict(optimizer=dict(final=0.0)), "optimizer.final="),
        ("noisy", dict(optimizer=dict(clip=1.0)), "optimizer.clip=0.0"),
        ("noisy", dict(optimizer=dict(args=dict(momentum=0.9))), "momentum"),
        ("noisy", dict(ema=0.9), "ema=0.9"),
        ("noisy", dict(saliency=0.5), "saliency=0.5"),
        ("noisy", dict(on="all"), "a training on forget images"),
        ("noisy", dict(method="l2l"), "nothing for the method l2l"),
        ("noisy", dict(method="pretrain"), "nothing for the method pretrain"),
        ("finetune", dict(on="all"), "finetune would void what noisy guarantees: it reads"),
        ("finetune", dict(method="l2l"), "it reads forget images"),
        ("finetune", dict(method="distill"), "its teacher saw the forget images"),
        ("finetune", dict(method="pretrain"), "makes a new original"),
    ],
)  # fmt: skip
def test_what_would_void_the_guarantee_is_refused(phase, changes, message):
    config = certified_config()
    for key, value in changes.items():
        if isinstance(value, dict):
            config[phase][key].update(value)
        else:
            config[phase][key] = value
    with pytest.raises(ConfigError, match=message):
        checked(config)


def test_a_teacher_that_came_after_the_noise_is_allowed():
    config = certified_config()
    common.rebuild(config, ["undo"])
    checked(config)
    config.distill.teacher = "pretrain"
    with pytest.raises(ConfigError, match=r"Set distill.teacher=noisy"):
        checked(config)


@pytest.mark.slow
def test_a_center_that_saw_the_data_is_refused(tmp_path):
    used = {"split": "all", "digest": "a", "images": 9, "passes": 1.0}
    phase = {"method": "pretrain", "groups": ["encoder"], "steps": 4, "data": "fake"}
    phase["sides"] = {"retain": used}
    model = find("model", "autoencoder")
    built = model.build(**model.SMALLEST)
    params = jax.device_get(built.init(jax.random.key(5)))

    def center(training):
        about = {"model": "autoencoder", "args": dict(model.SMALLEST)}
        about["source"] = {"training": training}
        safetensors.save(tmp_path / "c.safetensors", trees.unstack(params, built.canonical), about)
        checked(certified_config(center=str(tmp_path / "c.safetensors")))

    center({"loaded": None, "phases": {"pretrain": phase | {"data": "digits"}}})
    with pytest.raises(ConfigError, match="it may know the forget images"):
        center({"loaded": None, "phases": {"pretrain": phase}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The workdir of a finished run with a guarantee."""
    folder = tmp_path_factory.mktemp("certified") / "run"
    run(certified_config(), folder)
    return folder


@pytest.mark.slow
def test_a_run_states_its_guarantee(folder):
    found = files.read_json(folder / "results.json")["certificate"]
    assert (found["kind"], found["phase"], found["center"]) == (
        "noisy", "noisy", certificate.INITIALISATION)  # fmt: skip
    assert found["epsilon"] == pytest.approx(8.0, rel=1e-6)
    rate = certified_config().noisy.optimizer.lr
    sigma = accountant.sigma_for(8.0, 1e-5, start=0.02, steps=3, rate=rate, clip=1.0)
    assert found["sigma"] == pytest.approx(sigma)
    text = (folder / "record" / "limits.md").read_text()
    assert "Guarantee: epsilon = 8 at delta = 1e-05" in text
    assert "No guarantee" not in text
    assert "Guarantee: epsilon = 8" in (folder / "report.html").read_text()
    assert verify(folder).intact


@pytest.mark.slow
def test_the_secret_of_the_noise_stays_in_the_workdir(folder):
    noted = Workdir(folder).read_notes()["noisy"][certificate.SECRET]
    assert len(noted) == 2
    public = [*(folder / "record").iterdir(), folder / "report.html"]
    assert not any(str(noted[0]) in path.read_text(errors="replace") for path in public)


@pytest.mark.slow
def test_the_model_is_that_of_the_center_and_noise(folder, tmp_path):
    """All that the original learned is outside of the ball, and each run has other noise."""
    experiment, outcome = read_run(folder)
    center = experiment.center("noisy")
    one = trained(certified_config(), tmp_path / "again")
    sigma = files.read_json(folder / "results.json")["certificate"]["sigma"]
    away = [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(
            trees.weighted_sum(1.0, made.final, -1.0, center)))])
        for made in (outcome, one)
    ]  # fmt: skip
    for values in away:  # finetune moves them a little further
        assert np.std(values) == pytest.approx(sigma * math.sqrt(3), rel=0.1)
    assert abs(np.corrcoef(*away)[0, 1]) < 0.1
    assert np.array_equal(*(
        np.ravel(jax.tree.leaves(jax.device_get(x.original))[0]) for x in (outcome, one)
    ))  # fmt: skip


@pytest.mark.slow
def test_another_recipe_states_the_noise_that_it_would_need(tmp_path):
    config = certified_config()
    config.phases = ("pretrain", "finetune")
    results = run(config, tmp_path / "run")["certificate"]
    experiment, outcome = read_run(tmp_path / "run")
    start = jax.jit(experiment.model.init)(jax.random.key(0))
    away = trees.weighted_sum(1.0, outcome.final, -1.0, start)
    distance = math.sqrt(float(trees.dot(away, away)))
    assert results["kind"] == "none"
    assert results["distance"] == pytest.approx(distance, rel=1e-4)
    assert results["sigma"] == pytest.approx(2 * distance / accountant.mu_of(8.0, 1e-5), rel=1e-4)
    text = (tmp_path / "run" / "record" / "limits.md").read_text()
    assert "No guarantee" in text
    assert "would have to add noise of at least sigma" in text
