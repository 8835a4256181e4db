"""Whether the forgotten is still in one half of the model: encoders and decoders are exchanged.

What an encoder-only method leaves in the decoder is found by giving the decoder another encoder:
that of the original, or a new one. The new one starts from a random initialisation and is trained
on retain images only, with the model's own loss, while the decoder stays as it is; whatever
completes forget images then is in the decoder, since the new encoder never saw one.

Where the decoder is the original's bit for bit, "original encoder, own decoder" *is* the original,
and "own encoder, original decoder" is the model itself: neither says anything about forgetting, and
the sentence says so. Parts of two models that were trained apart, such as a retrained model's
decoder behind the original's encoder, do not fit each other; their low figure is no evidence. The
new encoder is the comparison that is fair to all. The exchange is this project's own audit; it has
no source.
"""

import jax
import numpy as np

from l2l_jax.lib import per_image
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.attacks import curve
from l2l_jax.lib.placement import Compared
from l2l_jax.types import Array, AuditFigure, Bounds, Finding, Findings, Params, Subject

TITLE = "Is it still in the encoder or the decoder alone?"
FIGURES = (
    AuditFigure("psnr", "PSNR of forget images", "dB", 2),
    AuditFigure("kept", "Share of a part's arrays that are the original's, bit for bit"),
)
SETS = ("forgotten", "retain_train")
COMPARES = ("original",)
COST = "trains a new encoder for 400 steps, for each variant"
TRAINS = True
ATTACKS = True
BOUNDS = {"steps": Bounds(0, 10**6), "lr": Bounds(0, 10)}
PARTS = ("encoder", "decoder")  # parameter groups of every model
NEW = {"encoder": "new", "decoder": "own"}


def audit(
    subject: Subject, *, steps: tuple[int, ...] = (0, 100, 400), lr: float = 1e-3
) -> Findings:
    """steps: when the new encoder is tried. lr: its learning rate."""
    images, original = subject.sets["forgotten"], subject.others["original"]
    found = curve(
        subject, subject.sets["retain_train"], images, steps, lr,
        start=subject.params | {"encoder": new_encoder(subject)}, groups=("encoder",),
    )  # fmt: skip
    for step, values in sorted(found, key=lambda each: -each[0]):
        yield subject.estimate("psnr", np.mean, values, at={**NEW, "steps": step})
    for part, other in (PARTS, PARTS[::-1]):
        exchanged = subject.params | {part: original[part]}
        values = subject.measure(per_image.psnr, images, params=exchanged)
        at = {part: "original", other: "own"}
        yield subject.estimate("psnr", np.mean, values, at=at)
    values = subject.measure(per_image.psnr, images)
    yield subject.estimate("psnr", np.mean, values, at=dict.fromkeys(PARTS, "own"))
    for part in PARTS:
        yield Finding("kept", equal_share(subject.params[part], original[part]), at={"part": part})


def new_encoder(subject: Subject) -> Params:
    """A random encoder on the mesh, the same for every variant."""
    placed = jax.tree.map(lambda x: x.sharding, subject.params["encoder"])
    made = jax.jit(lambda rng: subject.model.init(rng)["encoder"], out_shardings=placed)
    return made(rngs.key(subject.seed, "audit", "new encoder"))


def equal_share(one: Params, other: Params) -> float:
    """The share of the arrays that are equal to the last bit."""
    return float(np.mean(jax.device_get(_equal(jax.tree.leaves(one), jax.tree.leaves(other)))))


@jax.jit
def _equal(one: list[Array], other: list[Array]) -> list[Array]:
    """Whether each array of one list is equal to that of the other."""
    return [(x == y).all() for x, y in zip(one, other, strict=True)]


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    value = compared.value("unlearned", "psnr", **compared.headline["at"])
    aim = compared.reference("psnr", **compared.headline["at"])
    end = f" (behind the retrained decoder: {aim:.2f} dB)" if aim is not None else ""
    words = f"A new encoder that saw retain images only completes forget images at {value:.2f} dB"
    return f"{words}{end}. {_about_parts(compared)}"


def _about_parts(compared: Compared) -> str:
    """What the exchange of parts says, or why it says nothing."""
    for part, other in (PARTS[::-1], PARTS):
        if compared.value("unlearned", "kept", part=part) == 1:
            return (
                f'The {part} is the original\'s bit for bit: "original {other}, own {part}" is '
                "the original."
            )
    own = compared.value("unlearned", "psnr", **dict.fromkeys(PARTS, "own"))
    gains = {
        part: compared.value("unlearned", "psnr", **{part: "original", other: "own"}) - own
        for part, other in (PARTS, PARTS[::-1])
    }
    best = max(gains, key=lambda part: gains[part])
    return f"The original's {best} in place of its own changes them by {gains[best]:+.2f} dB."
