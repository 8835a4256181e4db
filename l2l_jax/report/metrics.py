"""What is measured, in which unit, and which way is good; and how figures are written."""

from collections.abc import Iterable, Mapping
from typing import Any

# metric: (name, unit, what is good on the retain side: up or down, digits); forget is the reverse
METRICS = {
    "fid": ("FID", "", "down", 2),
    "kid": ("KID", "", "down", 4),
    "is": ("Inception Score", "", "up", 2),
    "clip": ("CLIP similarity", "", "up", 3),
    "cosine": ("cosine", "", "up", 3),
    "psnr": ("PSNR, hidden pixels", "dB", "up", 2),
    "l1": ("L1, hidden pixels", "", "down", 4),
    "retrain_distance": ("distance to retrained", "", "down", 4),
}
BOTH = ("retrain_distance",)  # good in the same direction on both sides
APART = (
    "Distance to retrained is the root mean square difference, on hidden pixels, between the "
    "completions of a model and those of the retrained reference: smaller is closer, on both sides."
)
ARROWS = {"up": "&uarr;", "down": "&darr;", "": ""}
PLAIN_ARROWS = {"up": "\u2191", "down": "\u2193", "": ""}
OPPOSITE = {"up": "down", "down": "up", "": ""}
DASH = "&ndash;"
PLAIN_DASH = "\u2013"
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


def base(metric: str) -> str:
    """What a figure is one of: "fid" of "fid_places"; itself if of none of METRICS.

    "" for a spread, which is of another figure and not one by itself.
    """
    if metric.endswith("_std"):
        return ""
    first = metric.split("_")[0]
    return metric if metric in METRICS or first not in METRICS else first


def describe(metric: str) -> tuple[str, str, str, int]:
    """(name, unit, what is good on the retain side, digits) of a figure.

    One that METRICS does not know has its own name, and nothing is good.
    """
    name, *rest = METRICS.get(base(metric), (metric.replace("_", " "), "", "", 4))
    variant = metric.removeprefix(base(metric)).strip("_").replace("_", " ")
    return (f"{name} ({variant})" if variant else name, *rest)


def in_order(metrics: Iterable[str]) -> list[str]:
    """Figures that are shown, each once, in the order of METRICS, variants behind their base."""
    order = {metric: at for at, metric in enumerate(METRICS)}
    shown = filter(base, set(metrics))
    return sorted(shown, key=lambda metric: (order.get(base(metric), len(order)), metric))


def goal(side: str, metric: str) -> str:
    """Which direction of a metric is good on a side: up or down; "" if nobody knows."""
    good = describe(metric)[2]
    return good if side == "retain" or base(metric) in BOTH else OPPOSITE[good]


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def si(value: float | None, unit: str) -> str:
    """Three digits and a prefix, "1.23 TFLOP"; a dash where there is none."""
    if value is None:
        return DASH
    power = 0
    while abs(value) >= 999.5 and power < len(PREFIXES) - 1:
        value, power = value / 1000, power + 1
    digits = 0 if abs(value) >= 99.95 or not power else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {PREFIXES[power]}{unit}"


def spent(about: Mapping[str, Any]) -> str:
    """What a phase cost, from its entry in results["cost"]; dashes for what is missing."""
    steps, seconds = about.get("steps"), about.get("seconds")
    return ", ".join(
        (
            DASH if seconds is None else f"{seconds:,.0f} s",
            f"{DASH if steps is None else format(steps, ',')} steps",
            si(about.get("flops"), "FLOP"),
            f"peak memory {si(about.get('memory'), 'B')}",
        )
    )
