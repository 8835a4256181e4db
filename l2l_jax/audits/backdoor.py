"""Whether unlearning removes what an attacker planted through the images to forget.

The attacker poisons images that somebody later asks to forget. A share of them are stamped: they
carry a small chequered patch where the headline task leaves pixels visible, and a fixed picture in
its hole. The original is trained on these and on retain images, with its own loss, for a stated
number of steps: it learns to paint the picture wherever it sees the patch. This is the poisoned
source. The run's own unlearning then forgets the poisoned images. The attack has survived if
stamped retain images are still completed to the picture; unstamped ones show how close completions
come without the patch.

The columns of the table mean here

    original     the poisoned source
    unlearned    the poisoned source after the run's own unlearning
    retrained    a retrained model after as many steps on the retain images alone: never poisoned

so that the scale reads as always: 0 = like a model that never saw the poison. The other poisoned
images carry Gaussian noise in place of the patch: a source that learned them has a lower loss in
the direction of that noise, which the slope of its loss at the clean image shows (its inner product
with the noise, both of length 1, times the root of their dimension, minus the same for noise that
nobody trained on; about 0 for a model that never saw the noise, above 0 for one that did). Models
that read tokens have no such slope.

The attack is that of Varshney and Torra (arXiv 2502.04260), whose protocol is not published: this
one is ours. The noise test follows arXiv 2406.17216. The audit trains models of its own and says
more about the method than about the finished model; it runs only if it is named.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from l2l_jax.lib import per_image
from l2l_jax.lib.attacks import joined
from l2l_jax.lib.errors import CannotRun
from l2l_jax.lib.placement import Compared
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import (
    AuditFigure,
    Batch,
    Bounds,
    Findings,
    Images,
    ImageSet,
    ImageToImage,
    Params,
    PerImage,
    Rng,
    Subject,
)

TITLE = "Does unlearning remove a planted backdoor?"
FIGURES = (
    AuditFigure("closeness", "PSNR of completions to the attacker's picture", "dB", 2),
    AuditFigure("noise", "Slope of the loss along planted noise"),
)
SETS = ("forget_train", "retain_train", "retain_eval")
COMPARES = ("original",)
READS = ("unlearning",)
TRAINS = True
ATTACKS = True
BY_NAME_ONLY = True
COST = "trains a poisoned model for 400 steps and unlearns it in 100, for each variant"
BOUNDS = {
    "share": Bounds(0, 1, open_low=True),
    "steps": Bounds(1, 10**6),
    "unlearn_steps": Bounds(1, 10**6),
    "lr": Bounds(0, 10),
    "noise": Bounds(0, 1),
}
Pictures = UInt8[np.ndarray, "N H W 3"]
Hidden = Bool[np.ndarray, "N H W 1"]
COLOURS = np.array([[255, 0, 255], [0, 255, 0]], np.uint8)  # of the squares of the picture
FEWEST_VISIBLE = 0.5  # share of the patch's pixels that the headline task shows, on average


def audit(
    subject: Subject,
    *,
    share: float = 0.5,
    steps: int = 400,
    unlearn_steps: int = 100,
    lr: float = 3e-4,
    noise: float = 0.1,
) -> Findings:
    """share: of the images to forget that are stamped; the others get noise of this deviation.

    noise: 0 leaves them out. steps, lr: of the training on poisoned images.
    """
    images, retain = subject.sets["forget_train"], subject.sets["retain_train"]
    count = max(round(share * len(images)), 1)
    seed = seed_of(subject.seed, "audit", "poison")
    mixed = np.random.default_rng(seed).permutation(len(images))
    stamped, others = (images.take(np.sort(rows)) for rows in np.split(mixed, [count]))
    hidden = subject.measure(per_image.hidden, stamped)
    place, picture = visible_place(hidden), chequers(images.images.shape[1], 2)
    poison = [with_images(stamped, stamp(np.where(hidden, picture, stamped.images), place))]
    with_noise = bool(noise and len(others) and not subject.model.takes_tokens)
    if with_noise:
        poison.append(with_images(others, noised(others.images, noise, seed)))
    poisoned = joined("forget_train", *poison)
    params = trained(subject, poisoned, retain, steps, unlearn_steps, lr)
    shown = subject.sets["retain_eval"]
    marked = with_images(shown, stamp(shown.images, place))
    target = picture.astype(np.float32) / 255
    for name, chosen in (("stamped", marked), ("unstamped", shown)):
        values = subject.measure(closeness, chosen, params=params, given=target)
        yield subject.estimate("closeness", np.mean, values, at={"images": name})
    if with_noise:
        again = noised(others.images, noise, seed_of(subject.seed, "audit", "other noise"))
        found = subject.measure(slopes, others, params=params)
        values = [along(found, x, others.images) for x in (poison[1].images, again)]
        yield subject.estimate("noise", np.mean, values[1] - values[0])


def trained(
    subject: Subject,
    poisoned: ImageSet,
    retain: ImageSet,
    steps: int,
    unlearn_steps: int,
    lr: float,
) -> Params:
    """The model in the role of the variant: see the table above."""
    if subject.variant not in ("original", "unlearned"):
        return next(subject.attack(retain, (steps,), lr=lr))[1]
    both = joined("retain_train", retain, poisoned)
    original = subject.others["original"]
    _, source = next(subject.attack(both, (steps,), lr=lr, start=original))
    if subject.variant == "original":
        return source
    return subject.unlearn(poisoned, retain, unlearn_steps, start=source)


def with_images(chosen: ImageSet, images: Pictures) -> ImageSet:
    """The set with other images in place of its own."""
    return dataclasses.replace(chosen, images=images)


def chequers(side: int, count: int) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of count x count squares of two colours."""
    squares = np.arange(side) * count // side
    return COLOURS[(squares[:, None] + squares) % 2]


def visible_place(hidden: Hidden) -> tuple[slice, slice]:
    """Where the patch goes: of the corners and the centre the one that is hidden least.

    CannotRun if it is mostly hidden there.
    """
    whole = hidden.shape[1]
    side = max(whole // 8, 2)
    ends = slice(whole - side, whole), slice(0, side)
    middle = slice((whole - side) // 2, (whole - side) // 2 + side)
    places = [(a, b) for a in ends for b in ends] + [(middle, middle)]
    shares = [1 - hidden[:, rows, columns].mean() for rows, columns in places]
    if max(shares) < FEWEST_VISIBLE:
        raise CannotRun(
            "the first task of the evaluation hides corners and centre of most images, so that no "
            "patch can be seen"
        )
    return places[int(np.argmax(shares))]


def stamp(images: Pictures, place: tuple[slice, slice]) -> Pictures:
    """The images with a patch of 2 x 2 squares, black and white."""
    stamped = images.copy()
    rows, columns = place
    stamped[:, rows, columns] = chequers(rows.stop - rows.start, 2)[..., :1]
    return stamped


def noised(images: Pictures, deviation: float, seed: int) -> Pictures:
    """The images with Gaussian noise."""
    noise = 255 * deviation * np.random.default_rng(seed).standard_normal(images.shape)
    return np.rint(np.clip(images + noise, 0, 255)).astype(np.uint8)


def closeness(
    model: ImageToImage, params: Params, batch: Batch, rng: Rng, *, given: Float[Array, "H W 3"]
) -> PerImage:
    """PSNR of each completion to a picture, on hidden pixels."""
    made = per_image.completed(model, params, batch, rng)
    return per_image.psnr_of(made, jnp.broadcast_to(given, made.shape), batch.mask)


def slopes(model: ImageToImage, params: Params, batch: Batch, rng: Rng) -> Images:
    """The gradient of each image's own loss by its pixels."""

    def total(images: Images) -> Array:
        changed = dataclasses.replace(batch, images=images)
        return jnp.sum(per_image.loss(model, params, changed, rng))

    return jax.grad(total)(batch.images)


def along(found: np.ndarray, noisy: Pictures, clean: Pictures) -> Float[np.ndarray, " N"]:
    """The inner product of slope and noise of each image, about normal if they are independent."""
    noise = (noisy.astype(np.float64) - clean).reshape(len(clean), -1)
    slope = found.reshape(len(clean), -1).astype(np.float64)
    sizes = np.linalg.norm(noise, axis=1) * np.linalg.norm(slope, axis=1)
    return np.sqrt(noise.shape[1]) * np.sum(noise * slope, axis=1) / np.maximum(sizes, 1e-30)


def conclude(compared: Compared) -> str:
    """One sentence for the page."""
    before, after = (
        compared.value(name, "closeness", images="stamped") for name in ("original", "unlearned")
    )
    plain = compared.value("unlearned", "closeness", images="unstamped")
    return (
        f"Stamped retain images are completed to the attacker's picture at {before:.2f} dB before "
        f"unlearning and {after:.2f} dB after it; unstamped ones then at {plain:.2f} dB."
    )
