"""Official files of Palette: names, schedule buffers, what their shapes tell."""

import dataclasses
import logging
import math
import re
from typing import Any

import jax
import numpy as np

from l2l_jax.lib import trees
from l2l_jax.lib.errors import WrongWeights
from l2l_jax.lib.nnx_pure import Pure
from l2l_jax.models.diffusion import SAMPLE_STEPS, SIZES, Diffusion
from l2l_jax.models.layers import noise_schedule, unet
from l2l_jax.models.layers.noise_schedule import BUFFERS, Schedule
from l2l_jax.types import Params
from l2l_jax.weights.formats._layers import embedding_names, unet_names
from l2l_jax.weights.name_map import official

log = logging.getLogger(__name__)

GROUPS = 32  # of every official normalisation
NETWORK, TEACHER = "denoise_fn.", "teacher_denoise_fn."
OWN = "decoder_cond_embed"  # ours; officially D always shares E's embedding

NAMES = [*unet_names(NETWORK), *embedding_names(OWN, "decoder/embed")]

AMBIGUOUS = ("head", "groups")  # if they are not the published 32


def from_torch(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An official state dict without the teacher's copy, which unlearning leaves in it, and the
    buffers of the schedule, which is an argument here."""
    return {k: v for k, v in state.items() if k not in BUFFERS and not k.startswith(TEACHER)}


def to_torch(state: dict[str, np.ndarray], model: Diffusion) -> dict[str, Any]:
    """The content of an official file: a bare state dict with the buffers of the schedule.

    The official network has 32 groups in every normalisation: a warning tells of others. If the
    decoder's embedding of the level is no longer the encoder's, the official network, which shares
    it, decodes otherwise than this one: a warning says so, and the file holds it under a name of
    our own, which the official code (it loads without strict) passes over.
    """
    groups = model.size.groups
    if groups != GROUPS:
        log.warning(
            "The official network normalises in %d groups, this one in %d: the official code "
            "cannot be it. To read the file here again, say --set groups=%d if its size is not "
            "one of those known by name.",
            *(GROUPS, groups, groups),
        )
    own = {k: v for k, v in state.items() if k.startswith(OWN)}
    shared = {k: state[k.replace(OWN, f"{NETWORK}cond_embed")] for k in own}
    state = {k: v for k, v in state.items() if k not in own}
    if any(not np.array_equal(own[k], shared[k]) for k in own):
        log.warning(
            "The decoder's embedding of the noise level is not the encoder's any more. The "
            "official code shares it, so that there this model decodes otherwise; the file holds "
            "it beside the rest."
        )
        state |= own
    return state | model.schedule.buffers


def infer_args(state: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The `build` arguments of an official state dict; about: what the user says.

    WrongWeights names every array that is missing.
    """
    if not any(name.startswith(NETWORK) for name in state):
        raise WrongWeights(f"This is no file of Palette: no name in it begins with {NETWORK}")
    size = _size(state, about)
    if missing := sorted(expected(size) - set(state)):
        known = size in SIZES.values()
        which = "that the others belong to" if known else "the others tell of, of no size known"
        raise WrongWeights(
            f"This file lacks {len(missing)} arrays of the network {which}; nothing is made up in "
            f"their place. Missing: {', '.join(missing)}."
        )
    side = int(about.get("image_size", 256))
    args = _schedule(state, about) | {"image_size": side, "cell": math.gcd(side, 16)}
    if args["steps"] < SAMPLE_STEPS:
        args["sample_steps"] = 0
    for name, known in SIZES.items():
        if known == size:
            return {"size": name, **args}
    return {"size": "published", **dataclasses.asdict(size), **args}


def _size(state: dict[str, np.ndarray], about: dict[str, Any]) -> unet.Size:
    """What names and shapes tell; head and groups as told, of a known size, or 32 as published.

    Of a file that lacks something: the size, known or told, that the fewest names speak against.
    """
    names = {name for name in state if name.startswith(NETWORK)}
    size = _told(state)
    alike = [known for known in SIZES.values() if known.width == size.width]
    if expected(size) != names:
        size = min([*alike, size], key=lambda each: len(expected(each) ^ names))
    hidden = {key: about[key] for key in ("head", "groups") if about.get(key)}
    for known in alike:
        if not hidden and dataclasses.replace(size, head=known.head, groups=known.groups) == known:
            return known
    return dataclasses.replace(size, **hidden)


def _told(state: dict[str, np.ndarray]) -> unet.Size:
    """The size that the arrays which are there tell, if not too many are missing.

    Both stacks have as many blocks; a level of the decoder but the last ends in two residual ones.
    """
    pattern = rf"{re.escape(NETWORK)}(input|output)_blocks\.(\d+)\.(\d)\.(\w+)"
    hits = [hit.groups() for hit in (re.match(pattern, name) for name in state) if hit]
    count = 1 + max((int(block) for _, block, *_ in hits), default=0)
    ups = {b for stack, b, at, name in hits if stack == "output" and at != "0" and "layers" in name}
    every = max(2, -(-count // (1 + len(ups))))  # input blocks of a level, the one that shrinks too
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
    multipliers = [max(1, found[0] // width) if found else 1 for found in level]
    attending = {int(b) for stack, b, _, name in hits if (stack, name) == ("input", "qkv")}
    attention = sorted({1 << ((block - 1) // every) for block in attending})
    return unet.Size(width, tuple(multipliers), every - 1, tuple(attention))


def _schedule(state: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The schedule of training as arguments: that of the buffers, or as told if there are none."""
    said = {k: about[k] for k in ("schedule", "steps", "beta_start", "beta_end") if k in about}
    bounds = noise_schedule.BOUNDS.get(about.get("schedule"), ("start", "end"))
    told = said.keys() >= {"schedule", "steps", *(f"beta_{bound}" for bound in bounds)}
    ask = "say which it is: --set schedule=linear --set steps=2000 --set beta_start=1e-6 ..."
    if missing := [name for name in BUFFERS if name not in state]:
        if told:
            return said
        raise WrongWeights(
            f"This file lacks {', '.join(missing)} of its noise schedule; {ask} --set beta_end=0.01"
        )
    found = noise_schedule.infer_schedule(state)
    if found is None and not told:
        raise WrongWeights(f"The buffers of this file are of no noise schedule known here; {ask}")
    if found is None:
        return said
    held = {"schedule": found.name, "steps": found.steps}
    held |= {"beta_start": found.start, "beta_end": found.end}
    as_said = Schedule(*(held | said).values())
    if as_said.steps != found.steps or not np.allclose(as_said.betas, found.betas, 1e-4):
        wrong = {k: x for k, x in said.items() if x != held[k]}
        raise WrongWeights(
            f"The schedule of this file is {found.description} in {found.steps} steps, and "
            f"not one of {', '.join(f'{k}={x}' for k, x in wrong.items())}; leave that out."
        )
    return held


def expected(size: unet.Size) -> set[str]:
    """Every official name of a network of this size, whatever its heads and groups."""
    size = dataclasses.replace(size, head=1, groups=1)
    encoder = Pure(lambda rngs: unet.Encoder(size, np.float32, False, rngs))
    decoder = Pure(lambda rngs: unet.Decoder(size, False, np.float32, False, rngs))
    template = {"encoder": encoder.template, "decoder": decoder.template}
    return {official(name, NAMES) for name in trees.flatten(template)}


def adapt(params: Params, model: Diffusion) -> Params:
    """Parameters of a file for this model: a decoder that owns its embedding gets a copy of it."""
    encoder, decoder = params.get("encoder", {}), dict(params.get("decoder", {}))
    shared, own = encoder.get("embed"), decoder.get("embed")
    if model.tying == "frozen" and own is None and shared is not None:
        decoder["embed"] = shared
    if model.tying == "tied" and None not in (own, shared) and _same(own, shared):
        del decoder["embed"]
    return params | {"decoder": decoder}


def _same(a: Params, b: Params) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))
