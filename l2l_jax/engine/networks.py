"""The feature networks of a run: which files are missing, whether the others fit, loading them."""

import dataclasses
import logging
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import NetworkPlan, Plan
from l2l_jax.lib import hosts
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.types import RANDOM_WEIGHTS, FeatureNetwork
from l2l_jax.weights import feature_networks

log = logging.getLogger(__name__)


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

    Their parameters are equal on every process.
    """
    plan, missing = experiment.plan, missing_files(experiment.plan)
    read = {planned.network for planned in plan.evaluators.values()}
    planned = {name: network for name, network in plan.networks.items() if name in read}
    if others := hosts.disagreeing(np.array([name in missing for name in planned])):
        raise ConfigError(f"Processes {others} have files of other networks; give all the same.")
    with hosts.fail_together():
        built = {
            name: _build(experiment, network)
            for name, network in planned.items()
            if name not in missing
        }
    return {  # each process may have trained its own
        name: dataclasses.replace(network, params=hosts.from_main(network.params))
        for name, network in built.items()
    }


def _build(experiment: Experiment, network: NetworkPlan) -> FeatureNetwork:
    context = feature_networks.context(
        experiment.sources, experiment.splits, experiment.model.image_size
    )
    return network.plugin.build(context, **network.args)


def skipped_evaluators(plan: Plan, missing: Mapping[str, str]) -> dict[str, str]:
    """{evaluator: reason} of the evaluators whose feature network is missing."""
    return {
        name: missing[planned.network]
        for name, planned in plan.evaluators.items()
        if planned.network in missing
    }
