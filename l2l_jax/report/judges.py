"""What is said of the networks that judge, and of figures that are missing or mean nothing."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.report.metrics import APART, base, describe, in_order

RANDOM = "random"
MARK = "random weights"  # beside every figure of a network that nobody trained


def warnings(results: Mapping[str, Any]) -> Iterator[str]:
    """Figures that were not measured, and figures of networks that nobody trained."""
    for name, reason in results["skipped"].items():
        yield f"Not measured: {name}. {reason}"
    if meaningless := untrained(results):
        which = ", ".join(describe(metric)[0] for metric in in_order(meaningless))
        yield (
            f"Random weights: nobody trained the networks that measure {which}. Their figures only "
            "show that the program runs."
        )


def untrained(results: Mapping[str, Any]) -> set[str]:
    """The figures that are measured by networks with random weights."""
    return {
        metric
        for metric, how in results["measured"].items()
        if results["networks"].get(how.get("network"), {}).get("weights") == RANDOM
    }


def paragraph(results: Mapping[str, Any]) -> str:
    """Which network measures which figure, how it was shown the images, on how many of them."""
    said = []
    for name, network in results["networks"].items():
        which = ", ".join(describe(m)[0] for m in _measured(results, name))
        if which:
            said.append(f"{which}: {_network(network)}")
    apart = any("retrain_distance" in sides for sides in results.get("unlearned", {}).values())
    counts = " and ".join(f"{n:,} {side}" for side, n in results["counts"].items())
    said = html.escape(". ".join([*said, f"On {counts} images"]))
    return (
        f"<p>{said}. These figures can be compared "
        "within this page and with runs of the same networks, the same way of resizing and the "
        "same number of images, with nothing else. An arrow shows the direction that is good; "
        "green is a change that way, red the other way, grey less than one percent."
        f"{f' {APART}' if apart else ''}</p>"
    )


def _measured(results: Mapping[str, Any], network: str) -> list[str]:
    """The figures that a network measures, in order."""
    return in_order(
        metric
        for metric, how in results["measured"].items()
        if base(metric) and how.get("network") == network
    )


def _network(about: Mapping[str, Any]) -> str:
    """One network in words: whose weights, which way of resizing, what it is worth."""
    told = [f"{RANDOM} weights" if about.get("weights") == RANDOM else about.get("weights", "")]
    told += [f"resized {about['resize']}"] if "resize" in about else []
    told += [f"scaled {about['scale']}"] if "scale" in about else []
    told += [about.get("dtype", ""), f"digest {about['digest'][:12]}"]
    told += [f"held-out accuracy {about['accuracy']:.1%}"] if "accuracy" in about else []
    return f"{about['name']} ({'; '.join(filter(None, told))})"
