"""The phases of the recipes; see use_method in configs/common.py, which calls them."""

from collections.abc import Callable
from typing import Any

from l2l_jax.engine import config as table

Config = Any  # an ml_collections.ConfigDict; type checkers do not know its attributes
Changed = Callable[..., dict[str, Any]]  # the settings of config.unlearn for another method

ONE_STEP = table.defaults(table.OPTIMIZER) | dict(  # the step is the solver's gradient
    name="sgd", lr=1.0, warmup=0.0, weight_decay=0.0
)
SIMPLE = dict(  # recipes of one phase: (method, settings that differ from those of config.unlearn)
    pcgrad=("l2l", dict(solver="pcgrad")),
    saliency=("l2l", dict(saliency=0.5)),  # by L2L's forget objective; SalUn: the training loss
    siss=("siss", dict(solver="normalized")),  # the forget gradient gets a tenth of the length
    uno=("max_loss", dict(args=dict(times=0.0), solver="uno")),
    conflict_free=("l2l", dict(solver="conflict_free")),
    slug=("max_loss", dict(args=dict(times=0.0), solver="slug", steps=1, optimizer=ONE_STEP)),
    erasediff=("erasediff", dict(solver="bilevel")),
    selective_amnesia=("selective_amnesia", dict(solver_args=dict(alpha=1.0))),
    retrack=("retrack", dict(solver_args=dict(alpha=1.0))),
)
CALIBRATION_IMAGES = 50  # of each class, for the recipe images
CERTIFIED_STEPS = 20  # noisy steps of the recipe certified


def _ascent(config: Config, unlearn: dict[str, Any], changed: Changed) -> dict[str, Any]:
    """The phases of the recipe ascent."""
    del config
    ascent = changed("ascent", solver_args=dict(alpha=1.0), optimizer=_slow(unlearn))
    return {"ascent": ascent, "finetune": changed("finetune")}


def _slow(unlearn: dict[str, Any]) -> dict[str, float]:
    """Optimizer settings of ascent: with the full rate one step would go far beyond lambda."""
    return dict(clip=1.0) | {key: unlearn["optimizer"][key] / 10 for key in ("lr", "final")}


def _adversarial_ascent(
    config: Config, unlearn: dict[str, Any], changed: Changed
) -> dict[str, Any]:
    """The phase of the recipe adversarial_ascent."""
    del config
    slow = dict(solver_args=dict(alpha=1.0), optimizer=_slow(unlearn))
    return {"unlearn": changed("adversarial_ascent", **slow)}


def _prune(config: Config, unlearn: dict[str, Any], changed: Changed) -> dict[str, Any]:
    """The phases of the recipe prune."""
    del config, unlearn
    removal = changed("prune", solver="remove_units", steps=1, optimizer=ONE_STEP)
    return {"prune": removal, "finetune": changed("finetune")}


def _safe_denoiser(config: Config, unlearn: dict[str, Any], changed: Changed) -> dict[str, Any]:
    """The phase of the recipe safe_denoiser, which stores one batch; for diffusion models only."""
    if config.model.name == "diffusion":
        config.model.args["negation"] = unlearn["batch_size"]
    once = dict(solver_args=dict(alpha=1.0), steps=1, accumulate=1, optimizer=ONE_STEP)
    return {"unlearn": changed("safe_denoiser", **once)}


def _epsilon(config: Config, unlearn: dict[str, Any], changed: Changed) -> dict[str, Any]:
    """The phases of the recipe epsilon."""
    del config, unlearn
    goals = dict(full_forgetting=dict(), tradeoff=dict(r=0.5))
    return {
        goal: changed("l2l", solver="epsilon", solver_args=dict(goal=goal, **args))
        for goal, args in goals.items()
    }


def _images(config: Config, unlearn: dict[str, Any], changed: Changed) -> dict[str, Any]:
    """The phase of the recipe images."""
    config.split.forget.update(dict(classes=(), random=0))
    config.split.calibration = CALIBRATION_IMAGES
    rate = unlearn["optimizer"]["lr"] / 3
    args, steady = dict(times=0.0, retain="match"), dict(lr=rate, final=rate, warmup=0.0)
    settings = dict(args=args, solver_args=dict(alpha=1.0), stop="unseen", optimizer=steady)
    return {"unlearn": changed("max_loss", **settings)}


def _certified(config: Config, unlearn: dict[str, Any], changed: Changed) -> dict[str, Any]:
    """The phases of the recipe certified."""
    rate = unlearn["optimizer"]["lr"]
    steady = dict(name="sgd", lr=rate, final=rate, warmup=0.0, weight_decay=0.0)
    plain = table.defaults(table.OPTIMIZER) | steady
    noisy = changed("finetune", solver="noisy", steps=CERTIFIED_STEPS, ema=0.0, saliency=1.0)
    finetune = changed("finetune")
    if "pretrain" in config.phases:
        kept = ("steps", "batch_size", "optimizer", "ema")
        finetune |= {key: config.pretrain.to_dict()[key] for key in kept}
    return {"noisy": noisy | dict(optimizer=plain), "finetune": finetune}


SEVERAL = dict(
    ascent=_ascent,
    adversarial_ascent=_adversarial_ascent,
    prune=_prune,
    safe_denoiser=_safe_denoiser,
    epsilon=_epsilon,
    images=_images,
    certified=_certified,
)
