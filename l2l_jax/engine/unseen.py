"""The stop "unseen": a phase ends when its forget images look like images that were never seen.

It ends when the mean loss on the forget images reaches that on never-seen images of the same
classes, both of the model as it is in that step, and over the masks of all tasks of the phase. The
never-seen images are the split `calibration` (config.split.calibration): held-out images that are
never evaluated, so that the figures of a report do not measure what was stopped on.

Losses of different images differ by more than the two means do, so a small sample would not show
where they meet. But in a step the losses of the same images under the same masks change in much the
same way, so that their change is known from few. The phase therefore measures once, at its start,

    gap = mean loss(forget) - mean loss(never seen)       over many pairs (PAIRS) for each task

and in every step

    over_unseen = gap + (change of the same difference of ROWS fixed pairs for each task)

Both are unbiased over the draw of the pairs and their masks. A pair is a forget image and a
never-seen image of its class with the same mask and draws of T. The images and masks of the fixed
pairs stay the same in all steps, and are those that the change since the start is measured with. A
list of fewer images is repeated, with other masks. A step costs 2 * ROWS * tasks forward passes
more: with three tasks and batches of 64 a fifth of the FLOPs of a step of the recipe `images` on
the bundled masked autoencoder. Where the phase ends, the gap is measured again over all pairs, and
noted.
"""

import functools
import logging
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data.images import at_size
from l2l_jax.data.splits import CALIBRATION
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import PhasePlan
from l2l_jax.engine.step import UNSEEN, UpdateRule, pair_losses
from l2l_jax.lib import pixels, sharding
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Array, Params

log = logging.getLogger(__name__)

ROWS = 16  # fixed pairs of each task that a step looks at, at least
PAIRS = 512  # pairs of each task at the start and at the end, at least
MOST_PAIRS = 2048  # so that longer lists cost no more
SIDES = ("forget", CALIBRATION)
NOTE = "unseen"  # key of the notes of a phase: {"start": means, "end": means, "offset"}


def check(experiment: Experiment, planned: PhasePlan) -> None:
    """ConfigError unless a phase with this stop has images to compare with.

    A warning if a list of images is to be forgotten without it, by a method that goes too far.
    """
    splits, name = experiment.splits, planned.name
    listed = experiment.config["split"]["forget"]["files"]
    if listed and planned.method.OVERSHOOTS and not planned.stop:
        log.warning(
            "%s: %s moves the images of a list far beyond never-seen ones, which shows that they "
            "were there (--config.%s.stop=%s ends it in time)",
            *(name, planned.method.name, name, UNSEEN),
        )
    if not planned.stop:
        return
    if "forget" not in splits:
        raise ConfigError(f"{name}.stop={UNSEEN} needs forget images, and there are none.")
    if not experiment.config["split"]["calibration"]:
        raise ConfigError(
            f"{name}.stop={UNSEEN} compares with never-seen images that are not evaluated: say how "
            "many held-out images of each class to set apart, as in --config.split.calibration=50."
        )
    there = splits[CALIBRATION].classes if CALIBRATION in splits else ()
    if missing := [each for each in splits["forget"].classes if each not in there]:
        raise ConfigError(
            f"{name}.stop={UNSEEN} finds no never-seen images of {', '.join(missing[:10])}: half "
            "of the held-out images of a class can be set apart. Hold out at least two images of "
            "each class, or leave stop empty."
        )


def abstract(experiment: Experiment, planned: PhasePlan) -> dict[str, jax.ShapeDtypeStruct] | None:
    """Shapes and dtypes of what `fixed` returns; None for a phase without this stop."""
    if not planned.stop:
        return None
    model, count = experiment.model, _rows(experiment, ROWS)
    shape, dtype = (count, model.image_size, model.image_size, 3), np.uint8
    if model.takes_tokens:
        shape, dtype = (count, *model.grid), np.int32
    sides = {side: jax.ShapeDtypeStruct(shape, dtype) for side in SIDES}
    return {**sides, "offset": jax.ShapeDtypeStruct((), np.float32)}


def fixed(rule: UpdateRule, experiment: Experiment, start: Params) -> dict[str, Array] | None:
    """What a step compares: {"forget", "calibration": the fixed pairs, "offset": a scalar}.

    over_unseen is the difference of the means of the pairs plus the offset, which is measured once
    and noted. start: all groups that the phase begins with. None for a phase without this stop.
    """
    if not rule.stop:
        return None
    rows, mesh = _rows(experiment, ROWS), experiment.mesh
    pairs = _pairs(rule, experiment, start, rows)
    noted = experiment.noted(rule.phase).get(NOTE)
    if noted is None:
        losses = _losses(rule, experiment, start)
        whole = _mean(losses)
        noted = {"start": whole, "offset": _gap(whole) - _gap(losses[0])}
        experiment.note(rule.phase, **{NOTE: noted})
    log.info("%s ends when the loss on forget images, %.4g, reaches that on never-seen images of "
             "their classes, %.4g", rule.phase, noted["start"]["forget"],
             noted["start"][CALIBRATION])  # fmt: skip
    offset = jax.device_put(jnp.float32(noted["offset"]), sharding.replicated(mesh))
    return {**pairs, "offset": offset}


def note_end(rule: UpdateRule, experiment: Experiment, result: Params) -> None:
    """Measures both losses where a phase with this stop ended, and notes them."""
    noted = experiment.noted(rule.phase).get(NOTE, {})
    if rule.stop and "end" not in noted:
        noted = noted | {"end": _mean(_losses(rule, experiment, result))}
        experiment.note(rule.phase, **{NOTE: noted})


def _rows(experiment: Experiment, least: int) -> int:
    """The smallest number of rows that all devices share equally."""
    return -(-least // experiment.mesh.size) * experiment.mesh.size


def _pairs(
    rule: UpdateRule, experiment: Experiment, params: Params, count: int, first: int = 0
) -> dict[str, Array]:
    """Pairs `first` to `first + count` on the mesh: {side: uint8 images, or tokens}."""
    chosen = _chosen(rule, experiment, first + count)
    place, size = sharding.batch_sharding(experiment.mesh), experiment.model.image_size
    found = {}
    for side in SIDES:
        source = experiment.sources[experiment.splits[side].part]
        found[side] = sharding.place(at_size(source, chosen[side][first:], size), place)
        if experiment.model.takes_tokens:
            unit = pixels.to_unit_range(found[side])
            tokenize = jax.jit(sharding.on(experiment.mesh, experiment.model.tokenize))
            found[side] = tokenize(params, unit)
    return found


def _chosen(rule: UpdateRule, experiment: Experiment, count: int) -> dict[str, list[int]]:
    """{side: rows of its source} of the first `count` pairs, in a seeded order that repeats."""
    forget, calibration = (experiment.splits[side] for side in SIDES)
    sources = [experiment.sources[split.part] for split in (forget, calibration)]
    rng = np.random.default_rng(seed_of(rule.seed, rule.phase, UNSEEN))
    listed = rng.permutation(forget.indices)
    label_of = {name: label for label, name in enumerate(sources[1].classes)}
    labels = sources[1].labels[calibration.indices]
    unseen = {name: rng.permutation(calibration.indices[labels == label_of[name]])
              for name in forget.classes}  # fmt: skip
    used: dict[str, int] = dict.fromkeys(unseen, 0)
    rows: dict[str, list[int]] = {side: [] for side in SIDES}
    for at in range(count):
        row = int(listed[at % len(listed)])
        name = sources[0].classes[sources[0].labels[row]]
        rows["forget"].append(row)
        rows[CALIBRATION].append(int(unseen[name][used[name] % len(unseen[name])]))
        used[name] += 1
    return rows


def _losses(rule: UpdateRule, experiment: Experiment, params: Params) -> list[dict[str, float]]:
    """{side: mean loss} of batches of pairs, under all tasks; the first batch are the fixed pairs.

    There are at least PAIRS pairs, and as many as forget images up to MOST_PAIRS.
    """
    size, listed = _rows(experiment, ROWS), len(experiment.splits["forget"].keys)
    losses = sharding.on(experiment.mesh, functools.partial(pair_losses, rule))
    program = jax.jit(losses, out_shardings=sharding.replicated(experiment.mesh))
    found = []
    for turn, first in enumerate(range(0, max(PAIRS, min(listed, MOST_PAIRS)), size)):
        pairs = _pairs(rule, experiment, params, size, first)
        values = jax.device_get(program(params, pairs, np.int32(turn)))
        found.append({side: float(values[side]) for side in SIDES})
    return found


def _mean(losses: list[dict[str, float]]) -> dict[str, float]:
    return {side: sum(each[side] for each in losses) / len(losses) for side in SIDES}


def _gap(losses: Mapping[str, float]) -> float:
    return losses["forget"] - losses[CALIBRATION]
