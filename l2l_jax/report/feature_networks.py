"""What a page says about feature networks, and about figures that are missing or meaningless."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.report.metrics import measured, notes, shown

RANDOM = "random"
RANDOM_MARK = "random weights"  # beside every figure of an untrained network


def warnings(results: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each evaluator that was skipped, and one for all figures of random weights."""
    for name, reason in results["skipped"].items():
        yield f"Not measured: {name}. {reason}"
    if meaningless := titles(results, untrained(results)):
        yield (
            f"Random weights: nobody trained the networks that measure {', '.join(meaningless)}. "
            "Their figures only show that the program runs."
        )


def untrained(results: Mapping[str, Any]) -> set[str]:
    """The names of figures that are measured by networks with random weights."""
    return {
        metric
        for metric, how in results["measured"].items()
        if results["networks"].get(how.get("network"), {}).get("weights") == RANDOM
    }


def measured_by(results: Mapping[str, Any], network: str) -> set[str]:
    """The names of figures that a feature network measures."""
    return {m for m, how in results["measured"].items() if how.get("network") == network}


def titles(results: Mapping[str, Any], metrics: set[str]) -> list[str]:
    """The titles of those of these figures that tables show, in the order of tables."""
    return [results["figures"][m]["title"] for m in shown(results["figures"], metrics)]


def paragraph(results: Mapping[str, Any]) -> str:
    """HTML: which network measures which figure, its weights and resizing, how many images."""
    sentences = [
        f"{', '.join(which)}: {_described(network)}"
        for name, network in results["networks"].items()
        if (which := titles(results, measured_by(results, name)))
    ]
    sides = {k: n for k, n in results["counts"].items() if not k.endswith("_train")}
    counts = " and ".join(f"{n:,} {side}" for side, n in sides.items())
    text = html.escape(". ".join([*sentences, f"On {counts} images"]))
    note = html.escape(notes(results["figures"], measured(results)))
    return (
        f"<p>{text}. Compare these figures within this page, and with runs that have the same "
        "feature networks, the same resizing and the same number of images, but with no others. "
        f"{note}</p>"
    )


def _described(network: Mapping[str, Any]) -> str:
    """One entry of results["networks"] as text: weights, resizing, dtype, digest, accuracy."""
    weights = network.get("weights", "")
    parts = [RANDOM_MARK if weights == RANDOM else weights]
    parts += [f"resized {network['resize']}"] if "resize" in network else []
    parts += [f"scaled {network['scale']}"] if "scale" in network else []
    parts += [network.get("dtype", ""), f"digest {network['digest'][:12]}"]
    parts += [f"held-out accuracy {network['accuracy']:.1%}"] if "accuracy" in network else []
    return f"{network['name']} ({'; '.join(filter(None, parts))})"
