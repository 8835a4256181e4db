"""Subjects of audits: small untrained models in memory, on synthetic images."""

import functools
import tempfile
from pathlib import Path

import jax
import numpy as np

from l2l_jax.engine import audit_sets
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.subject import Examination, Laboratory
from l2l_jax.lib.placement import Compared, compare
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.registry import find
from l2l_jax.types import IMAGE_SETS, ImageSet
from tests.helpers import small_config

VARIANTS = ("original", "unlearned", "retrained", "retrained_2")


@functools.cache
def laboratory(model="autoencoder"):
    """The programs of a run of the smallest model, of which nothing has been trained."""
    config = small_config()
    config.model = dict(name=model, args=dict(find("model", model).SMALLEST))
    config.data.other.name = "digits"
    config.audit.images, config.audits = 16, ("distinguish",)  # it needs `other`
    experiment = preflight(resolve(config), Path(tempfile.mkdtemp()) / "run", StopSignal())
    return Laboratory(experiment)


@functools.cache
def sets(model="autoencoder"):
    """All sets of images of that run."""
    return audit_sets.load(laboratory(model).experiment, set(IMAGE_SETS))


@functools.cache
def random_params(model="autoencoder", seed=0):
    """Parameters that nothing has trained, on the mesh."""
    experiment = laboratory(model).experiment
    return jax.jit(experiment.model.init, out_shardings=experiment.shardings)(jax.random.key(seed))


def subject(audit, variant="unlearned", params=None, model="autoencoder", **images):
    """The variant under an audit; params: {variant: parameters}; images: sets that are replaced."""
    params = params or {name: random_params(model, at) for at, name in enumerate(VARIANTS)}
    others = {
        name: value
        for name, value in params.items()
        if name in audit.COMPARES or (name != variant and name.partition("_")[0] in audit.COMPARES)
    }
    used = audit.SETS + audit.OPTIONAL
    chosen = {name: images.get(name, sets(model)[name]) for name in used}
    return Examination(laboratory(model), variant, params[variant], others, chosen)


def findings(name, variant="unlearned", params=None, model="autoencoder", images=None, **args):
    """{(figure, place): finding} of an audit."""
    audit = find("audit", name)
    made = subject(audit, variant, params, model, **(images or {}))
    return {(x.figure, tuple(x.at.items())): x for x in audit.audit(made, **args)}


def compared(found):
    """Findings of several variants as the page is given them: {variant: findings}."""
    places = list(next(iter(found.values())))
    assert all(list(each) == places for each in found.values()), "variants differ in their places"
    rows = [compare({name: each[place] for name, each in found.items()}, 0) for place in places]
    return Compared(rows)


def pictures(count, side=16, seed=0, name="forget_train"):
    """Random images of one class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    return ImageSet(name, images, ("class",) * count)
