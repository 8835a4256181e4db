"""What a run guarantees: epsilon and delta of a phase whose solver has a guarantee, or nothing.

A guarantee is one of the whole procedure: the phase starts inside a ball around a center that no
forget image decided, and from then on nothing may look at a forget image. `check` refuses what
would break that before the first step. The noise is drawn from a secret of the workdir, because
whoever knows the noise can subtract it; the seed of a run stands in its record.

A run without such a phase guarantees nothing. For scale it is stated how much noise the solver
`noisy` would need at the distance of the run's result from a public start.
"""

import logging
import math
import secrets
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.engine import provenance, retrained
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import Outcome
from l2l_jax.engine.plan import PhasePlan
from l2l_jax.engine.step import UpdateRule
from l2l_jax.lib import accountant, hosts, sharding, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Params
from l2l_jax.weights import pretrained

log = logging.getLogger(__name__)

SECRET = "secret"  # key of the notes of a phase: two numbers of 32 bits
EPSILON, DELTA = 8.0, 1e-5  # for which the noise is stated that another method would need
INITIALISATION = "an initialisation by the seed of the run"
COPIES = (
    "The retain images hold nothing that was derived from the images to forget, such as copies."
)
NEEDED = dict(name="sgd", warmup=0.0, weight_decay=0.0, clip=0.0)  # of the optimizer


def check(experiment: Experiment, planned: PhasePlan) -> None:
    """ConfigError for whatever would void the guarantee of this phase, or of one before it."""
    if planned.solver.certify:
        for why in _own_obstacles(planned):
            raise ConfigError(f"{planned.name}: the solver {planned.solver.name} guarantees {why}")
        _check_center(experiment, planned)
    before = [each for each in experiment.plan.earlier(planned.name) if each.solver.certify]
    if before:
        first, name = before[0].name, planned.name
        for why in _later_obstacles(experiment, planned, first):
            raise ConfigError(f"{name} would void what {first} guarantees: {why}")


def _own_obstacles(planned: PhasePlan) -> Iterator[str]:
    """Why the phase itself has no guarantee."""
    name, optimizer, method = planned.name, planned.optimizer, planned.method
    wanted = NEEDED | dict(final=optimizer["lr"])
    for key, value in wanted.items():
        if optimizer[key] != value:
            yield (
                f"something for plain descent alone. Set {name}.optimizer.{key}={value}, not "
                f"{optimizer[key]}."
            )
    if optimizer["args"].get("momentum"):
        yield f"nothing with momentum. Set {name}.optimizer.args.momentum=0."
    if method.TEACHER or method.MAKES_ORIGINAL or tuple(method.SIDES) != ("retain",):
        yield (
            f"nothing for the method {method.name}: it may read retain images alone, and no "
            "teacher. Use finetune."
        )
    for key, value in dict(stop="", ema=0.0, saliency=1.0).items():
        if getattr(planned, key) != value:
            yield f"nothing with {name}.{key}={getattr(planned, key)}. Set it to {value!r}."
    if planned.on == "all":
        yield f"nothing for a training on forget images. Set {name}.on=retain or proxy."


def _later_obstacles(experiment: Experiment, planned: PhasePlan, first: str) -> Iterator[str]:
    """Why a phase after one with a guarantee voids it."""
    names = list(experiment.plan.phases)
    if "forget" in planned.method.SIDES or planned.on == "all":
        yield "it reads forget images. Only retain or proxy images may follow."
    if planned.method.MAKES_ORIGINAL:
        yield f"{planned.method.name} makes a new original."
    if planned.method.TEACHER and (
        not planned.teacher or names.index(planned.teacher) < names.index(first)
    ):
        yield f"its teacher saw the forget images. Set {planned.name}.teacher={first}."
    if planned.stop:
        yield f"its end depends on forget images. Leave {planned.name}.stop empty."


def _check_center(experiment: Experiment, planned: PhasePlan) -> None:
    """ConfigError if the center saw images of this data set, or frozen groups are not its own."""
    spec, model = planned.solver_args["center"], experiment.plan.model
    if spec:
        weights = pretrained.load(spec, model.plugin.name, model.args)
        training = provenance.training_of_weights(weights)
        for phase in training["phases"].values() if training else ():
            own = phase["data"] == experiment.plan.dataset.plugin.name
            if own and retrained.problems(training, experiment.splits):
                raise ConfigError(
                    f"{planned.name}.solver_args.center={spec} was trained on images of "
                    f"{phase['data']}, and not on the retain split alone: it may know the forget "
                    "images. Name weights that never saw them, or leave center empty."
                )
    loaded = experiment.weights.params if experiment.weights else {}
    frozen = loaded.keys() - set(planned.method.TRAINABLE)
    center = experiment.canonical(experiment.center(planned.name)) if frozen else {}
    for group in sorted(frozen):
        if trees.digest(loaded[group]) != trees.digest(center[group]):
            raise ConfigError(
                f"{planned.name}: the {group} of {experiment.config['weights']} stays as it is and "
                "is not that of the center: what it learned from forget images would stay. Name a "
                "center with the same one."
            )


def fixed(rule: UpdateRule, experiment: Experiment) -> Params | None:
    """{"center": like the student, "secret": the key of the noise}; None without a guarantee."""
    if not rule.solver.certify:
        return None
    noted = experiment.noted(rule.phase).get(SECRET)
    if noted is None:
        noted = hosts.json_from_main([secrets.randbits(32), secrets.randbits(32)])
        experiment.note(rule.phase, **{SECRET: noted})
    center = experiment.center(rule.phase)
    whole = sharding.replicated(experiment.mesh)
    key = jax.device_put(np.array(noted, np.uint32), whole)
    return {"center": {g: center[g] for g in rule.method.TRAINABLE}, "secret": key}


def of_run(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """What the run guarantees, as plain values: {"kind", "epsilon", "delta", ...}.

    kind: "noisy", "exact" of a last layer, or "none"; then the noise that `noisy` would need for
    EPSILON and DELTA.
    """
    phases = [p for p in experiment.plan.phases.values() if p.solver.certify]
    unfinished = [name for name, (done, total) in outcome.done.items() if done < total]
    *_, last = experiment.plan.phases.values()
    if last.method.examples and last.on == "retain" and not unfinished:
        return _exact(experiment, outcome)
    if not phases or unfinished:
        return _none(experiment, outcome)
    planned = phases[0]
    rule, certify = experiment.update_rule(planned.name), planned.solver.certify
    assert certify
    center, spec = experiment.center(planned.name), planned.solver_args["center"]
    found = certify(planned.steps, planned.optimizer["lr"], **rule.solver_args)
    if not math.isfinite(found["epsilon"]):  # so little noise that nothing can be said
        return _none(experiment, outcome)
    return {
        "kind": "noisy",
        "phase": planned.name,
        "center": spec or INITIALISATION,
        "center_digest": trees.digest(experiment.canonical(center)),
        **found,
        "assumptions": list(_assumptions(experiment, planned)),
    }


def _exact(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """The guarantee of a last layer that is solved from the retain images alone."""
    plan = experiment.plan
    steps = {p: n for p, (n, _) in outcome.done.items() if not plan.phases[p].method.examples}
    body = provenance.training_of(plan, experiment.workdir.read_splits(), steps, experiment.weights)
    why = retrained.problems(body, experiment.splits)
    return {
        "kind": "exact",
        "part": "the last layer" if why else "the whole model",
        "whole": not why,
        "body": why,
        "assumptions": [COPIES],
    }


def _assumptions(experiment: Experiment, planned: PhasePlan) -> Iterator[str]:
    """What must be true for the guarantee and is not checked."""
    if spec := planned.solver_args["center"]:
        model = experiment.plan.model
        weights = pretrained.load(spec, model.plugin.name, model.args)
        why = retrained.problems(provenance.training_of_weights(weights), experiment.splits)
        known = f" ({'; '.join(why)})" if why else ""
        yield f"The center, {spec}, does not depend on the images to forget{known}."
    yield "No setting was chosen by looking at the images to forget, or at figures about them."
    yield (
        "Nobody but the owner of the workdir knows the secret in phases.json, from which the noise "
        "is drawn: 64 bits, Threefry, float32."
    )
    yield COPIES


def _none(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    start = INITIALISATION
    if experiment.weights and not _saw_others(experiment):
        start, public = experiment.config["weights"], outcome.original
    else:
        public = experiment.initialisation()
    away = trees.weighted_sum(1.0, outcome.final, -1.0, public)
    distance = float(jnp.sqrt(trees.dot(away, away)))
    sigma = 2 * distance / accountant.mu_of(EPSILON, DELTA)
    return {"kind": "none", "center": start, "distance": distance, "epsilon": EPSILON,
            "delta": DELTA, "sigma": sigma}  # fmt: skip


def _saw_others(experiment: Experiment) -> bool:
    """Whether the original, a weights file, may have seen forget images."""
    assert experiment.weights
    training = provenance.training_of_weights(experiment.weights)
    return bool(retrained.problems(training, experiment.splits))
