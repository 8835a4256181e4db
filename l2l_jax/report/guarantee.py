"""What the method guarantees, in sentences for pages and records."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.report.collect import Record

NONE = (
    "No guarantee: the method is tested, not proven. An attack that was not tried may find what is "
    "said here to be forgotten."
)


def sentences(certificate: Mapping[str, Any] | None) -> Iterator[str]:
    """What is guaranteed, and what that rests on; certificate: of results.json, or None."""
    if not certificate or certificate["kind"] == "none":
        yield NONE
        if certificate:
            yield _price(certificate)
        return
    if certificate["kind"] == "exact":
        yield (
            f"Guarantee: exact for {certificate['part']}. It is what a training of it without the "
            "images to forget gives, up to rounding."
        )
        if not certificate["whole"]:
            yield (
                "No guarantee for the whole model: the features that the last layer is given may "
                f"know the images to forget ({'; '.join(certificate['body'])})."
            )
    else:
        yield _noisy(certificate)
    for assumption in certificate["assumptions"]:
        yield f"The guarantee rests on this, which is not checked: {assumption}"
    yield (
        "A guarantee is one of the procedure. It does not say that the model completes images as a "
        "retrained one does, and it covers the weights, not the figures that were measured on the "
        "images to forget."
    )


def _noisy(certificate: Mapping[str, Any]) -> str:
    theorem = certificate["epsilon_of_the_theorem"]
    beside = "" if theorem is None else f"; the published theorem states {theorem:.3g}"
    return (
        f"Guarantee: epsilon = {certificate['epsilon']:.3g} at delta = {certificate['delta']:.3g} "
        f"({certificate['mu']:.3g}-GDP{beside}), by {certificate['steps']:,} noisy steps of the "
        f"phase {certificate['phase']} from a ball of radius {certificate['radius']:.3g} around "
        f"{certificate['center']}, with the gradient clipped at {certificate['clip']:.3g}, rate "
        f"{certificate['rate']:.3g} and noise of {certificate['sigma']:.3g} for each parameter and "
        "step."
    )


def _price(certificate: Mapping[str, Any]) -> str:
    return (
        f"For scale: this model is {certificate['distance']:.4g} away from "
        f"{certificate['center']}. To guarantee epsilon = {certificate['epsilon']:g} at delta = "
        f"{certificate['delta']:g} from that distance, the recipe certified would have to add "
        f"noise of at least sigma = {certificate['sigma']:.3g} to each parameter before it trains "
        "on."
    )


def card(record: Record) -> Iterator[str]:
    """HTML: the guarantee of a run that unlearns."""
    if "unlearned" not in record.variants:
        return
    texts = "".join(
        f"<p>{html.escape(text)}</p>" for text in sentences(record.results.get("certificate"))
    )
    yield f'<h2>What is guaranteed</h2><div class="card">{texts}</div>'
