"""Which images each side of the evaluation is measured on, and what they are.

"retain" and "forget" are held-out images. "forget_train" are the very images that the model was
asked to forget. A forget side that is a list of training images has no held-out images: then
"forget" are the listed images themselves, and "retain_train" are training images of the retain
side, so that like is compared with like. A set of training images has at most as many images as the
held-out set beside it, drawn with the seed, and as many of each class where there are enough.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from l2l_jax.data import splits
from l2l_jax.data.splits import Split
from l2l_jax.lib import config_dicts
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Source

HELD_OUT = ("retain", "forget")


def evaluated_sets(
    chosen: Mapping[str, Split], sources: Mapping[str, Source], seed: int
) -> dict[str, Split]:
    """{side: the images on which it is measured}: HELD_OUT, and then one side of training images.

    chosen: the splits of the run.
    """
    found = {side: chosen[f"{side}_eval"] for side in HELD_OUT if f"{side}_eval" in chosen}
    if "forget" not in found:
        return found
    side = "forget" if found["forget"].part == "eval" else "retain"
    if side in chosen:
        name = f"{side}_train"
        found[name] = _like(found["forget"], chosen[side], sources, name, seed)
    return found


def withheld(config: Mapping[str, Any], side: str) -> bool:
    """Whether no page may show the images of a side: those of a list of images to forget."""
    return side.startswith("forget") and config_dicts.withholds_forgotten(config)


def describe(
    found: Mapping[str, Split], chosen: Mapping[str, Split], trained: set[str]
) -> dict[str, dict[str, Any]]:
    """{side: {"part", "images", "of", "digest", "trained_on"}} of `evaluated_sets`.

    of: the images of the split that they are drawn from. trained: the splits that were trained on.
    """
    described = {}
    for side, split in found.items():
        origin = side.removesuffix("_train")
        whole = chosen[origin] if side != origin else chosen[f"{origin}_eval"]
        described[side] = {
            "part": split.part,
            "images": len(split.keys),
            "of": len(whole.keys),
            "digest": split.digest,
            "trained_on": split.part == "train" and origin in trained,
        }
    return described


def _like(
    held_out: Split, wanted: Split, sources: Mapping[str, Source], name: str, seed: int
) -> Split:
    """At most as many images of a split as another has: of the same classes, then of any."""
    source = sources[wanted.part]
    rows = np.random.default_rng(seed_of(seed, "evaluated", name)).permutation(wanted.indices)
    other = sources[held_out.part]
    classes = [other.classes[label] for label in other.labels[held_out.indices]]
    labels = np.array([source.classes[label] for label in source.labels[rows]])
    first = np.zeros(len(rows), bool)
    for each in dict.fromkeys(classes):
        first[np.flatnonzero(labels == each)[: classes.count(each)]] = True
    ordered = np.concatenate([rows[first], rows[~first]])
    return splits.pick(name, wanted.part, source, ordered[: len(held_out.keys)])
