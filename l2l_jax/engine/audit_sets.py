"""The images that audits use: the same for every variant, chosen before anything is trained.

    forget_train    the very images to forget
    forget_eval     held-out images of their classes, which nothing was trained on
    retain_train    images that the model may keep
    retain_eval     held-out images of the other side
    other           images of a data set that nothing was trained on: config.data.other
    forgotten       those on which one sees whether forgetting holds: forget_eval, or forget_train
                    for a list

If the forget side is a list of images, their classes stay. Then the held-out images of the classes
are divided between forget_eval and retain_eval: unseen images that are to stay as they are.
"""

from collections.abc import Mapping

import numpy as np

from l2l_jax.data import class_selection
from l2l_jax.data.images import at_size
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import Plan
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import ImageSet, Source

OTHER = "other"  # the set, and the name of its source
FORGOTTEN = "forgotten"
Rows = Mapping[str, tuple[Source, np.ndarray]]  # {set: (source, rows of it)}


def load(experiment: Experiment, wanted: set[str]) -> dict[str, ImageSet]:
    """{name: images} of those sets that the run has; at most config.audit.images of each.

    They are drawn with the seed of the run, evenly over the classes.
    """
    limit, seed = experiment.config["audit"]["images"], experiment.plan.seed
    size, found = experiment.model.image_size, {}
    listed = experiment.config["split"]["forget"]["files"]
    forgotten = "forget_train" if listed else "forget_eval"
    for name, (source, rows) in available(experiment).items():
        if name in wanted or (name == forgotten and FORGOTTEN in wanted):
            chosen = class_selection.balanced(
                source.labels[rows], limit, seed_of(seed, "audit", name)
            )
            images = at_size(source, rows[chosen], size)
            classes = tuple(source.classes[source.labels[row]] for row in rows[chosen])
            found[name] = ImageSet(name, images, classes)
    if FORGOTTEN in wanted and forgotten in found:
        found[FORGOTTEN] = found[forgotten]
    return {name: images for name, images in found.items() if name in wanted}


def available(experiment: Experiment) -> Rows:
    """All images of every set that the run has."""
    splits, sources = experiment.splits, experiment.sources
    rows = {}
    for name in ("forget", "retain"):
        if name in splits:
            rows[f"{name}_train"] = (sources[splits[name].part], splits[name].indices)
    if "retain" not in splits and "proxy" in splits:
        rows["retain_train"] = (sources[splits["proxy"].part], splits["proxy"].indices)
    held_out = {name: splits[f"{name}_eval"] for name in ("forget", "retain")
                if f"{name}_eval" in splits}  # fmt: skip
    for name, split in held_out.items():
        if split.part == "eval":
            rows[f"{name}_eval"] = (sources["eval"], split.indices)
    if "forget" in held_out and held_out["forget"].part != "eval" and "retain_eval" in rows:
        rows |= _divided(experiment, rows["retain_eval"][1])
    if OTHER in sources:
        rows[OTHER] = (sources[OTHER], np.arange(len(sources[OTHER].keys)))
    return rows


def reads_other(plan: Plan) -> bool:
    """Whether an audit of the plan uses images of another data set."""
    audits = [planned.audit for planned in plan.audits.values()]
    return any(OTHER in audit.SETS + audit.OPTIONAL for audit in audits)


def _divided(experiment: Experiment, held_out: np.ndarray) -> Rows:
    """forget_eval: at most half of the held-out images of every listed class; the rest: retain."""
    source = experiment.sources["eval"]
    listed = set(experiment.splits["forget"].classes)
    labels = np.array([source.classes[label] for label in source.labels[held_out]])
    mixed = np.random.default_rng(seed_of(experiment.plan.seed, "audit", "list")).permutation(
        len(held_out)
    )
    taken = np.concatenate(
        [mixed[:0]]
        + [(mine := mixed[labels[mixed] == name])[: (len(mine) + 1) // 2] for name in listed]
    )
    rest = np.setdiff1d(np.arange(len(held_out)), taken)
    return {
        "forget_eval": (source, held_out[np.sort(taken)]),
        "retain_eval": (source, held_out[rest]),
    }
