"""Whether images like those to forget are among the images that are kept, or evaluated.

An image to forget that has a copy among the retain images cannot be forgotten: the model goes on
learning it. One that has a copy in the evaluation sets makes their figures mean something else.
Exact copies have equal pixels. Near copies have difference hashes (dHash: 64 bits, whether each of
8 x 8 places of the grey image, made small, is darker than its right neighbour) that differ in at
most 4 bits, without being equal.

The audit looks at the images of the sets that it is given, of the size that the model sees; there
are at most config.audit.images of each, so that copies among the others are not found. (A run
refuses exact copies among all of its images, unless split.duplicates=allow.) The hash knows only
large shapes: on small images of few kinds, such as clothes on a black ground, many different images
are near copies. The figures do not depend on the model and are the same for every variant.
"""

import hashlib

import numpy as np
from jaxtyping import Bool, UInt8

from l2l_jax.data.duplicates import hashes
from l2l_jax.lib.placement import Compared
from l2l_jax.types import AuditFigure, Bounds, Finding, Findings, Subject

TITLE = "Are copies of the images to forget among those that stay?"
FIGURES = (
    AuditFigure("exact", "Images to forget with a copy of equal pixels", "images", 0),
    AuditFigure("near", "Images to forget with a near copy", "images", 0),
)
SETS = ("forget_train", "retain_train", "retain_eval", "forget_eval")
COST = "no model is run"
BOUNDS = {"bits": Bounds(0, 64)}
Pictures = UInt8[np.ndarray, "N H W 3"]


def audit(subject: Subject, *, bits: int = 4) -> Findings:
    """bits: in how many of 64 bits the hashes of near copies differ at most."""
    asked = subject.sets["forget_train"].images
    for name in SETS[1:]:
        exact, near = copies(asked, subject.sets[name].images, bits)
        yield Finding("exact", float(exact.sum()), at={"in": name})
        yield Finding("near", float(near.sum()), at={"in": name})


def copies(
    asked: Pictures, others: Pictures, bits: int
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """(which of the images have an exact copy among the others, which have a near one)."""
    one, two = (np.array([_digest(image) for image in images]) for images in (asked, others))
    equal = one[:, None] == two
    one, two = hashes(asked), hashes(others)
    apart = np.array([np.sum(two != each, axis=1) for each in one]).reshape(equal.shape)
    return equal.any(axis=1), ((apart <= bits) & ~equal).any(axis=1)


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    exact, near = (
        compared.value("unlearned", figure, **{"in": "retain_train"})
        for figure in ("exact", "near")
    )
    return (
        f"Of the images to forget that were looked at, {exact:.0f} have an exact copy among the "
        f"retain images that were looked at, and {near:.0f} one that looks alike in large shapes."
    )
