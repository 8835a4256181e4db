"""Retrained models: trained from scratch without the forget images, the standard of comparison.

They are results of other runs (`pretrain` on the retain split) whose workdirs config.reference
names, such as one for each of several seeds. They are evaluated beside the original and the
unlearned model, on the same images. A reference is clean if no part of it has seen other images
than the retain split or its proxy: its phases, and the weights files that it started from, such as
the tokenizer of a MAGE.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from l2l_jax.data.splits import SIDES, Split
from l2l_jax.engine import provenance
from l2l_jax.engine.experiment import load_original
from l2l_jax.engine.outcome import final_weights
from l2l_jax.engine.plan import Plan, resolve
from l2l_jax.engine.training_sets import trained_on
from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import find, find_format
from l2l_jax.types import ImageToImage
from l2l_jax.weights import pretrained
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

CLEAN = ("retain", "proxy")  # splits that a clean reference may be trained on
TOKENIZER = "tokenizer"  # the parameter group of a model of tokens
MAX_DIFFERENCE = 0.05  # relative, between the passes of a reference and those of the original


def names(count: int) -> tuple[str, ...]:
    """The variants that so many references are: "retrained", "retrained_2", ..."""
    return tuple("retrained" if at == 1 else f"retrained_{at}" for at in range(1, count + 1))


def check(folder: Path, chosen: Mapping[str, Split], unclean: str = "stop") -> None:
    """Raises ConfigError unless the folder is a run on these splits that is clean.

    unclean: config.unclean_reference; with "mark" a reference that is not clean is a warning in the
    log. It does not communicate with other processes.
    """
    workdir = Workdir(folder)
    plan, records = resolve(workdir.read_config()), workdir.read_splits()
    used = trained_on(plan, records)
    for name in SIDES:
        if name == "proxy" and name not in used:
            continue  # it decides nothing about that model
        here = chosen[name].digest if name in chosen else "none"
        there = records[name]["digest"] if name in records else "none"
        if here != there:
            raise ConfigError(
                f"The reference {folder} was made with another {name} split: its digest is "
                f"{there[:16]}, this run's is {here[:16]}. Retrain it with the same config.split "
                "and data, or leave config.reference empty."
            )
    steps = {name: planned.steps for name, planned in plan.phases.items()}
    training = provenance.training_of(plan, records, steps, load_original(plan))
    reasons = problems(training, chosen)
    if reasons and unclean == "stop":
        raise ConfigError(
            f"The reference {folder} is not clean: {'; '.join(reasons)}. A retrained model never "
            "saw the images to forget. Retrain it with --config.pretrain.on=retain, and its "
            "tokenizer too if it has one; or say --config.unclean_reference=mark to use it with a "
            "mark."
        )
    for reason in reasons:
        log.warning("the reference %s is not clean: %s", folder, reason)


def problems(training: provenance.Training, chosen: Mapping[str, Split]) -> list[str]:
    """Why a model is not clean for a run with these splits; [] if it is."""
    allowed = {chosen[name].digest for name in CLEAN if name in chosen}
    return list(provenance.problems(training, allowed))


def load_all(folders: Sequence[Path], model: ImageToImage) -> tuple[Weights, ...]:
    """The parameters of all references; see `load`. ConfigError if two of them are the same."""
    loaded: dict[str, Path] = {}
    references = []
    for folder in folders:
        weights = load(folder, model)
        if (other := loaded.setdefault(weights.digest, folder)) is not folder:
            raise ConfigError(
                f"config.reference names one model twice: {other} and {folder} hold the same "
                "parameters. Retrain with another --config.seed, or name one of them."
            )
        references.append(weights)
    return tuple(references)


def check_tokens(
    plan: Plan, model: ImageToImage, original: Weights | None, references: Sequence[Weights]
) -> None:
    """ConfigError for a phase that would compare tokens of two tokenizers.

    Such a phase measures the distance of its limit between outputs (types.Method.UNTIL). Outputs of
    a model of tokens are probabilities of codes, which mean nothing under another codebook.
    """
    if not model.takes_tokens or original is None:
        return
    own = trees.digest(original.params[TOKENIZER])
    other = [trees.digest(weights.params[TOKENIZER]) != own for weights in references]
    for name, planned in plan.phases.items():
        until = planned.method.UNTIL
        if until and not planned.args[until[1]] and any(other):
            raise ConfigError(
                f"{name}.args.{until[1]}=0 is measured as the distance to the retrained model, and "
                f"{plan.references[other.index(True)]} has another tokenizer than the original: "
                "their tokens cannot be compared. Set the argument to a distance."
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


def combined_digest(references: Sequence[Weights]) -> str:
    """The digest of the reference, or one digest of several."""
    digests = [weights.digest for weights in references]
    return digests[0] if len(digests) == 1 else files.digest_of_lines(digests)
