"""Retrained models: trained from scratch without the forget images, the standard of comparison.

They are results of other runs (`pretrain` on the retain split), which config.reference names by
their workdirs or weights files, such as one for each of several seeds. They are evaluated beside
the original and the unlearned model, on the same images. A reference is clean if no part of it has
seen other images than the retain split or its proxy: its phases, and the weights files that it
started from, such as the tokenizer of a MAGE.
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
from l2l_jax.weights import pretrained, safetensors
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

CLEAN = ("retain", "proxy")  # splits that a clean reference may be trained on
TOKENIZER = "tokenizer"  # the parameter group of a model of tokens
MAX_DIFFERENCE = 0.05  # relative, between the passes of a reference and those of the original


def names(count: int) -> tuple[str, ...]:
    """The variants that so many references are: "retrained", "retrained_2", ..."""
    return tuple("retrained" if at == 1 else f"retrained_{at}" for at in range(1, count + 1))


def check(spec: str, chosen: Mapping[str, Split], unclean: str = "stop") -> None:
    """Raises ConfigError unless a reference was made with these splits and is clean.

    spec: a workdir, a weights file, or bundled:NAME. unclean: config.unclean_reference; with "mark"
    a reference that is not clean is a warning in the log. It does not communicate with other
    processes.
    """
    training = _of_file(spec) if is_file(spec) else _of_run(Path(spec).expanduser(), chosen)
    reasons = problems(training, chosen)
    if reasons and unclean == "stop":
        raise ConfigError(
            f"The reference {spec} is not clean: {'; '.join(reasons)}. A retrained model never "
            "saw the images to forget. Retrain it with --config.pretrain.on=retain and the same "
            "config.split, and its tokenizer too if it has one. Or leave it out with "
            "--config.reference=, or use it with a mark: --config.unclean_reference=mark."
        )
    for reason in reasons:
        log.warning("the reference %s is not clean: %s", spec, reason)


def is_file(spec: str) -> bool:
    """Whether a reference is a weights file and not the workdir of a run."""
    return spec.startswith("bundled:") or Path(spec).suffix == ".safetensors"


def _of_file(spec: str) -> provenance.Training | None:
    """The training of a weights file, which it carries; None if nobody recorded it."""
    return provenance.training_of_weights(safetensors.load(pretrained.locate(spec)))


def _of_run(folder: Path, chosen: Mapping[str, Split]) -> provenance.Training:
    """The training of a run. ConfigError if it was made with other splits."""
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
    return provenance.training_of(plan, records, steps, load_original(plan))


def problems(training: provenance.Training | None, chosen: Mapping[str, Split]) -> list[str]:
    """Why a model is not clean for a run with these splits; [] if it is."""
    if training is None:
        return ["nobody recorded what it was trained on"]
    allowed = {chosen[name].digest for name in CLEAN if name in chosen}
    return list(provenance.problems(training, allowed))


def load_all(specs: Sequence[str], model: ImageToImage) -> tuple[Weights, ...]:
    """The parameters of all references; see `load`. ConfigError if two of them are the same."""
    loaded: dict[str, str] = {}
    references = []
    for spec in specs:
        weights = load(spec, model)
        if weights.digest in loaded:
            raise ConfigError(
                f"config.reference names one model twice: {loaded[weights.digest]} and {spec} hold "
                "the same "
                "parameters. Retrain with another --config.seed, or name one of them."
            )
        loaded[weights.digest] = spec
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
        until = None if planned.stop else planned.method.UNTIL
        if until and not planned.args[until[1]] and any(other):
            raise ConfigError(
                f"{name}.args.{until[1]}=0 is measured as the distance to the retrained model, and "
                f"{plan.references[other.index(True)]} has another tokenizer than the original: "
                "their tokens cannot be compared. Set the argument to a distance."
            )


def load(spec: str, model: ImageToImage) -> Weights:
    """The parameters of a reference, on the host, in the canonical layout.

    All processes must call it. ConfigError if a run is not finished, or the reference is of another
    model; DataMissing if there is no such file.
    """
    if is_file(spec):
        weights = safetensors.load(pretrained.locate(spec))
        source = {"training": provenance.training_of_weights(weights), "result": "a weights file"}
        about = {**weights.about, "source": {**source, **weights.about.get("source", {})}}
        weights = dataclasses.replace(weights, about=about)
    else:
        weights = final_weights(Path(spec).expanduser())
    name, params, differences = weights.about["model"], weights.params, []
    reference = find("model", name).build(**weights.about["args"])
    if type(reference) is type(model):
        params = find_format(name).adapt(params, model)
        differences = pretrained.differing(reference.identity, model.identity)
    text = trees.difference(params, model.canonical, Path(spec).name, "the config's model")
    if text or differences:
        listed = "; ".join([*differences, *([text] if text else [])])
        raise ConfigError(f"The reference {spec} is another model than the config's. {listed}")
    return dataclasses.replace(weights, params=params)


def combined_digest(references: Sequence[Weights]) -> str:
    """The digest of the reference, or one digest of several."""
    digests = [weights.digest for weights in references]
    return digests[0] if len(digests) == 1 else files.digest_of_lines(digests)
