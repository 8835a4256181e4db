"""Before the first step: all that can be checked is, and only then the workdir is claimed."""

import dataclasses
import functools
import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import image_cache, image_folder, images, splits
from l2l_jax.data.splits import Split
from l2l_jax.engine import completions, retrained
from l2l_jax.engine.config import check_config
from l2l_jax.engine.experiment import Experiment, build, load_original
from l2l_jax.engine.step import make_update
from l2l_jax.lib import files, hosts, preemption, sharding
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.registry import find
from l2l_jax.types import Source
from l2l_jax.weights import pretrained
from l2l_jax.workdir import claim, split_files
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)


def preflight(config: Mapping[str, Any], folder: Path, stop: preemption.Flag) -> Experiment:
    """Checks all that can be checked without a step, and only then makes the workdir this run's.

    config: complete (config.complete). Programs are traced, not compiled, so that an argument a
    method or a model does not like is found now and not after hours of training.
    """
    with hosts.fail_together():
        experiment = _checked(config, folder, stop)
    if spec := config["reference"]:
        retrained = retrained.load(Path(spec).expanduser(), experiment.model)
        claim.check_reference(folder, retrained.digest)
        experiment = dataclasses.replace(experiment, reference=retrained)
    _agree(experiment)
    original = experiment.weights
    about = {**original.about, "digest": original.digest} if original else None
    claim.claim(folder, config, about)
    if retrained := experiment.reference:
        claim.record_reference(folder, {"weights": config["reference"], "digest": retrained.digest})
    if hosts.is_main():
        split_files.save(folder, experiment.splits)
    return experiment


def _checked(config: Mapping[str, Any], folder: Path, stop: preemption.Flag) -> Experiment:
    """All that a process can check by itself; asks the others nothing."""
    check_config(config)
    image_cache.check(config["data"]["cache"], config["runtime"]["workers"])
    claim.check_config_matches(folder, config)
    mesh, model = build(config)
    if config["data"]["token_cache"]["views"] and not model.takes_tokens:
        raise ConfigError(
            f"data.token_cache.views={config['data']['token_cache']['views']} needs a model over a "
            f"frozen tokenizer, such as mage; a {config['model']['name']} is given pixels."
        )
    sources = _load_sources(config)
    original = load_original(config)
    first = find("method", config[config["phases"][0]]["method"])
    if original and not first.MAKES_ORIGINAL and original.params.keys() != model.template.keys():
        raise ConfigError(
            f"{config['weights']} holds only the {', '.join(original.params)} of a "
            f"{config['model']['name']}: there is no original to unlearn. Let phases begin with a "
            "pretrain, or name a whole model."
        )
    sources, chosen = _choose_splits(config, folder, sources)
    if spec := config["reference"]:
        retrained.check(Path(spec).expanduser(), chosen)
    experiment = Experiment(config, folder, mesh, model, sources, chosen, stop, original)
    for phase in config["phases"]:
        _try_phase(experiment, phase)
    _try_evaluation(experiment)
    if original:
        claim.check_original(folder, original.digest)
    return experiment


def _load_sources(config: Mapping[str, Any]) -> dict[str, Source]:
    """The data; DataMissing names everything that is missing at once, weights included."""
    missing, sources = [], {}
    try:
        if config["weights"]:
            pretrained.locate(config["weights"])
    except DataMissing as error:
        missing.append(str(error))
    parts = {part: (part, config["data"]) for part in splits.PARTS}
    if config["data"]["proxy"]["name"]:
        parts[splits.PROXY] = ("train", config["data"]["proxy"])
    for name, (part, said) in parts.items():
        try:
            sources[name] = find("dataset", said["name"]).load(part, **said["args"])
        except DataMissing as error:
            missing += [] if str(error) in missing else [str(error)]
    if missing:
        raise DataMissing("\n\n".join(missing))
    return sources


def _choose_splits(
    config: Mapping[str, Any], folder: Path, sources: dict[str, Source]
) -> tuple[dict[str, Source], dict[str, Split]]:
    """(sources, which keep training images if they are to; the splits the workdir keeps).

    On the first launch the splits are new ones, free of broken images.
    """
    begun = Workdir(folder).splits.exists()
    made = split_files.load(folder, sources) if begun else splits.make(config["split"], sources)
    rows = {part: splits.training_rows(made, part) for part in sources}
    sources = image_cache.cached(sources, rows, config["data"]["cache"])
    if begun:
        return sources, made
    chosen = {}
    for name, split in made.items():
        source, policy = sources[split.part], config["data"]["broken"]
        left, skipped = image_folder.drop_unreadable(source, name, split.indices, policy)
        if len(left):
            chosen[name] = splits.pick(name, split.part, source, left, skipped)
            log.info("%s: %d images of %d classes", name, len(left), len(chosen[name].classes))
    return sources, chosen


def _try_phase(experiment: Experiment, phase: str) -> None:
    """Batches divide, sides are there, every task fits the grid, and a step traces."""
    config, model = experiment.config, experiment.model
    settings, data = config[phase], config["data"]
    size, pieces = settings["batch_size"], settings["accumulate"]
    sharding.check_batch(size, experiment.mesh, pieces, f"{phase}.batch_size")
    images.augmentation(model.image_size, tuple(data["crop"]), data["flip"], data["resize"])
    rows = {side: experiment.abstract_images(size) for side in experiment.training(phase)}
    recipe = experiment.recipe(phase)
    if (meant := recipe.method.SOLVER or settings["solver"]) != settings["solver"]:
        said = "%s: %s is meant for the solver %s (--config.%s.solver=%s), and has %s here"
        log.warning(said, phase, settings["method"], meant, phase, meant, settings["solver"])
    if recipe.solver.resolve:
        recipe.solver.resolve(_boundaries(experiment, phase), **recipe.solver_args)
    salient = None
    if settings["saliency"] < 1:
        if "forget" not in recipe.method.SIDES:
            raise ConfigError(
                f"{phase}.saliency={settings['saliency']} needs a method with a forget objective; "
                f"{settings['method']} has none. Leave it at 1."
            )
        student = {group: model.template[group] for group in recipe.method.TRAINABLE}
        salient = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, bool), student)
    fixed = recipe.fixed(model.template, model.template, experiment.abstract_noise(phase), salient)
    for name in settings["tasks"]:
        module, args = experiment.task(name)
        module.visible(model.grid, **args)
        update = make_update(recipe, module, args, experiment.mesh)
        jax.eval_shape(update, jax.eval_shape(recipe.init, model.template), fixed, rows)


def _boundaries(experiment: Experiment, phase: str) -> dict[str, float]:
    """What phases before this one will have found; nothing is known of the values yet."""
    earlier = [experiment.recipe(name) for name in experiment.earlier(phase)]
    return {
        each.solver.boundary(**each.solver_args): math.nan
        for each in earlier
        if each.solver.boundary
    }


def _try_evaluation(experiment: Experiment) -> None:
    """There is something held out to look at, every task fits the grid, and completing traces."""
    model, settings = experiment.model, experiment.config["evaluate"]
    completions.check(experiment)
    size = settings["batch_size"]
    sharding.check_batch(size, experiment.mesh, 1, "evaluate.batch_size")
    if not any(name.endswith("_eval") for name in experiment.splits):
        raise ConfigError("No held-out images are left to evaluate; give the data an eval part.")
    pictures = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    for name in settings["tasks"]:
        module, args = experiment.task(name)
        draw = functools.partial(module.mask, batch=1, grid=model.grid, **args)
        mask = jax.eval_shape(draw, jax.random.key(0))
        complete = functools.partial(model.reconstruct, visible=module.visible(model.grid, **args))
        jax.eval_shape(complete, model.template, pictures, mask, jax.random.key(0))


def _agree(experiment: Experiment) -> None:
    """Every process must run the same config on the same images from the same weights."""
    chosen = {name: split.digest for name, split in experiment.splits.items()}
    original = experiment.weights.digest if experiment.weights else ""
    retrained = experiment.reference.digest if experiment.reference else ""
    absent = sorted(completions.missing_files(experiment.config))
    said = [files.as_json(experiment.config), chosen, original, retrained, absent]
    digest = hashlib.sha256(json.dumps(said).encode()).digest()
    if others := hosts.disagreeing(np.frombuffer(digest, np.uint8)):
        raise ConfigError(f"Processes {others} run another config, or see other data or weights.")
