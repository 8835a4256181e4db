"""The drawings of audits, as SVG text: where a model lies on the line, and curves of all variants.

Only rectangles, paths and texts are used. A drawing has the width of a phone, so that its texts can
be read there.
"""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from l2l_jax.report import audit_words, verdict
from l2l_jax.report.drawings import COLOURS, OTHER_COLOUR, finite, short

INK, SOFT, LINE, BAND = "#0f172a", "#475569", "#e2e8f0", "#e2e8f0"
LOW, HIGH = -0.75, 1.5  # ends of the line; what lies beyond is an arrow and its value in words
WIDTH, MARGIN = 340, 12  # of a drawing, and left and right of the line
CHARACTER = 6.2  # mean width of a letter
TICKS = 4  # at least, of an axis
MAX_POINTS = 40  # names on the axis of a chart
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 8, 36  # margins of a chart
HEIGHT = 200  # of a chart over numbers
VARIANTS = {"original": OTHER_COLOUR, "unlearned": COLOURS["forget"]}
RETRAINED = COLOURS["retain"]
Rows = Sequence[Mapping[str, Any]]


def place(row: Mapping[str, Any]) -> str:
    """SVG: the place of a row between retrained (0) and original (1), with interval and floor."""
    value, interval = row["place"]["value"], row["place"]["interval"]
    floor, y = verdict.floor(row), 32.0
    parts = []
    if floor:
        left, right = _across(-floor), _across(floor)
        parts.append(f'<rect x="{left:.1f}" y="{y - 11}" width="{right - left:.1f}" height="22" '
                     f'fill="{BAND}"/>')  # fmt: skip
    parts.append(_stroke([(MARGIN, y), (WIDTH - MARGIN, y)], "#94a3b8", 1.5))
    for at, name, colour in ((0, "retrained", RETRAINED), (1, "original", OTHER_COLOUR)):
        parts.append(_stroke([(_across(at), y - 11), (_across(at), y + 11)], colour, 2))
        parts.append(_text(_across(at) - 4, y + 25, f"{at} {name}", "start", colour))
    parts.append(_text(2, y + 25, "over-forgotten", "start", SOFT))
    if interval is not None and all(map(finite, interval)):
        parts += _whisker(interval[0], interval[1], y)
    if LOW <= value <= HIGH:
        parts.append(_dot(_across(value), y, COLOURS["forget"], 6))
    elif not math.isnan(value):
        parts.append(_arrow(value > HIGH, y))
    words = audit_words.measured(row["place"], 2)
    half = len(words) * CHARACTER / 2
    middle = _across(value) if finite(value) else WIDTH / 2
    x = min(max(middle, half + 2), WIDTH - half - 2)
    parts.append(_text(x, y - 16, words, "middle", INK, bold=True))
    label = f"Place {words}: 0 is the retrained model, 1 is the original"
    return _svg(64, "".join(parts), label)


def _across(at: float) -> float:
    """Where a place lies, in pixels; at an end of the line if it lies beyond."""
    at = min(max(at, LOW), HIGH)
    return MARGIN + (at - LOW) / (HIGH - LOW) * (WIDTH - 2 * MARGIN)


def _whisker(low: float, high: float, y: float) -> Iterator[str]:
    """An interval on the line; an end that lies beyond the line is an arrow."""
    low, high = min(low, high), max(low, high)
    yield _stroke([(_across(low), y), (_across(high), y)], COLOURS["forget"], 3)
    if low < LOW:
        yield _arrow(False, y)
    if high > HIGH:
        yield _arrow(True, y)


def _arrow(right: bool, y: float) -> str:
    tip, back = (WIDTH - 1, WIDTH - MARGIN) if right else (1, MARGIN)
    path = f"M{tip} {y}L{back} {y - 7}L{back} {y + 7}Z"
    return f'<path d="{path}" fill="{COLOURS["forget"]}"/>'


def colour(variant: str) -> str:
    """The colour of a variant in charts; all retrained models have the same."""
    return VARIANTS.get(variant, RETRAINED)


def chart(rows: Rows, over: str, unit: str) -> str:
    """SVG: the values of all variants along an axis of `at`; "" if there is nothing to draw.

    Lines with bands if the axis has numbers, else dots with whiskers.
    """
    drawn = [row for row in rows if over in row["at"] and any(True for _ in _marks(row))]
    if not drawn:
        return ""
    ends = [
        end for row in drawn for _, value, low, high in _marks(row) for end in (low, high, value)
    ]
    low, high = min(ends), max(ends)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-30):
        low, high = low - max(abs(low), 1) / 10, high + max(abs(high), 1) / 10
    places = [row["at"][over] for row in drawn]
    if len(set(map(str, places))) > 1 and all(
        audit_words.is_number(x) and finite(x) for x in places
    ):
        return _lines(drawn, over, (low, high), unit)
    return _dots(drawn[:MAX_POINTS], over, (low, high), unit)


def _marks(row: Mapping[str, Any]) -> Iterator[tuple[str, float, float, float]]:
    """(variant, value, low, high) of what can be drawn; without an interval all three are equal."""
    for variant, found in row["values"].items():
        value, interval = found["value"], found["interval"]
        if value is not None and finite(value):
            drawn = interval if interval and all(map(finite, interval)) else (value, value)
            low, high = sorted(drawn)
            yield variant, float(value), float(low), float(high)


def _lines(rows: Rows, over: str, ends: tuple[float, float], unit: str) -> str:
    """SVG: a line with a band for each variant."""
    first, last = rows[0]["at"][over], rows[-1]["at"][over]
    ticks = _ticks(*ends)
    low, high = min(ticks[0], ends[0]), max(ticks[-1], ends[1])

    def x(at: float) -> float:
        return LEFT + (at - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_stroke([(LEFT, y(t)), (WIDTH - RIGHT, y(t))], LINE, 1) for t in ticks]
    parts += [_text(LEFT - 6, y(t) + 4, f"{t:.6g}", "end") for t in ticks]
    right = -math.inf
    for at in dict.fromkeys(row["at"][over] for row in rows):
        words = f"{at:g}"
        if x(at) - len(words) * CHARACTER / 2 > right:  # else it would cover the one before
            parts.append(_text(x(at), HEIGHT - BOTTOM + 16, words, "middle"))
            right = x(at) + len(words) * CHARACTER / 2 + 4
    axis = short(over.replace("_", " ")) + (f", values in {short(unit)}" if unit else "")
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, axis, "middle"))
    names = audit_words.variants(rows)
    found = {name: [(row["at"][over], *mark[1:]) for row in rows for mark in _marks(row)
                    if mark[0] == name] for name in names}  # fmt: skip
    for name, points in found.items():
        if points:
            upper = [(x(at), y(top)) for at, _, _, top in points]
            lower = [(x(at), y(bottom)) for at, _, bottom, _ in points]
            outline = _path([*upper, *reversed(lower)])
            parts.append(f'<path d="{outline}Z" fill="{colour(name)}" opacity="0.15"/>')
    for name, points in found.items():
        line = [(x(at), y(value)) for at, value, _, _ in points]
        if line:
            parts.append(_stroke(line, colour(name), 2, broken=name not in VARIANTS))
            parts += [_mark(name, *point) for point in line]
    return _svg(HEIGHT, "".join(parts), f"{names} over {over}")


def _dots(rows: Rows, over: str, ends: tuple[float, float], unit: str) -> str:
    """SVG: for each name on the axis a dot with a whisker of each variant, below each other."""
    names = audit_words.variants(rows)
    labels = [short(str(row["at"][over])) for row in rows]
    left = min(12 + max(map(len, labels)) * CHARACTER, WIDTH * 0.45)
    ticks = _ticks(*ends)
    low, high = min(ticks[0], ends[0]), max(ticks[-1], ends[1])
    step = 7 * len(names) + 8
    bottom = TOP + step * len(rows)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - RIGHT)

    parts = [
        _stroke([(x(t), TOP), (x(t), bottom)], "#94a3b8" if t == 0 else LINE, 1) for t in ticks
    ]
    parts += [_text(x(t), bottom + 16, f"{t:.6g}", "middle") for t in ticks]
    for at, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = TOP + step * at
        if at:
            parts.append(_stroke([(0, top), (WIDTH - RIGHT, top)], LINE, 1))
        parts.append(_text(0, top + step / 2 + 4, _cut(label, left), "start", INK))
        for variant, value, least, most in _marks(row):
            y = top + 7.5 + 7 * names.index(variant)
            parts.append(_stroke([(x(least), y), (x(most), y)], colour(variant), 2))
            parts.append(_mark(variant, x(value), y))
    height = bottom + (BOTTOM if unit else BOTTOM - 14)
    if unit:
        parts.append(_text((left + WIDTH - RIGHT) / 2, height - 4, short(unit), "middle"))
    return _svg(height, "".join(parts), f"{names} for each {over}")


def _cut(label: str, width: float) -> str:
    """The label, cut if it is wider than the space for it."""
    fits = int((width - 6) / CHARACTER)
    return label if len(label) <= fits else f"{label[: fits - 1]}\N{HORIZONTAL ELLIPSIS}"


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover most of a range."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [at * step for at in range(first, last + 1)] or [low, high]


def legend(variants: Sequence[str]) -> str:
    """HTML: the mark of each variant and its name; one for all retrained models."""
    names = dict.fromkeys(name if name in VARIANTS else "retrained" for name in variants)
    marks = (
        f'<span><svg viewBox="0 0 22 12">{_stroke([(0, 6), (22, 6)], colour(name), 2)}'
        f"{_mark(name, 11, 6)}</svg>{html.escape(name)}</span>"
        for name in names
    )
    return f'<div class="legend">{"".join(marks)}</div>'


def _mark(variant: str, x: float, y: float) -> str:
    """The mark of a variant; its shape differs, too: a square, a dot, a triangle."""
    if variant == "unlearned":
        return _dot(x, y, colour(variant), 4)
    if variant == "original":
        return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{OTHER_COLOUR}"/>'
    corners = [(x, y - 4.2), (x - 4, y + 3), (x + 4, y + 3)]
    return f'<path d="{_path(corners)}Z" fill="{RETRAINED}"/>'


def _dot(x: float, y: float, fill: str, radius: float) -> str:
    """A rectangle that is rounded to a circle."""
    size = 2 * radius
    return (
        f'<rect x="{x - radius:.1f}" y="{y - radius:.1f}" width="{size}" height="{size}" '
        f'rx="{radius}" fill="{fill}" stroke="#ffffff"/>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _stroke(
    points: Sequence[tuple[float, float]], colour: str, width: float, broken: bool = False
) -> str:
    dashes = ' stroke-dasharray="5 3"' if broken else ""
    return (
        f'<path d="{_path(points)}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'
    )


def _text(
    x: float, y: float, words: str, anchor: str, colour: str = SOFT, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" '
        f'fill="{colour}"{weight}>{html.escape(words)}</text>'
    )


def _svg(height: float, content: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{html.escape(label)}">'
        f"{content}</svg>"
    )
