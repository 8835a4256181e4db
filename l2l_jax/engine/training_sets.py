"""Which images each phase trains on, and how often it sees them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from l2l_jax.data import splits
from l2l_jax.data.splits import Split
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import Plan
from l2l_jax.lib.errors import ConfigError


def training_splits(experiment: Experiment, phase: str) -> dict[str, Split]:
    """{side: split} for each side that the phase's method uses, e.g. {"retain", "forget"}.

    ConfigError for a side that is empty, and if both retain and proxy images are given and the
    phase does not say which of them it trains on.
    """
    planned, available = experiment.plan.phases[phase], dict(experiment.splits)
    sides = planned.method.SIDES
    if planned.on == "retain" and "retain" in sides and "proxy" in available:
        raise ConfigError(
            f"Both retain and proxy images are given, and phase {phase!r} trains on one of "
            f"them: say --config.{phase}.on=proxy (retain is then only evaluated), or leave "
            "config.split.proxy and config.data.proxy.name empty."
        )
    if planned.on == "proxy":
        available.pop("retain", None)
        if "proxy" in available:
            available["retain"] = available["proxy"]
    if planned.on == "all":
        names = [side for side in own_sides(experiment.plan) if side in experiment.splits]
        rows = np.hstack([experiment.splits[name].indices for name in names])
        available["retain"] = splits.pick("all", "train", experiment.sources["train"], rows)
    for side in sides:
        if side not in available:
            name = "proxy" if (side, planned.on) == ("retain", "proxy") else side
            raise ConfigError(
                f"The {name} set is empty, and the method {planned.method.name!r} of phase "
                f"{phase!r} needs it. Say what is in it: --config.split.{name}.classes=..., "
                f".files=... or .random=N."
            )
    return {side: available[side] for side in sides}


def own_sides(plan: Plan) -> tuple[str, ...]:
    """The sides that on="all" means: those of the data set that is unlearned."""
    other = splits.PROXY if plan.proxy else ""
    return tuple(side for side in splits.SIDES if side != other)


def passes(experiment: Experiment, phase: str, steps: int | None = None) -> dict[str, Any]:
    """{side: {"split", "digest", "images", "passes"}}: how often each image is seen on average.

    A step draws batch_size images of each side, and each side goes through epochs of its own:
    nothing is seen more often to make the sides equal. steps: those done; None: all of the phase.
    """
    planned, described = experiment.plan.phases[phase], {}
    seen = planned.batch_size * (planned.steps if steps is None else steps)
    for side, split in training_splits(experiment, phase).items():
        count = len(split.keys)
        described[side] = {"split": split.name, "digest": split.digest, "images": count}
        described[side]["passes"] = seen / count
    return described


def trained_on(plan: Plan, available: Mapping[str, Any]) -> set[str]:
    """The splits that some phase trains on; what made the weights is not known.

    available: the splits that there are, by name.
    """
    names: set[str] = set()
    for planned in plan.phases.values():
        sides = set(planned.method.SIDES)
        if "retain" in sides and planned.on == "all":
            sides = set(own_sides(plan))
        elif "retain" in sides:
            sides = sides - {"retain"} | {planned.on}
        names |= sides & available.keys()
    return names
