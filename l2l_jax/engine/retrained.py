"""The model that never saw the forget images: what an unlearned model should be like.

A run of its own (`pretrain` on the retain split, from scratch), named by config.reference. It is
judged beside the original and the unlearned model, on the same images.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_jax.data.splits import SIDES, Split
from l2l_jax.engine.experiment import Experiment, build, final_weights, load_original
from l2l_jax.lib import files, preemption, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import find, find_format
from l2l_jax.types import ImageToImage
from l2l_jax.weights import pretrained
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir.layout import Workdir


def check(folder: Path, chosen: Mapping[str, Split]) -> None:
    """ConfigError if it is no run, trained on images to forget, or has other splits than `chosen`.

    Asks no other process.
    """
    config = Workdir(folder).read_config()
    digests = {
        path.stem: files.read_json(path)["digest"] for path in (folder / "splits").glob("*.json")
    }
    trained_on = _trained_on(config, folder, digests)
    for name in SIDES:
        if name == "proxy" and name not in trained_on:
            continue  # it decides nothing about that model
        here = chosen[name].digest if name in chosen else "none"
        there = digests.get(name, "none")
        if here != there:
            raise ConfigError(
                f"The reference {folder} was made with another {name} split: its digest is "
                f"{there[:16]}, this run's is {here[:16]}. Retrain it with the same config.split "
                "and data, or leave config.reference empty."
            )
    if "forget" in trained_on:
        raise ConfigError(
            f"The reference {folder} was trained on the images to forget: it is no retrained "
            "model. Retrain one with --config.pretrain.on=retain."
        )


def load(folder: Path, model: ImageToImage) -> Weights:
    """The retrained model of a finished workdir, on the host, canonical; by all processes at once.

    ConfigError if the run is not finished, or of another model.
    """
    weights = final_weights(folder)
    name, params, differs = weights.about["model"], weights.params, []
    given = find("model", name).build(**weights.about["args"])
    if type(given) is type(model):
        params = find_format(name).adapt(params, model)
        differs = pretrained.differing(given.identity, model.identity)
    text = trees.difference(params, model.canonical, folder.name, "the config's model")
    if text or differs:
        said = "; ".join([*differs, *([text] if text else [])])
        raise ConfigError(f"The reference {folder} is another model than the config's. {said}")
    return dataclasses.replace(weights, params=params)


def _trained_on(config: Mapping[str, Any], folder: Path, splits: Mapping[str, str]) -> set[str]:
    """Names of the splits that a run trained on."""
    mesh, model = build({**config, "runtime": {**config["runtime"], "fsdp": 1}})
    began = load_original(config)
    if began and began.params.keys() == model.template.keys():
        return set(splits)  # whatever made a whole model may have seen everything
    names = dict.fromkeys(splits)
    return Experiment(config, folder, mesh, model, {}, names, preemption.Flag()).trained_on()
