"""Checks everything that can be checked without running a step, then claims the workdir."""

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import duplicates, image_cache, image_folder, images, splits
from l2l_jax.data.splits import Split
from l2l_jax.engine import (
    audit_sets,
    boundaries,
    certificate,
    fitting,
    networks,
    retrained,
    token_bank,
    unseen,
)
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.experiment import Experiment, load_original
from l2l_jax.engine.plan import Plan
from l2l_jax.engine.step import make_update
from l2l_jax.engine.training_sets import training_splits
from l2l_jax.lib import files, hosts, preemption, sharding
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.types import Source, TokenModel
from l2l_jax.weights import pretrained
from l2l_jax.workdir import claim, split_files
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)


def preflight(plan: Plan, folder: Path, stop: preemption.StopSignal) -> Experiment:
    """The experiment of a plan in a workdir, which is then claimed by it.

    Programs are traced and not compiled, so that an argument that a method or a model refuses is
    found now and not after hours of training. Raises the errors of lib/errors.py.
    """
    with hosts.fail_together():
        experiment = _checked(plan, folder, stop)
    config = plan.config
    if plan.references:
        references = retrained.load_all(plan.references, experiment.model)
        retrained.check_tokens(plan, experiment.model, experiment.weights, references)
        claim.check_reference(folder, retrained.combined_digest(references))
        rules = experiment.rules
        experiment = dataclasses.replace(experiment, references=references)
        experiment.rules.update(rules)
    _check_agreement(experiment)
    original = experiment.weights
    about = {**original.about, "digest": original.digest} if original else None
    with hosts.fail_together():
        claim.claim(folder, config, about)
        if experiment.references:
            digest = retrained.combined_digest(experiment.references)
            claim.record_reference(folder, {"weights": config["reference"], "digest": digest})
        if hosts.is_main():
            split_files.save(folder, experiment.splits)
    return experiment


def _checked(plan: Plan, folder: Path, stop: preemption.StopSignal) -> Experiment:
    """All that a process can check by itself, without asking the others."""
    config, workdir = plan.config, Workdir(folder)
    image_cache.check(config["data"]["cache"], config["runtime"]["workers"])
    claim.check_config_matches(folder, config, complete_config)
    mesh, model = sharding.make_mesh(config["runtime"]["fsdp"]), plan.model.build()
    if (views := config["data"]["token_cache"]["views"]) and not model.takes_tokens:
        raise ConfigError(
            f"data.token_cache.views={views} needs a model over a frozen tokenizer, such as mage; "
            f"a {plan.model.plugin.name} is given pixels."
        )
    sources = _load_sources(plan)
    original = load_original(plan)
    first = next(iter(plan.phases.values())).method
    if original and not first.MAKES_ORIGINAL and original.params.keys() != model.template.keys():
        raise ConfigError(
            f"{config['weights']} holds only the {', '.join(original.params)} of a "
            f"{plan.model.plugin.name}: there is no original to unlearn. Let phases begin with a "
            "pretrain, or name a whole model."
        )
    sources, chosen = _choose_splits(plan, workdir, sources)
    for reference in plan.references:
        retrained.check(reference, chosen, config["unclean_reference"])
    experiment = Experiment(plan, workdir, mesh, model, sources, chosen, stop, original)
    for phase in plan.phases:
        _try_phase(experiment, phase)
    _try_evaluation(experiment)
    if original:
        claim.check_original(folder, original.digest)
    return experiment


def _load_sources(plan: Plan) -> dict[str, Source]:
    """The data; DataMissing names everything that is missing at once, weights included."""
    missing, sources = [], {}
    try:
        if plan.config["weights"]:
            pretrained.locate(plan.config["weights"])
    except DataMissing as error:
        missing.append(str(error))
    parts = {part: (part, plan.dataset) for part in splits.PARTS}
    if plan.proxy:
        parts[splits.PROXY] = ("train", plan.proxy)
    if plan.other and audit_sets.reads_other(plan):
        parts[audit_sets.OTHER] = ("eval", plan.other)
    for name, (part, dataset) in parts.items():
        try:
            sources[name] = dataset.load(part)
        except DataMissing as error:
            missing += [] if str(error) in missing else [str(error)]
    if missing:
        raise DataMissing("\n\n".join(missing))
    return sources


def _choose_splits(
    plan: Plan, workdir: Workdir, sources: dict[str, Source]
) -> tuple[dict[str, Source], dict[str, Split]]:
    """(sources, which keep decoded training images if asked to; splits).

    A continued run reads the splits from its workdir. On the first launch they are chosen, and
    broken images are left out or refused.
    """
    config, continued = plan.config, split_files.exist(workdir.folder)
    if continued:
        chosen = split_files.load(
            workdir.folder,
            sources,
            lambda: _readable(plan, splits.make(config["split"], sources), sources)[0],
        )
        _check_lists(config["split"], workdir, sources, chosen)
    else:
        chosen = splits.make(config["split"], sources)
    rows = {part: splits.training_rows(chosen, part) for part in sources}
    sources = image_cache.cached(sources, rows, config["data"]["cache"])
    if not continued:
        chosen, digests = _readable(plan, chosen, sources)
        duplicates.check(chosen, digests, sources, config["split"]["duplicates"])
    return sources, chosen


def _readable(
    plan: Plan, chosen: Mapping[str, Split], sources: Mapping[str, Source]
) -> tuple[dict[str, Split], dict[str, Any]]:
    """(the splits without images that cannot be read, which the config may leave out; digests).

    digests: of the pixels of each split's images, where reading them gave one.
    """
    whole, digests, policy = {}, {}, plan.config["data"]["broken"]
    for name, split in chosen.items():
        source = sources[split.part]
        left, skipped, pixels = image_folder.drop_unreadable(source, name, split.indices, policy)
        if len(left):
            digests[name] = pixels
            whole[name] = splits.pick(name, split.part, source, left, skipped)
            log.info("%s: %d images of %d classes", name, len(left), len(whole[name].classes))
    return whole, digests


def _check_lists(
    config: Mapping[str, Any],
    workdir: Workdir,
    sources: Mapping[str, Source],
    chosen: Mapping[str, Split],
) -> None:
    """ConfigError if a list of images names others than when the run began; it may be gone."""
    paths = {side: Path(config[side]["files"]).expanduser() for side in splits.SIDES}
    paths = {side: path for side, path in paths.items() if config[side]["files"]}
    if not all(path.exists() for path in paths.values()):
        log.warning("a list of images is gone; the run goes on with those of %s", workdir.splits)
    elif paths:
        now = splits.make(config, sources)
        for side, path in paths.items():
            keys, before = (
                set(each[side].keys) if side in each else set() for each in (now, chosen)
            )
            skipped = len(chosen[side].skipped) if side in chosen else 0
            added, removed = len(keys - before) - skipped, len(before - keys)
            if added or removed:
                raise ConfigError(
                    f"{path} has changed since {workdir.folder} began: it names {max(added, 0)} "
                    f"other images, and {removed} no longer. Restore it, or start in another "
                    "workdir."
                )


def _try_phase(experiment: Experiment, phase: str) -> None:
    """Batches divide, sides are not empty, every task fits the grid, and a step traces."""
    model, data, planned = (
        experiment.model,
        experiment.config["data"],
        experiment.plan.phases[phase],
    )
    size = planned.batch_size
    sharding.check_batch(size, experiment.mesh, planned.accumulate, f"{phase}.batch_size")
    images.augmentation(model.image_size, tuple(data["crop"]), data["flip"], data["resize"])
    batch = token_bank.abstract_batch(experiment, phase, training_splits(experiment, phase))
    method, solver = planned.method, planned.solver
    if why := method.refuses(model):
        raise ConfigError(
            f"{phase}.method={method.name} cannot be stated for a "
            f"{experiment.plan.model.plugin.name}: {why}. Choose another method."
        )
    if method.SOLVER and solver.name != method.SOLVER:
        log.warning(
            "%s: %s is meant for the solver %s (--config.%s.solver=%s), and has %s here",
            *(phase, method.name, method.SOLVER, phase, method.SOLVER, solver.name),
        )
    boundaries.check(experiment, planned)
    unseen.check(experiment, planned)
    certificate.check(experiment, planned)
    fitting.check(experiment, planned)
    if solver.resolve:
        solver.resolve(boundaries.found(experiment, phase), **planned.solver_args)
    salient = None
    if planned.saliency < 1:
        if "forget" not in method.SIDES:
            raise ConfigError(
                f"{phase}.saliency={planned.saliency} needs a method with a forget objective; "
                f"{method.name} has none. Leave it at 1."
            )
        student = {group: model.template[group] for group in method.TRAINABLE}
        salient = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, bool), student)
    rule, noise = experiment.update_rule(phase), token_bank.abstract_noise(experiment, phase)
    pairs = unseen.abstract(experiment, planned)
    params = sharding.abstract_tree(experiment.mesh, model.template)
    fixed = rule.fixed(params, params, noise, salient, pairs)
    for task in planned.tasks:
        task.task.visible(model.grid, **task.args)
        update = make_update(rule, task, experiment.mesh)
        jax.eval_shape(update, experiment.abstract_state(phase), fixed, batch)


def _try_evaluation(experiment: Experiment) -> None:
    """There are held-out images, every task fits the grid, and completing traces."""
    model, settings = experiment.model, experiment.config["evaluate"]
    networks.check(experiment)
    sharding.check_batch(settings["batch_size"], experiment.mesh, 1, "evaluate.batch_size")
    if not any(name.endswith("_eval") for name in experiment.splits):
        raise ConfigError("No held-out images are left to evaluate; give the data an eval part.")
    pictures = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    for planned in experiment.plan.evaluate_tasks:
        draw = functools.partial(planned.task.mask, batch=1, grid=model.grid, **planned.args)
        mask = jax.eval_shape(draw, jax.random.key(0))
        visible = planned.task.visible(model.grid, **planned.args)
        fixed, where = visible[0] == visible[1], f"--config.tasks.{planned.name}.args"
        if (
            isinstance(model, TokenModel)
            and fixed
            and model.unseen(draw(jax.random.key(0)), visible).all()
        ):
            raise ConfigError(
                f"The task {planned.name} leaves the model no token: it hides all but "
                f"{visible[0]}, and the model hides a margin around the hole, too. Hide less, or "
                f"set {where}.margin=released or --config.model.args.margin=0."
            )
        complete = functools.partial(model.reconstruct, visible=visible)
        jax.eval_shape(complete, model.template, pictures, mask, jax.random.key(0))


def _check_agreement(experiment: Experiment) -> None:
    """ConfigError unless every process has the same config, images, weights and networks."""
    chosen = {name: split.digest for name, split in experiment.splits.items()}
    original = experiment.weights.digest if experiment.weights else ""
    reference = [weights.digest for weights in experiment.references]
    missing = sorted(networks.missing_files(experiment.plan))
    state = [files.as_json(experiment.config), chosen, original, reference, missing]
    digest = hashlib.sha256(json.dumps(state).encode()).digest()
    if others := hosts.disagreeing(np.frombuffer(digest, np.uint8)):
        raise ConfigError(f"Processes {others} run another config, or see other data or weights.")
