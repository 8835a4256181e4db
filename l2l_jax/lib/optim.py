"""AdamW with linear warm-up and a half cosine, as the papers train."""

import jax
import optax

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Params

UNDECAYED = ("bias", "scale")


def schedule(*, lr: float, warmup: float, final: float, steps: int) -> optax.Schedule:
    """Learning rate by step: 0 -> lr over the first `warmup` share, then a half cosine to final."""
    if not 0 <= warmup < 1 or steps < 1:
        raise ConfigError(
            "optimizer.warmup is the share of the steps that warm up, 0 <= warmup < 1, and steps "
            f"is at least 1; got warmup={warmup}, steps={steps}."
        )
    warm = round(warmup * steps)
    start = 0.0 if warm else lr
    return optax.warmup_cosine_decay_schedule(start, lr, warm, max(steps, warm + 1), final)


def decayed(params: Params) -> Params:
    """True for the leaves that weight decay acts on: all but biases and norm scales."""
    leaf = jax.tree_util.DictKey
    named = jax.tree_util.tree_map_with_path

    def last(path: tuple, _: object) -> bool:
        return not (isinstance(path[-1], leaf) and path[-1].key in UNDECAYED)

    return named(last, params)


def adamw(
    learning_rate: optax.Schedule,
    *,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    clip: float,
) -> optax.GradientTransformation:
    """AdamW (decoupled decay, scaled by the learning rate); clip > 0 bounds the norm first."""
    core = optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(clip), core) if clip else core


def make(
    *,
    steps: int,
    lr: float,
    warmup: float = 0.05,
    final: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.05,
    clip: float = 0.0,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer section of a phase as an optimizer and its learning rate."""
    if not clip >= 0:
        raise ConfigError(f"optimizer.clip={clip} is the largest norm of a gradient; 0: any.")
    rate = schedule(lr=lr, warmup=warmup, final=final, steps=steps)
    return adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, clip=clip), rate
