"""Official files of Palette."""

import dataclasses
import logging
import math
import re
from typing import Any

import jax
import numpy as np

from l2l_jax.lib import trees
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.lib.nnx_pure import PureModule
from l2l_jax.models.diffusion import SAMPLE_STEPS, SIZES, Diffusion
from l2l_jax.models.layers import negation, noise_schedule, unet
from l2l_jax.models.layers.noise_schedule import BUFFERS, Schedule
from l2l_jax.types import Params, StateDict
from l2l_jax.weights.formats._layers import adapt_tying, embedding_names, published_size, unet_names
from l2l_jax.weights.name_map import Rule, official

log = logging.getLogger(__name__)

GROUPS = 32  # of every official normalisation
NETWORK, TEACHER = "denoise_fn.", "teacher_denoise_fn."
OWN = "decoder_cond_embed"  # ours; in official files D always shares E's embedding
STORED = [Rule(f"{negation.GROUP}.{name}", f"{negation.GROUP}/{name}") for name in negation.ARRAYS]

NAMES = [*unet_names(NETWORK), *embedding_names(OWN, "decoder/embed"), *STORED]

AMBIGUOUS = ("head", "groups")  # of an unpublished size


def from_torch(state: StateDict) -> StateDict:
    """An official state dict without the schedule's buffers and without a copy of the teacher.

    The schedule is an argument of `build`; official unlearning leaves the teacher in its files.
    """
    return {k: v for k, v in state.items() if k not in BUFFERS and not k.startswith(TEACHER)}


def to_torch(state: StateDict, model: Diffusion) -> dict[str, Any]:
    """The content of an official file: a state dict that includes the buffers of the schedule.

    The official network has 32 groups in every normalisation and one embedding of the noise level
    for encoder and decoder. A warning is logged if this model differs in either; the file then
    holds the decoder's embedding under a name of our own, which the official code ignores.
    ConfigError for a model that stores images to avoid, which no official file can hold.
    """
    if model.negation.count:
        raise ConfigError(
            f"This model stores {model.negation.count} images, which it avoids while it samples. "
            "An official file has no place for them, and without them the model is not changed at "
            "all: write a .safetensors file."
        )
    groups = model.size.groups
    if groups != GROUPS:
        log.warning(
            "The official network normalises in %d groups, this one in %d: the official code "
            "cannot run it. To import the file here, add --set groups=%d if its size is not a "
            "published one.",
            *(GROUPS, groups, groups),
        )
    own = {k: v for k, v in state.items() if k.startswith(OWN)}
    shared = {k: state[k.replace(OWN, f"{NETWORK}cond_embed")] for k in own}
    state = {k: v for k, v in state.items() if k not in own}
    if any(not np.array_equal(own[k], shared[k]) for k in own):
        log.warning(
            "The decoder's embedding of the noise level differs from the encoder's. The official "
            "code shares one, so there this model decodes otherwise; the file holds the decoder's "
            "as %s.",
            OWN,
        )
        state |= own
    return state | model.schedule.buffers


def infer_args(state: StateDict, known: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of an official state dict.

    known: settings of the user: image_size (else 256), head and groups of an unpublished size, and
    the schedule if the file does not determine it. WrongWeights names every array that is missing,
    and asks for head and groups: another width of the attention heads, or another number of groups,
    gives other outputs and leaves no trace in the file.
    """
    if not any(name.startswith(NETWORK) for name in state):
        raise WrongWeights(f"This is no file of Palette: no name in it begins with {NETWORK}")
    size = _size(state, known)
    dimensions = dataclasses.asdict(size)
    name = published_size(SIZES, dimensions)
    if missing := sorted(expected(size) - set(state)):
        network = f"of size {name!r}" if name else "that the other arrays imply, of no known size"
        raise WrongWeights(
            f"This file lacks {len(missing)} arrays of the network {network}; nothing replaces "
            f"them. Missing: {', '.join(missing)}."
        )
    if not name and not all(known.get(key) for key in AMBIGUOUS):
        raise WrongWeights(
            f"This network (width {size.width}, multipliers {size.multipliers}, {size.blocks} "
            "blocks) has no published size, and the file does not determine the width of its "
            "attention heads and its number of normalisation groups; add --set head=N --set "
            "groups=N (in a config: model.args.head and model.args.groups). The official code has "
            "32 of both unless its config says otherwise (num_head_channels)."
        )
    side = int(known.get("image_size", 256))
    args = _schedule(state, known) | {"image_size": side, "cell": math.gcd(side, 16)}
    if args["steps"] < SAMPLE_STEPS:
        args["sample_steps"] = 0
    return {"size": name, **args} if name else {"size": "published", **dimensions, **args}


def _size(state: StateDict, known: dict[str, Any]) -> unet.Size:
    """The size of the network in a file.

    head and groups leave no trace: they come from the user, or from a published size with the same
    other dimensions. If arrays are missing, it is the candidate (published, or inferred
    from the arrays) whose array names differ least from the file's.
    """
    names = {name for name in state if name.startswith(NETWORK)}
    size = _inferred_size(state)
    candidates = [published for published in SIZES.values() if published.width == size.width]
    if expected(size) != names:
        size = min([*candidates, size], key=lambda each: len(expected(each) ^ names))
    settings = {key: known[key] for key in ("head", "groups") if known.get(key)}
    for candidate in candidates:
        untraced = {"head": candidate.head, "groups": candidate.groups}
        if not settings and dataclasses.replace(size, **untraced) == candidate:
            return candidate
    return dataclasses.replace(size, **settings)


def _inferred_size(state: StateDict) -> unet.Size:
    """The size that the existing arrays imply, if not too many are missing.

    Encoder and decoder have the same number of blocks; every level of the decoder except the last
    ends in two residual blocks.
    """
    pattern = rf"{re.escape(NETWORK)}(input|output)_blocks\.(\d+)\.(\d)\.(\w+)"
    hits = [hit.groups() for hit in (re.match(pattern, name) for name in state) if hit]
    count = 1 + max((int(block) for _, block, *_ in hits), default=0)
    ups = {b for stack, b, at, name in hits if stack == "output" and at != "0" and "layers" in name}
    every = max(2, -(-count // (1 + len(ups))))  # input blocks of a level, downsampling included
    channels = {
        int(block): state[f"{NETWORK}input_blocks.{block}.0.{name}.2.weight"].shape[0]
        for stack, block, at, name in hits
        if (stack, at, name) == ("input", "0", "in_layers")
        and f"{NETWORK}input_blocks.{block}.0.{name}.2.weight" in state
    }
    embed, first = (
        state.get(NETWORK + x) for x in ("cond_embed.0.weight", "input_blocks.0.0.weight")
    )
    width = embed.shape[-1] if embed is not None else 64 if first is None else first.shape[0]
    level = [[c for b, c in channels.items() if (b - 1) // every == i] for i in range(1 + len(ups))]
    multipliers = [max(1, widths[0] // width) if widths else 1 for widths in level]
    attending = {int(b) for stack, b, _, name in hits if (stack, name) == ("input", "qkv")}
    attention = sorted({1 << ((block - 1) // every) for block in attending})
    return unet.Size(width, tuple(multipliers), every - 1, tuple(attention))


def _schedule(state: StateDict, known: dict[str, Any]) -> dict[str, Any]:
    """The training schedule as `build` arguments: from the buffers, or else from the user.

    WrongWeights if neither determines it, or if the user's settings contradict the buffers.
    """
    settings = {k: known[k] for k in ("schedule", "steps", "beta_start", "beta_end") if k in known}
    bounds = noise_schedule.BOUNDS.get(known.get("schedule", ""), ("start", "end"))
    complete = settings.keys() >= {"schedule", "steps", *(f"beta_{bound}" for bound in bounds)}
    advice = "set it: --set schedule=linear --set steps=2000 --set beta_start=1e-6"
    advice += " --set beta_end=0.01"
    if missing := [name for name in BUFFERS if name not in state]:
        if complete:
            return settings
        raise WrongWeights(f"This file lacks {', '.join(missing)} of its noise schedule; {advice}")
    inferred = noise_schedule.infer_schedule(state)
    if inferred is None and not complete:
        raise WrongWeights(f"The buffers of this file fit no noise schedule known here; {advice}")
    if inferred is None:
        return settings
    args = {"schedule": inferred.name, "steps": inferred.steps}
    args |= {"beta_start": inferred.start, "beta_end": inferred.end}
    wanted = Schedule(*(args | settings).values())
    if wanted.steps != inferred.steps or not np.allclose(wanted.betas, inferred.betas, 1e-4):
        wrong = {k: x for k, x in settings.items() if x != args[k]}
        raise WrongWeights(
            f"The schedule of this file is {inferred.description} in {inferred.steps} steps, and "
            f"not one of {', '.join(f'{k}={x}' for k, x in wrong.items())}; leave that out."
        )
    return args


def expected(size: unet.Size) -> set[str]:
    """Every official array name of a network of this size; head and groups do not matter."""
    size = dataclasses.replace(size, head=1, groups=1)
    encoder = PureModule(lambda rngs: unet.Encoder(size, np.float32, False, rngs))
    decoder = PureModule(lambda rngs: unet.Decoder(size, False, np.float32, False, rngs))
    template = {"encoder": encoder.template, "decoder": decoder.template}
    return {official(name, NAMES) for name in trees.flatten(template)}


def adapt(params: Params, model: Diffusion) -> Params:
    """Parameters of a file for this model, whose tying may differ, and which may store images."""
    missing = {} if negation.GROUP in params else model.negation.empty(model.image_size)
    adapted = adapt_tying(params, "embed", model.tying)
    return adapted | jax.tree.map(np.asarray, missing)
