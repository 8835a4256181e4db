"""Draws what each method and solver moves: docs/images/methods/NAME.svg.

python launch/drawings.py
"""

import argparse
import math
from pathlib import Path

from l2l_jax.registry import find, names

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "methods"
WIDTH, HEIGHT = 620, 150  # pixels
INK, FAINT, TRAINED, FORGET, RETAIN = "#333", "#999", "#cfe3f7", "#c0392b", "#1f6f43"

# {method: (what the arrows move, what happens to retain, where forget goes)}; "" = nothing
MOVES = {
    "l2l": ("latents", "stay where the original puts them", "latents of noise"),
    "random_encoder": ("latents", "stay where the original puts them", "a random draw"),
    "noisy_label": ("outputs", "go on training", "an image of noise"),
    "retain_label": ("outputs", "stay those of the original", "the output of a retain image"),
    "max_loss": ("loss", "falls: training goes on", "rises, up to 5 times the original's"),
    "ascent": ("loss", "", "rises until outputs have moved by lambda"),
    "siss": ("loss", "falls: training goes on", "rises, by a gradient of fixed length"),
    "erasediff": ("outputs", "go on training", "uniform noise"),
    "selective_amnesia": ("outputs", "go on training, by elastic weights", "uniform noise"),
    "retrack": ("outputs", "go on training", "the nearest retain image"),
    "prune": ("loss", "stays near where it is", "rises: units that it needs are removed"),
    "adversarial_ascent": ("loss", "", "rises; outputs near the images are kept"),
    "safe_denoiser": ("outputs", "", "away from stored images, in sampling only"),
    "finetune": ("loss", "falls: training goes on", ""),
    "pretrain": ("loss", "falls, from a fresh start", ""),
    "distill": ("outputs and latents", "move to those of the teacher", ""),
    "meta_unlearn": (
        "outputs and latents",
        "stay those of the original",
        "a higher loss, also after an attack",
    ),
    "ridge_head": ("last layer", "is solved for them alone", ""),
    "perturb": ("parameters", "all move halfway to a fresh start", ""),
}
# {solver: (angle of the forget gradient before, after in degrees, its length after, text)}
GRADIENTS = {
    "weighted": (130, 130, 0.45, "retain gradient + alpha times forget gradient"),
    "pcgrad": (130, 90, 0.77, "of two that conflict, each loses its part against the other"),
    "normalized": (130, 130, 0.2, "the forget gradient gets a share of the length of the other"),
    "uno": (130, 90, 0.77, "retain steps are bent until both gradients are orthogonal"),
    "conflict_free": (
        130,
        105,
        0.6,
        "retain is looked at one forget step ahead, so that they agree",
    ),
    "bilevel": (130, 130, 0.75, "as much of it as makes the forget objective fall"),
    "remove_units": (130, 90, 0.3, "read only: units that forgetting needs are set to 0"),
    "slug": (130, 90, 0.3, "one step, in the one layer where it is long and orthogonal"),
    "noisy": (130, 130, 0.0, "the clipped retain gradient, and noise of a fixed size"),
    "epsilon": (130, 130, 0.75, "as much of it as keeps the forget objective below epsilon"),
}


def text(x: float, y: float, words: str, colour: str = INK, anchor: str = "start") -> str:
    """A line of text whose baseline begins, or has its middle, at (x, y)."""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def arrow(x: float, y: float, to_x: float, to_y: float, colour: str, dash: str = "") -> str:
    """An arrow; dash: the pattern of a broken line."""
    angle = math.atan2(to_y - y, to_x - x)
    tips = [(to_x - 9 * math.cos(angle + s), to_y - 9 * math.sin(angle + s)) for s in (-0.4, 0.4)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in [(to_x, to_y), *tips])
    line = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
    return (
        f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:.1f}" y2="{to_y:.1f}" {line}/>'
        f'<polygon points="{points}" fill="{colour}"/>'
    )


def dot(x: float, y: float, colour: str, filled: bool = True) -> str:
    """A point; not filled: a place that something moves to."""
    look = f'fill="{colour}"' if filled else 'fill="none" stroke-dasharray="3"'
    return f'<circle cx="{x:g}" cy="{y:g}" r="7" stroke="{colour}" stroke-width="1.5" {look}/>'


def page(parts: list[str], title: str) -> str:
    """The SVG file; it is light on dark pages, too."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="13" role="img">'
        f"<title>{title}</title>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff" stroke="#ddd"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def method(name: str) -> str:
    """Left the parts of the model, the trained ones in blue; right what moves where."""
    trained = find("method", name).TRAINABLE
    what, retain, forget = MOVES[name]
    parts = [text(24, 28, "T"), text(20, 138, "blue: trained", FAINT)]
    for x, label, group in ((52, "E", "encoder"), (112, "D", "decoder")):
        fill = TRAINED if group in trained else "#fff"
        parts.append(f'<rect x="{x}" y="52" width="36" height="46" fill="{fill}" stroke="{INK}"/>')
        parts.append(text(x + 18, 80, label, anchor="middle"))
    parts[0] = f'<rect x="12" y="62" width="22" height="26" fill="#eee" stroke="{INK}"/>' + text(
        23, 80, "T", anchor="middle"
    )
    parts += [arrow(34, 75, 51, 75, INK), arrow(88, 75, 111, 75, INK), arrow(148, 75, 170, 75, INK)]
    parts.append(text(200, 28, what, FAINT))
    up = what == "loss"
    for y, colour, side, where in ((58, RETAIN, "retain", retain), (108, FORGET, "forget", forget)):
        parts.append(text(200, y + 5, side if what != "parameters" else "", colour))
        if not where:
            parts.append(text(262, y + 5, "not used" if what != "parameters" else "", FAINT))
            continue
        moves = side == "forget" or not where.startswith("stay")
        rise = (18 if side == "forget" else -18) if up else 0
        parts.append(dot(262, y + rise / 2, colour))
        if moves:
            parts.append(arrow(272, y + rise / 2, 336, y - rise / 2, colour))
            parts.append(dot(348, y - rise / 2, colour, filled=False))
        parts.append(text(366 if moves else 280, y + 5, where))
    return page(parts, f"{name}: what moves")


def solver(name: str) -> str:
    """The two gradients, and what the solver makes of them."""
    before, after, length, meaning = GRADIENTS[name]
    x, y, size = 130, 118, 90

    def end(angle: float, share: float) -> tuple[float, float]:
        return (
            x + size * share * math.cos(math.radians(angle)),
            y - size * share * math.sin(math.radians(angle)),
        )

    kept = 40 if name == "pcgrad" else 0
    first, second = end(kept, math.cos(math.radians(kept))), end(after, length)
    total = first[0] + second[0] - x, first[1] + second[1] - y
    parts = [
        arrow(x, y, *end(0, 1), RETAIN, "4" if kept else ""),
        arrow(x, y, *end(before, 1), FORGET, "4"),
        arrow(x, y, *second, FORGET),
        arrow(x, y, *total, INK),
        text(280, 50, "retain gradient", RETAIN),
        text(280, 72, "forget gradient (broken: as it was)", FORGET),
        text(280, 94, "the step that is taken"),
        text(280, 122, meaning, FAINT),
    ]
    if kept:
        parts.insert(1, arrow(x, y, *first, RETAIN))
    return page(parts, f"{name}: what becomes of the two gradients")


def drawings() -> dict[str, str]:
    """{name: the SVG of every method and solver}."""
    methods = {name: method(name) for name in names("method") if name in MOVES}
    return methods | {name: solver(name) for name in names("solver") if name in GRADIENTS}


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for drawn, svg in drawings().items():
        (FOLDER / f"{drawn}.svg").write_text(svg)
