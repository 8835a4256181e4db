"""AdamW with linear warm-up and cosine decay of the learning rate, as in the papers."""

import jax
import optax

from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Params

UNDECAYED = ("bias", "scale")


def schedule(
    *, lr: int | float, warmup: int | float, final: int | float, steps: int
) -> optax.Schedule:
    """Learning rate by step: linear from 0 to lr, then half a cosine down to final.

    warmup: the fraction of the steps that the linear part takes. ConfigError unless 0 <= warmup < 1
    and steps >= 1.
    """
    if not 0 <= warmup < 1 or steps < 1:
        raise ConfigError(
            "optimizer.warmup is the share of the steps that warm up, 0 <= warmup < 1, and steps "
            f"is at least 1; got warmup={warmup}, steps={steps}."
        )
    warmup_steps = round(warmup * steps)
    start = 0.0 if warmup_steps else lr
    end = max(steps, warmup_steps + 1)
    return optax.warmup_cosine_decay_schedule(start, lr, warmup_steps, end, final)


def decay_mask(params: Params) -> Params:
    """A tree of bools: whether weight decay acts on the leaf. Not on biases and norm scales."""
    DictKey = jax.tree_util.DictKey

    def is_decayed(path: tuple, _: object) -> bool:
        return not (isinstance(path[-1], DictKey) and path[-1].key in UNDECAYED)

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def adamw(
    learning_rate: optax.Schedule,
    *,
    b1: int | float,
    b2: int | float,
    eps: int | float,
    weight_decay: int | float,
    clip: int | float,
) -> optax.GradientTransformation:
    """AdamW with decoupled weight decay, which the learning rate scales.

    clip: if > 0, the gradient is first scaled down to at most this global norm.
    """
    core = optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=decay_mask)
    return optax.chain(optax.clip_by_global_norm(clip), core) if clip else core


def make_optimizer(
    *,
    steps: int,
    lr: int | float,
    warmup: int | float = 0.05,
    final: int | float = 0.0,
    b1: int | float = 0.9,
    b2: int | float = 0.95,
    eps: int | float = 1e-8,
    weight_decay: int | float = 0.05,
    clip: int | float = 0.0,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """(optimizer, learning rate by step) of a phase; the arguments are its optimizer section.

    ConfigError for a negative clip and for what `schedule` refuses.
    """
    if not clip >= 0:
        raise ConfigError(
            f"optimizer.clip={clip} is the largest norm of a gradient, 0 or more; 0 sets no limit."
        )
    rate = schedule(lr=lr, warmup=warmup, final=final, steps=steps)
    return adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, clip=clip), rate
