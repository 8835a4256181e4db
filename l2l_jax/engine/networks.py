"""The feature networks of a run: which files are missing, whether the others fit, loading them."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import NetworkPlan, Plan
from l2l_jax.lib import hosts, trees
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.types import RANDOM_WEIGHTS, FeatureNetwork, Params
from l2l_jax.weights import feature_networks

log = logging.getLogger(__name__)

Made = tuple[Params, dict[str, Any]]  # (parameters, metadata)


def missing_files(plan: Plan) -> dict[str, str]:
    """{network: what to get} of the feature networks whose weights file is missing."""
    missing = {}
    for name, network in plan.networks.items():
        spec = network.plugin.file(**network.args) if network.plugin.file else RANDOM_WEIGHTS
        try:
            if spec != RANDOM_WEIGHTS:
                feature_networks.locate(spec)
        except DataMissing as error:
            missing[name] = str(error)
    return missing


def check(experiment: Experiment) -> None:
    """Loads every feature network that has a file once, so that a bad file fails before training.

    Raises WrongWeights for a file that does not fit, and ConfigError for an evaluator that needs
    class logits from a network that has none. Missing files are logged: what needs them is skipped.
    """
    plan, size = experiment.plan, experiment.model.image_size
    missing, without_logits = missing_files(plan), set()
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    for name, network in plan.networks.items():
        if name in missing:
            log.warning(
                "the feature network %s, and what it measures, will be left out: %s",
                *(name, missing[name]),
            )
        elif network.plugin.file:
            built = _build(experiment, network)
            _, logits = jax.eval_shape(built.apply, built.params, images)
            without_logits |= set() if logits.shape[1] else {name}
    for name, planned in plan.evaluators.items():
        if planned.evaluator.NEEDS_LOGITS and (used := planned.network) in without_logits:
            raise ConfigError(
                f"evaluators.{name} needs a network that tells classes apart, and "
                f"{used!r} ({plan.networks[used].plugin.name}) gives "
                "features only. Name another."
            )


def load(experiment: Experiment) -> dict[str, FeatureNetwork]:
    """The feature networks that evaluators read and whose files are there.

    Process 0 builds them first. What it trains, or finds in its cache, the others get from it.
    """
    plan, missing = experiment.plan, missing_files(experiment.plan)
    read = {planned.network for planned in plan.evaluators.values()}
    planned = {name: network for name, network in plan.networks.items() if name in read}
    if others := hosts.disagreeing(np.array([name in missing for name in planned])):
        raise ConfigError(f"Processes {others} have files of other networks; give all the same.")
    planned = {name: network for name, network in planned.items() if name not in missing}
    made: dict[str, Made] = {}
    with hosts.fail_together():
        built = _build_all(experiment, planned, made) if hosts.is_main() else {}
    made = {key: _from_main(made.get(key)) for key in hosts.json_from_main(sorted(made))}
    with hosts.fail_together():
        return built if hosts.is_main() else _build_all(experiment, planned, made)


def _build_all(
    experiment: Experiment, planned: Mapping[str, NetworkPlan], made: dict[str, Made]
) -> dict[str, FeatureNetwork]:
    """All networks. made: parameters by key, which are taken if they are there, and added to."""

    def cached(key: str, make: Callable[[], Made]) -> Made:
        if key not in made:
            made[key] = feature_networks.cached(key, make)
        return made[key]

    return {name: _build(experiment, network, cached) for name, network in planned.items()}


def _from_main(made: Made | None) -> Made:
    """(parameters, metadata) of process 0; None on the others."""
    params, about = made or ({}, {})
    arrays = hosts.arrays_from_main(trees.flatten(params))
    return trees.unflatten(arrays), hosts.json_from_main(about)


def _build(
    experiment: Experiment, network: NetworkPlan, cached: Any = feature_networks.cached
) -> FeatureNetwork:
    context = feature_networks.context(
        experiment.sources, experiment.splits, experiment.model.image_size, cached
    )
    return network.plugin.build(context, **network.args)


def skipped_evaluators(plan: Plan, missing: Mapping[str, str]) -> dict[str, str]:
    """{evaluator: reason} of the evaluators whose feature network is missing."""
    return {
        name: missing[planned.network]
        for name, planned in plan.evaluators.items()
        if planned.network in missing
    }
