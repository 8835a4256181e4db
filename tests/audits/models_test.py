"""Every audit runs on every model, and yields the same places for all variants."""

import numpy as np
import pytest

from l2l_jax.registry import find, names
from launch.drills.audits import FEW
from tests.audits import fakes

QUICK = "autoencoder"  # the model whose programs compile soonest
LATE = ("backdoor", "other_tasks", "relearn", "retrain_distance", "shadow_models", "stitching")


@pytest.mark.parametrize(
    ("model", "audit"),
    [
        pytest.param(
            model, audit, marks=() if model == QUICK and audit not in LATE else pytest.mark.slow
        )
        for model in names("model")
        if not model.startswith("example_")
        for audit in names("audit")
        if not audit.startswith("example_")
    ],
)
def test_an_audit_runs(model, audit):
    plugin = find("audit", audit)
    if plugin.refuses and plugin.refuses(fakes.laboratory(model).experiment.model):
        assert (model, audit) == ("mage", "adversarial")
        return
    found = {
        variant: fakes.findings(audit, variant, model=model, **FEW.get(audit, {}))
        for variant in (fakes.VARIANTS if model == QUICK else fakes.VARIANTS[:3])
    }
    for each in found.values():
        assert all(np.isfinite(x.value) for x in each.values())
        assert {figure for figure, _ in each} <= {figure.name for figure in plugin.FIGURES}
    compared = fakes.compared(found)
    assert plugin.conclude(compared).endswith(".")
