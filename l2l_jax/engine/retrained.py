"""The retrained model: trained from scratch without the forget images, the standard of comparison.

It is the result of another run (`pretrain` on the retain split) whose workdir config.reference
names. It is evaluated beside the original and the unlearned model, on the same images.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from l2l_jax.data.splits import SIDES, Split
from l2l_jax.engine.experiment import load_original
from l2l_jax.engine.outcome import final_weights
from l2l_jax.engine.plan import Plan, resolve
from l2l_jax.engine.training_sets import trained_on
from l2l_jax.lib import trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import find, find_format
from l2l_jax.types import ImageToImage
from l2l_jax.weights import pretrained
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir.layout import Workdir


def check(folder: Path, chosen: Mapping[str, Split]) -> None:
    """Raises ConfigError unless the folder is a run on these splits without the forget images.

    It does not communicate with other processes.
    """
    digests = {name: split["digest"] for name, split in Workdir(folder).read_splits().items()}
    used = _trained_on(resolve(Workdir(folder).read_config()), digests)
    for name in SIDES:
        if name == "proxy" and name not in used:
            continue  # it decides nothing about that model
        here = chosen[name].digest if name in chosen else "none"
        there = digests.get(name, "none")
        if here != there:
            raise ConfigError(
                f"The reference {folder} was made with another {name} split: its digest is "
                f"{there[:16]}, this run's is {here[:16]}. Retrain it with the same config.split "
                "and data, or leave config.reference empty."
            )
    if "forget" in used:
        raise ConfigError(
            f"The reference {folder} was trained on the images to forget: it is no retrained "
            "model. Retrain one with --config.pretrain.on=retain."
        )


def load(folder: Path, model: ImageToImage) -> Weights:
    """The parameters of a finished workdir, on the host, in the canonical layout.

    All processes must call it. ConfigError if the run is not finished, or is of another model.
    """
    weights = final_weights(folder)
    name, params, differences = weights.about["model"], weights.params, []
    reference = find("model", name).build(**weights.about["args"])
    if type(reference) is type(model):
        params = find_format(name).adapt(params, model)
        differences = pretrained.differing(reference.identity, model.identity)
    text = trees.difference(params, model.canonical, folder.name, "the config's model")
    if text or differences:
        listed = "; ".join([*differences, *([text] if text else [])])
        raise ConfigError(f"The reference {folder} is another model than the config's. {listed}")
    return dataclasses.replace(weights, params=params)


def _trained_on(plan: Plan, splits: Mapping[str, str]) -> set[str]:
    """Names of the splits that a run trained on."""
    loaded = load_original(plan)
    if loaded and loaded.params.keys() == plan.model.build().template.keys():
        return set(splits)  # whatever made a whole model may have seen everything
    return trained_on(plan, splits)
