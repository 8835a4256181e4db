"""Official files of Palette: names, schedule buffers, what their shapes tell."""

import dataclasses
import logging
import math
import re
from typing import Any

import numpy as np

from l2l_jax.lib import trees
from l2l_jax.lib.errors import WrongWeights
from l2l_jax.lib.names import official
from l2l_jax.lib.pure import Pure
from l2l_jax.models.layers import noise_schedule, unet
from l2l_jax.models.layers.noise_schedule import BUFFERS, Schedule

log = logging.getLogger(__name__)

FEW = 50  # steps of sampling, unless another number is asked for
NETWORK, TEACHER = "denoise_fn.", "teacher_denoise_fn."
OWN = "decoder_cond_embed"  # ours; officially D always shares E's embedding

NAMES = [*unet.names(NETWORK), *unet.embedding_names(OWN, "decoder/embed")]


def from_official(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An official state dict without the teacher's copy, which unlearning leaves in it, and the
    buffers of the schedule, which is an argument here."""
    return {k: v for k, v in state.items() if k not in BUFFERS and not k.startswith(TEACHER)}


def to_official(state: dict[str, np.ndarray], schedule: Schedule) -> dict[str, object]:
    """The content of an official file: a bare state dict with the buffers of the schedule.

    If the decoder's embedding of the level is no longer the encoder's, the official network, which
    shares it, decodes otherwise than this one: a warning says so, and the file holds it under a
    name of our own, which the official code (it loads without strict) passes over.
    """
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
    return state | schedule.buffers


def arguments(
    state: dict[str, np.ndarray], about: dict[str, Any], sizes: dict[str, unet.Size]
) -> dict[str, Any]:
    """The `build` arguments of an official state dict; about: what the user says.

    WrongWeights names every array that is missing.
    """
    for name in (f"{NETWORK}cond_embed.0.weight", f"{NETWORK}input_blocks.0.0.weight"):
        if name not in state:
            raise WrongWeights(f"This is no network as Palette saves it: it has no {name}.")
    size = _size(state, about, sizes)
    if missing := sorted(expected(size) - set(state)):
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        raise WrongWeights(
            f"This file lacks {len(missing)} arrays of the network that the others belong to: "
            f"{', '.join(missing[:20])}{more}. Nothing is made up in their place."
        )
    side = int(about.get("image_size", 256))
    args = _schedule(state, about) | {"image_size": side, "cell": math.gcd(side, 16)}
    if args["steps"] < FEW:
        args["sample_steps"] = 0
    for name, known in sizes.items():
        if known == size:
            return {"size": name, **args}
    return {"size": "published", **dataclasses.asdict(size), **args}


def _size(
    state: dict[str, np.ndarray], about: dict[str, Any], sizes: dict[str, unet.Size]
) -> unet.Size:
    """What the shapes tell; heads and groups as told, as of a known size, or 32 as published."""
    inputs, outputs = (_numbers(state, f"{NETWORK}{x}_blocks") for x in ("input", "output"))
    ups = [f"{NETWORK}output_blocks.{i}.{j}.in_layers.2.weight" for i in outputs for j in (1, 2)]
    levels = 1 + sum(name in state for name in ups)
    every = max(1, len(inputs) // levels)  # input blocks of a level, the one that shrinks included
    width = state[f"{NETWORK}cond_embed.0.weight"].shape[1]
    multipliers, attention = [], []
    for level in range(levels):
        block = f"{NETWORK}input_blocks.{1 + level * every}"
        kernel = state.get(f"{block}.0.in_layers.2.weight")
        multipliers.append(1 if kernel is None else kernel.shape[0] // width)
        attention += [1 << level] if f"{block}.1.qkv.weight" in state else []
    size = unet.Size(width, tuple(multipliers), max(1, every - 1), tuple(attention))
    hidden = {"head": about.get("head"), "groups": about.get("groups")}
    hidden = {name: value for name, value in hidden.items() if value}
    for known in sizes.values():
        alike = dataclasses.replace(size, head=known.head, groups=known.groups)
        if not hidden and alike == known:
            return known
    return dataclasses.replace(size, **hidden)


def _numbers(state: dict[str, np.ndarray], stack: str) -> list[int]:
    """The numbers of the blocks of a stack."""
    found = (re.match(rf"{re.escape(stack)}\.(\d+)\.", name) for name in state)
    return sorted({int(hit.group(1)) for hit in found if hit})


def _schedule(state: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The schedule of training as arguments: that of the buffers, or as told if there are none."""
    said = {k: about[k] for k in ("schedule", "steps", "beta_start", "beta_end") if k in about}
    ask = "say which it is: --set schedule=linear --set steps=2000 --set beta_start=1e-6 ..."
    if missing := [name for name in BUFFERS if name not in state]:
        if len(said) == 4:
            return said
        raise WrongWeights(
            f"This file lacks {', '.join(missing)} of its noise schedule; {ask} --set beta_end=0.01"
        )
    found = noise_schedule.recognise(state)
    if found is None and len(said) < 4:
        raise WrongWeights(f"The buffers of this file are of no noise schedule known here; {ask}")
    if found is None:
        return said
    return {
        "schedule": found.name,
        "steps": found.steps,
        "beta_start": found.start,
        "beta_end": found.end,
    }


def expected(size: unet.Size) -> set[str]:
    """Every official name of a network of this size."""
    encoder = Pure(lambda rngs: unet.Encoder(size, np.float32, False, rngs))
    decoder = Pure(lambda rngs: unet.Decoder(size, False, np.float32, False, rngs))
    template = {"encoder": encoder.template, "decoder": decoder.template}
    return {official(name, NAMES) for name in trees.flatten(template)}
