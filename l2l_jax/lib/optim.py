"""The optimizer of a phase, with linear warm-up and cosine decay of its learning rate.

AdamW is the default, as in the papers; lib/optimizers.py has others. A step of each is

    theta <- theta - lr (direction + weight_decay theta)

so the learning rate scales the decay, too, and the decay does not pass through the moments. Biases
and norm scales have no decay.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.optimizers import BOUNDS, DIRECTIONS
from l2l_jax.lib.signatures import check_args, keyword_defaults
from l2l_jax.types import Params

UNDECAYED = ("bias", "scale")
ADAMW = "adamw"
OF_ADAMW = ("b1", "b2", "eps")  # keys of the section that only AdamW reads
NAMES = (ADAMW, *DIRECTIONS)


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


def arguments(name: str) -> Callable[..., Any]:
    """A function whose keyword-only arguments are the keys of optimizer.args for that optimizer.

    ConfigError for a name that is not in NAMES.
    """
    if name not in NAMES:
        raise unknown_name("optimizer", name, NAMES)
    return (lambda: None) if name == ADAMW else DIRECTIONS[name]


def check(section: Mapping[str, Any], where: str) -> None:
    """ConfigError unless the optimizer exists and reads every key that is set.

    section: all keys of an optimizer section. where: its config key, for the message.
    """
    name = section["name"]
    check_args(arguments(name), section["args"], f"{where}.args", BOUNDS)
    defaults = keyword_defaults(make_optimizer)
    for key in OF_ADAMW:
        if name != ADAMW and section[key] != defaults[key]:
            known = ", ".join(keyword_defaults(arguments(name)))
            raise ConfigError(
                f"{where}.{key}={section[key]} is read by adamw alone. Set it to its default, "
                f"{defaults[key]}; {name} has its own arguments in {where}.args: {known}."
            )


def make_optimizer(
    *,
    steps: int,
    lr: int | float,
    name: str = ADAMW,
    args: Mapping[str, Any] | None = None,
    warmup: int | float = 0.05,
    final: int | float = 0.0,
    b1: int | float = 0.9,
    b2: int | float = 0.95,
    eps: int | float = 1e-8,
    weight_decay: int | float = 0.05,
    clip: int | float = 0.0,
) -> tuple[optax.GradientTransformationExtraArgs, optax.Schedule]:
    """(optimizer, learning rate by step) of a phase; the arguments are its optimizer section.

    The optimizer's `update` also takes `direction`: a function from parameters to the gradient of
    this step there, which only some optimizers call. ConfigError for a negative clip, an unknown
    name, and for what `schedule` refuses.
    """
    if not clip >= 0:
        raise ConfigError(
            f"optimizer.clip={clip} is the largest norm of a gradient, 0 or more; 0 sets no limit."
        )
    rate = schedule(lr=lr, warmup=warmup, final=final, steps=steps)
    make = arguments(name)
    if name == ADAMW:
        core = adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, clip=clip)
    else:
        core: Any = optax.chain(
            optax.clip_by_global_norm(clip) if clip else optax.identity(),
            make(**(args or {})),
            optax.add_decayed_weights(weight_decay, decay_mask),
            optax.scale_by_learning_rate(rate),
        )
    return optax.with_extra_args_support(core), rate
