"""Whether a change of the stored numbers brings the forgotten back.

The parameters are rounded to fewer bits (int8, int4, bfloat16: what accelerators and phones run),
the smallest are set to zero (pruning), or the model is moved towards the original or away from it.
Held-out forget images are then completed. Only differences to the unchanged model matter; the
retrained model is changed in the same way. Source: arXiv 2410.16454 (quantisation).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.lib import per_image
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.placement import Compared
from l2l_jax.types import Array, AuditFigure, Bounds, Findings, Params, Subject

TITLE = "Does it come back when the numbers are rounded, pruned or mixed?"
FIGURES = (AuditFigure("psnr", "PSNR of forget images", "dB", 2),)
SETS = ("forgotten",)
COMPARES = ("original",)
ATTACKS = True
COST = "completions of one set for each change"
QUICK = {"rounded": ("bfloat16", "int8", "int4"), "pruned": (), "mixed": ()}
BOUNDS = {
    "rounded": Bounds(choices=("bfloat16", "int8", "int4")),
    "pruned": Bounds(0, 1),
    "mixed": Bounds(-10, 10),
}
TRAINED = ("encoder", "decoder")  # the groups that are changed


def audit(
    subject: Subject,
    *,
    rounded: tuple[str, ...] = ("bfloat16", "int8", "int4"),
    pruned: tuple[float, ...] = (0.1, 0.3, 0.5),
    mixed: tuple[float, ...] = (-0.5, 0.1, 0.25, 0.5),
) -> Findings:
    """pruned: shares of each array that are set to zero. mixed: shares t of the original.

    A mixed model is (1 - t) times the model plus t times the original; below 0 it moves away.
    """
    params, original = subject.params, subject.others["original"]
    own, other = (
        {group: tree[group] for group in TRAINED if group in tree} for tree in (params, original)
    )
    changes: dict[str, Params] = {}
    for name in rounded:
        changes[name] = params | all_rounded(own, name)
    for share in pruned:
        changes[f"pruned {share:g}"] = params | all_pruned(own, share)
    for share in mixed:
        changes[f"mixed {share:g}"] = params | mix(own, other, share)
    images = subject.sets["forgotten"]
    strongest = [name for name in ("int4", "int8") if name in changes]
    for name in sorted(changes, key=lambda name: name not in strongest[:1]):
        values = subject.measure(per_image.psnr, images, params=changes[name])
        yield subject.estimate("psnr", np.mean, values, at={"change": name})
    values = subject.measure(per_image.psnr, images)
    yield subject.estimate("psnr", np.mean, values, at={"change": "none"})


@functools.partial(jax.jit, static_argnums=1)
def all_rounded(groups: Params, kind: str) -> Params:
    """Every array rounded; see round_to."""
    return jax.tree.map(lambda x: round_to(x, kind), groups)


@jax.jit
def all_pruned(groups: Params, share: Array | float) -> Params:
    """Every array pruned; see prune."""
    return jax.tree.map(lambda x: prune(x, share), groups)


def round_to(x: Array, kind: str) -> Array:
    """float32 values rounded to what the type holds; integers have one scale for each last axis."""
    if kind == "bfloat16":
        return x.astype(jnp.bfloat16).astype(x.dtype)
    if kind not in ("int8", "int4"):
        raise ConfigError(f"precision: there is no rounding to {kind!r}.")
    if x.ndim < 2:
        return x  # biases and norm scales stay as they are, as in practice
    most = 127 if kind == "int8" else 7
    axes = tuple(range(x.ndim - 1))
    scale = jnp.maximum(jnp.max(jnp.abs(x), axis=axes, keepdims=True), 1e-12) / most
    return jnp.round(x / scale) * scale


def prune(x: Array, share: Array | float) -> Array:
    """The array with the smallest magnitudes set to zero: this share of its values."""
    if x.ndim < 2:
        return x
    return jnp.where(jnp.abs(x) < jnp.quantile(jnp.abs(x), share), 0, x)


@jax.jit
def mix(groups: Params, other: Params, share: Array | float) -> Params:
    """(1 - share) * groups + share * other."""
    return jax.tree.map(lambda x, y: (1 - share) * x + share * y, groups, other)


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    plain = compared.value("unlearned", "psnr", change="none")
    rows = [row for row in compared.rows if row["at"]["change"] != "none"]
    moves = {row["at"]["change"]: row["values"]["unlearned"]["value"] - plain for row in rows}
    most = max(moves, key=lambda name: moves[name])
    if moves[most] < 0.005:
        return "No such change brings anything back."
    return f"The change that brings back most is {most}: {moves[most]:+.2f} dB."
