"""What is kept of an audit is found again only if all that decides it is the same."""

import dataclasses

import pytest

from l2l_jax.engine import auditing
from l2l_jax.engine.plan import choose_audits
from tests.audits import fakes


def keys(laboratory, *names):
    variants = {name: fakes.random_params(seed=at) for at, name in enumerate(fakes.VARIANTS)}
    run = auditing._Run(laboratory.experiment, variants, fakes.sets())
    return {name: run.key(x, "unlearned") for name, x in choose_audits(names, {}).items()}


def changed(laboratory, **changes):
    experiment = laboratory.experiment
    plan = dataclasses.replace(experiment.plan, **changes)
    return fakes.Laboratory(dataclasses.replace(experiment, plan=plan))


@pytest.mark.slow
def test_an_audit_that_repeats_the_unlearning_depends_on_its_method():
    before = fakes.laboratory()
    phases = dict(before.experiment.plan.phases)
    args = {**phases["unlearn"].args, "relative": True}
    phases["unlearn"] = dataclasses.replace(phases["unlearn"], args=args)
    names = ("sequence", "backdoor", "stitching")
    one, two = (keys(x, *names) for x in (before, changed(before, phases=phases)))
    assert one["stitching"] == two["stitching"]
    assert one["sequence"] != two["sequence"]
    assert one["backdoor"] != two["backdoor"]


@pytest.mark.slow
def test_an_audit_of_other_tasks_depends_on_those_that_were_trained():
    before = fakes.laboratory()
    phases = dict(before.experiment.plan.phases)
    *_, center = before.experiment.plan.evaluate_tasks
    side = dataclasses.replace(center, name="side", task=fakes.find("task", "side"), args={})
    phases["pretrain"] = dataclasses.replace(phases["pretrain"], tasks=(side,))
    names = ("other_tasks", "stitching")
    one, two = (keys(x, *names) for x in (before, changed(before, phases=phases)))
    assert one["stitching"] == two["stitching"]
    assert one["other_tasks"] != two["other_tasks"]
