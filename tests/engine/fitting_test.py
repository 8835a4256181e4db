"""A last layer that is fitted exactly: taking images out equals fitting it without them."""

import numpy as np
import pytest

from configs import common
from l2l_jax.engine import certificate, fitting
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.lib import ridge, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.registry import find
from l2l_jax.workdir.layout import Workdir
from tests.helpers import open_with_data, small_config, trained


def head_config(*phases, on="all"):
    config = small_config()
    config.phases = ("pretrain", *phases)
    config.pretrain.on = on
    for name in phases:
        config[name] = common.phase(
            "ridge_head", on="all" if name == "head" else "retain", args=dict(penalty=0.1),
            tasks=("random", "center"),
        )  # fmt: skip
    return config


def flat(outcome):
    return trees.flatten(outcome.final)


@pytest.mark.slow
def test_taking_images_out_equals_fitting_without_them(tmp_path):
    both = trained(head_config("head", "unlearn"), tmp_path / "both")
    assert Workdir(tmp_path / "both").sums("head").is_file()
    experiment = open_with_data(tmp_path / "both")
    planned = experiment.plan.phases["unlearn"]
    taken = fitting._sums(experiment, planned, both.original)
    Workdir(tmp_path / "both").sums("head").unlink()
    alone = fitting._sums(experiment, planned, both.original)
    for a, b in zip(taken.solved(0.1), alone.solved(0.1), strict=True):
        assert np.max(np.abs(a - b)) <= 1e-9 * np.max(np.abs(b))
    everything = fitting._sums(experiment, experiment.plan.phases["head"], both.original)
    apart = np.abs(everything.solved(0.1)[0] - alone.solved(0.1)[0])
    assert np.max(apart) > 1e-4, "the forget images matter"
    again = trained(head_config("unlearn"), tmp_path / "alone")
    for name, value in flat(again).items():
        np.testing.assert_allclose(value, flat(both)[name], rtol=1e-5, atol=1e-7, err_msg=name)
    moved = [k for k, v in flat(again).items() if not np.array_equal(v, trees.flatten(
        again.original)[k])]  # fmt: skip
    assert moved == ["decoder/pred/bias", "decoder/pred/kernel"] or set(moved) == {
        "decoder/pred/bias", "decoder/pred/kernel"}  # fmt: skip
    found = certificate.of_run(experiment, both)
    assert (found["kind"], found["part"], found["whole"]) == ("exact", "the last layer", False)
    assert "phase pretrain" in found["body"][0]


@pytest.mark.slow
def test_the_whole_model_is_covered_if_the_body_is_clean(tmp_path):
    outcome = trained(head_config("unlearn", on="retain"), tmp_path / "run")
    found = certificate.of_run(open_with_data(tmp_path / "run"), outcome)
    assert (found["part"], found["whole"], found["body"]) == ("the whole model", True, [])
    steps = {phase: done for phase, (done, _) in outcome.done.items()}
    assert steps == {"pretrain": 2, "unlearn": 1}


@pytest.mark.slow
def test_a_model_without_a_linear_last_layer_is_refused(tmp_path):
    config = head_config("unlearn")
    config.model = dict(name="autoencoder", args=dict(find("model", "autoencoder").SMALLEST))
    with pytest.raises(
        ConfigError, match="ridge_head cannot fit the model autoencoder: its last layer"
    ):
        preflight(resolve(config), tmp_path / "run", StopSignal())
    config = head_config("unlearn")
    config.unlearn.ema = 0.9
    with pytest.raises(ConfigError, match="solved in one step"):
        preflight(resolve(config), tmp_path / "run", StopSignal())
    assert ridge.load(Workdir(tmp_path / "run").sums("unlearn")) is None
