"""What a run costs: seconds, steps, FLOPs and memory of its phases, and the original's training."""

import logging
from collections.abc import Mapping

import jax
import numpy as np

from l2l_jax.engine import provenance, token_bank
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import Outcome
from l2l_jax.engine.step import UpdateRule, make_update
from l2l_jax.lib import flops, optim
from l2l_jax.registry import find

log = logging.getLogger(__name__)


def seconds(experiment: Experiment) -> dict[str, float]:
    """Time spent in each phase, over all launches."""
    spent = dict.fromkeys(experiment.plan.phases, 0.0)
    for record in experiment.workdir.read_metrics():
        spent[record["phase"]] = record["seconds"]
    return spent


def of_phases(experiment: Experiment, outcome: Outcome) -> dict[str, dict[str, float]]:
    """Of each phase, over all launches: seconds, steps, FLOPs, and the peak of memory in bytes."""
    spent, cost = seconds(experiment), {}
    for phase, (done, _) in outcome.done.items():
        noted = experiment.noted(phase)
        cost[phase] = {"seconds": spent[phase], "steps": done}
        if "step_flops" in noted or not done:
            cost[phase]["flops"] = done * noted.get("step_flops", 0)
        else:
            path = experiment.workdir.notes
            log.warning("%s lacks the cost of %s: its FLOPs are not known", path, phase)
        if "memory" in noted:
            cost[phase]["memory"] = noted["memory"]
    return cost


def of_pretraining(experiment: Experiment, outcome: Outcome) -> dict[str, float] | None:
    """{"flops"}: of the training that made the original; None if that is not known.

    Of weights from a file it is the number of images that their training saw, times the FLOPs that
    an image costs here under the tasks of the last phase.
    """
    plan, costs = experiment.plan, of_phases(experiment, outcome)
    making = [phase for phase, planned in plan.phases.items() if planned.method.MAKES_ORIGINAL]
    if making:
        known = [costs[phase]["flops"] for phase in making if "flops" in costs[phase]]
        return {"flops": float(sum(known))} if len(known) == len(making) else None
    training = provenance.training_of_weights(experiment.weights) if experiment.weights else None
    about: Mapping[str, float] = provenance.summary(training) if training else {}
    if not (about.get("images") and about.get("passes")):
        return None
    return {"flops": about["images"] * about["passes"] * _image_flops(experiment)}


def _image_flops(experiment: Experiment) -> float:
    """FLOPs of training on one image, the mean over the tasks of the last phase."""
    *_, last = experiment.plan.phases.values()
    model, method = experiment.model, find("method", "pretrain")
    optimizer, rate = optim.make_optimizer(steps=1, lr=1e-3)
    solver, size = find("solver", "weighted"), experiment.mesh.size
    rule = UpdateRule(
        "pretrain", model, method, {}, solver, {}, optimizer, rate, experiment.plan.seed
    )
    state, fixed = jax.eval_shape(rule.init, model.template), rule.fixed(model.template, {})
    batch = {side: token_bank.abstract_images(experiment, size) for side in method.SIDES}
    updates = [make_update(rule, task, experiment.mesh) for task in last.tasks]
    return float(np.mean([flops.count(update, state, fixed, batch) for update in updates])) / size
