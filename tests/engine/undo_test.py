"""Phases without a step, and phases whose teacher is an earlier phase: the recipe `undo`."""

import shutil

import jax
import numpy as np
import pytest

from configs import common
from l2l_jax.engine import reuse
from l2l_jax.engine.outcome import describe_parameters, restored, run_phases
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import run
from l2l_jax.engine.train import train
from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.preemption import StopSignal
from tests.helpers import assert_same_bits, once, open_without_data, params_of, small_config


def config_of(**changes):
    """The small experiment, then perturb and distill with the unlearned model as the teacher."""
    config = small_config(phases=("pretrain", "unlearn", "perturb", "distill"), **changes)
    config.unlearn.steps = 2
    config.perturb = common.phase("perturb", tasks=("random",))
    small = dict(steps=4, batch_size=8, tasks=("random",))
    config.distill = common.phase("distill", teacher="unlearn", optimizer=dict(lr=1e-3), **small)
    config.evaluators = dict(reconstruction=dict())
    return config


@pytest.fixture(scope="module")
def workdir():
    """The workdir of a finished run; read-only."""
    return once("undone", lambda folder: run(config_of(), folder))


def starts(folder):
    """Returns {phase: (where it starts, its teacher)} of a workdir, on the host."""
    found = {}

    def advance(phase, experiment, start, teacher):
        found[phase] = jax.device_get((start, teacher))
        return restored(phase, experiment, start, teacher)

    run_phases(open_without_data(folder), advance)
    return found


@pytest.mark.slow
def test_the_student_starts_perturbed_and_the_teacher_is_the_unlearned_model(workdir):
    found = starts(workdir)
    unlearned = found["distill"][1]
    assert_same_bits(trees.flatten(found["distill"][0]), trees.flatten(found["perturb"][0]))
    assert_same_bits(trees.flatten(found["perturb"][1]), trees.flatten(found["unlearn"][0]))
    kernel = ("encoder", "patch_embed", "kernel")
    one, other = found["perturb"][0], unlearned
    for part in kernel:
        one, other = one[part], other[part]
    assert 0.3 < np.linalg.norm(one - other) / np.linalg.norm(other) < 3
    original = trees.flatten(found["unlearn"][0]["encoder"])
    assert any((original[k] != x).any() for k, x in trees.flatten(unlearned["encoder"]).items())
    assert_same_bits(trees.flatten(found["unlearn"][0]["decoder"]),
                     trees.flatten(unlearned["decoder"]))  # fmt: skip


@pytest.mark.slow
def test_the_phase_is_reported_with_its_cost(workdir):
    results = files.read_json(workdir / "results.json")
    assert results["steps"]["perturb"] == [0, 0]
    assert results["cost"]["perturb"] == {"seconds": 0.0, "steps": 0, "flops": 0}
    assert results["passes"]["perturb"] == {}
    assert results["evaluated"]["unlearned"] == "last step of phase distill"
    page = (workdir / "report.html").read_text()
    assert "pretrain, then l2l, then perturb, then distill" in page
    training = results["training"]["original"]
    assert list(training["phases"]) == ["pretrain"]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["distill/4", "distill"])
def test_a_killed_run_goes_on_bit_for_bit(lost, workdir, tmp_path):
    """Cut inside the distillation, and between the perturbation and it."""
    copy = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / lost)
    (copy / "results.json").unlink()
    run(config_of(), copy)
    assert_same_bits(params_of(copy), params_of(workdir))


@pytest.mark.slow
def test_an_unfinished_phase_is_not_perturbed(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "run")
    for phase in ("unlearn", "distill"):
        shutil.rmtree(copy / "checkpoints" / phase)
    experiment = open_without_data(copy)
    outcome = run_phases(experiment, restored)
    assert outcome.done["perturb"] == (0, 0)
    assert_same_bits(trees.flatten(jax.device_get(outcome.final)),
                     trees.flatten(jax.device_get(outcome.original)))  # fmt: skip
    words = describe_parameters(experiment.plan, outcome.done)
    assert words == "last step of phase pretrain"


@pytest.mark.slow
def test_phases_after_one_without_a_step_are_reused(workdir, tmp_path):
    config = config_of()
    config.runtime.begin_from = str(workdir)
    experiment = preflight(resolve(config), tmp_path / "run", StopSignal())
    assert reuse.reuse_phases(experiment) == ["pretrain", "unlearn", "distill"]
    run_phases(experiment, train)
    assert_same_bits(params_of(tmp_path / "run"), params_of(workdir))
    config.perturb.args.a = 0.4
    experiment = preflight(resolve(config), tmp_path / "other", StopSignal())
    assert reuse.reuse_phases(experiment) == ["pretrain", "unlearn"]


def test_the_end_of_a_perturbation_is_described():
    config = config_of()
    config.phases = ("pretrain", "unlearn", "perturb")
    done = {"pretrain": (2, 2), "unlearn": (2, 2), "perturb": (0, 0)}
    assert describe_parameters(resolve(config), done) == "where phase perturb ends"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            dict(teacher="distil"),
            r"phase before distill called 'distil'\. Known: perturb, pretrain, unlearn",
        ),
        (dict(teacher="distill"), r"phase before distill called 'distill'"),
        (dict(on="all"), r"distill\.on=all: the images to forget are among all images.*proxy"),
        (dict(method="finetune"), r"finetune compares with no teacher"),
    ],
)
def test_teachers_and_images_that_make_no_sense_are_refused(lines, words):
    config = config_of()
    config.distill.update(lines)
    with pytest.raises(ConfigError, match=words):
        resolve(config)


def test_distilling_on_forget_images_is_possible_if_said():
    config = config_of()
    config.distill.on = "all"
    config.distill.args.forget_images = True
    assert resolve(config).phases["distill"].on == "all"


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_shares_outside_0_to_1_are_refused(share):
    for args in (dict(a=share), dict(layers=(("encoder", share),))):
        config = config_of()
        config.perturb.args = args
        with pytest.raises(ConfigError, match="at least 0 and at most 1"):
            resolve(config)
