"""What a page says about audits: the verdict, a line for each audit, and all figures of each.

The words are those of verdict.py, the drawings those of audit_drawings.py. Every text of the
results is escaped here.
"""

import html
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.report import audit_drawings, audit_words, reference, verdict
from l2l_jax.report.collect import Record
from l2l_jax.report.metrics import DASH
from l2l_jax.report.verdict import State

MAX_CHARTS = 12  # of one audit; tables have all figures
TITLE = "Does the forgetting hold?"
SAYS = {
    State.HIDDEN: "It finds what a retrained model does not have.",
    State.OVER: "Over-forgotten: it is further from the original than a retrained model is.",
    State.ALIKE: "It does not tell the model from a retrained one.",
    State.UNCLEAR: "The place has no interval, so it does not count.",
}
NO_ATTACK = "This is no attack, so the verdict does not count it."
READING = (
    "Each attack is made on every model in the same way. The dot is the unlearned model, the bar "
    "its 95 % interval over images.",
    "0 is the retrained model, which never saw the images to forget. 1 is the original. Near 1, "
    "the knowledge is still there and only hidden.",
    "Below 0, the model lies beyond the retrained one, on the side away from the original. It is "
    "over-forgotten: one can see that something was removed.",
    "The grey band is the floor: how far two retrained models lie apart that differ in their seed "
    "only. A smaller difference means nothing.",
    f"The verdict counts a place that is at least {verdict.LEAST} away from 0 and outside of the "
    "band, and whose interval does not contain 0.",
    "Attacks end at what was tried: another attack, or more images and steps, may find more.",
)
NO_REFERENCE = (
    "Name a retrained model with config.reference: then each attack is made on it, too, and its "
    "result is the measure."
)


def of(record: Record) -> dict[str, Mapping[str, Any]]:
    """The audits of a run, those that speak against the model first, the left-out ones last."""
    audits = record.results.get("audits", {})
    return dict(sorted(audits.items(), key=lambda item: _rank(item[1])))


def _rank(audit: Mapping[str, Any]) -> tuple[int, float]:
    order = (State.HIDDEN, State.OVER, State.ALIKE, State.UNCLEAR, State.NO_GAP, State.NO_REFERENCE)
    state, row = verdict.state(audit), verdict.headline(audit)
    if state not in order:
        return 2 * len(order), 0.0
    found = row["place"] if row else None
    at = order.index(state) if verdict.is_attack(audit) else len(order)
    known = found is not None and state != State.UNCLEAR
    return at, -found["value"] if known and found else 0.0


def card(record: Record) -> Iterator[str]:
    """HTML: the verdict, in front of all figures."""
    if "unlearned" not in record.variants:
        return
    audits = of(record)
    command = html.escape(f"python -m l2l_jax.audit --workdir {shlex.quote(record.name)}")
    if not audits:
        yield (
            '<div class="card warn">The result was not attacked, so nobody knows whether the '
            f"forgetting holds. To attack it: <code>{command}</code></div>"
        )
        return
    found = verdict.verdict(audits)
    titles = "".join(f"<b>{html.escape(title)}</b>" for title in found.titles)
    moved = "".join(
        f"<li>{html.escape(name)}: {html.escape(sentence)}</li>" for name, sentence in found.moved
    )
    if moved:
        moved = f"<div>What the attacks measured:</div><ul>{moved}</ul>"
    more = "".join(f"<div>{html.escape(sentence)}</div>" for sentence in found.more)
    yield (
        f'<div class="card verdict {found.kind}">{titles}{moved}{more}'
        f'<div><a href="#audits">One line for each audit</a></div></div>'
    )


def lines(record: Record) -> Iterator[str]:
    """HTML: one line for each audit, and how to read it."""
    audits = of(record)
    if not audits or "unlearned" not in record.variants:
        return
    yield f'<h2 id="audits">{TITLE}</h2><div class="card audits">'
    for at, (name, audit) in enumerate(audits.items()):
        link = f'<a href="#audit-{at}">details</a>' if verdict.headline(audit) else ""
        title = f"<b>{html.escape(audit['title'])}</b>"
        yield (
            f'<div class="audit"><div>{title}<small>{html.escape(name)} {link}</small></div>'
            f"<div>{_middle(record, audit)}</div><div>{_said(audit)}</div></div>"
        )
    yield "</div>"
    heads = filter(None, map(verdict.headline, audits.values()))
    known = any(row["gap"] is not None for row in heads)
    if known:
        yield "<h3>How to read this</h3>"
        items = "".join(f"<li>{html.escape(each)}</li>" for each in READING)
        yield f'<ul class="reading">{items}</ul>'
    else:
        yield f"<p>{html.escape(NO_REFERENCE)}</p>"


def _middle(record: Record, audit: Mapping[str, Any]) -> str:
    """HTML: the drawing of the headline, or its raw values."""
    row = verdict.headline(audit)
    if row is None:
        return ""
    if row["place"] is not None:
        return f"{audit_drawings.place(row)}<small>{_named(audit, row)}</small>"
    digits, unit = _digits(audit, row), _figure(audit, row)["unit"]
    values = "".join(
        f"<div>{html.escape(reference.name(variant, record.results))} <b>"
        f"{html.escape(audit_words.value(found['value'], digits))}</b> {html.escape(unit)} "
        f"<small>{html.escape(audit_words.interval(found['interval'], digits))}</small></div>"
        for variant in audit_words.variants([row])
        if (found := row["values"][variant])
    )
    return f'<div class="raw">{values}</div><small>{_named(audit, row)}</small>'


def _figure(audit: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    return audit_words.described(audit)[row["figure"]]


def _digits(audit: Mapping[str, Any], row: Mapping[str, Any]) -> int:
    return _figure(audit, row)["digits"]


def _named(audit: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """HTML: what a row measured, and where."""
    where = audit_words.where(row["at"])
    return html.escape(_figure(audit, row)["title"] + (f"; {where}" if where else ""))


def _said(audit: Mapping[str, Any]) -> str:
    """HTML: what an audit found, in words, and how the verdict takes it."""
    row, state = verdict.headline(audit), verdict.state(audit)
    if row is None:
        return html.escape(f"Left out: {audit.get('skipped') or 'it found nothing'}.")
    kind = "bad" if state in (State.HIDDEN, State.OVER) and verdict.is_attack(audit) else ""
    says = SAYS.get(state) or f"No place: {row['why']}."
    says = says if verdict.is_attack(audit) else NO_ATTACK
    return f'{html.escape(audit["sentence"])} <small class="{kind}">{html.escape(says)}</small>'


def details(record: Record) -> Iterator[str]:
    """HTML: the curves and all figures of each audit."""
    audits = of(record)
    if "unlearned" not in record.variants or not any(map(verdict.headline, audits.values())):
        return
    yield "<h2>Audits in detail</h2>"
    for at, (name, audit) in enumerate(audits.items()):
        if verdict.headline(audit) is not None:
            yield f'<h3 id="audit-{at}">{html.escape(name)}: {html.escape(audit["title"])}</h3>'
            yield from _charts(audit)
            yield (
                f'<details class="figures"><summary>All {len(audit["rows"])} figures of '
                f"{html.escape(name)}</summary>{_table(record, audit)}{_about(record, audit)}"
                "</details>"
            )


def _charts(audit: Mapping[str, Any]) -> Iterator[str]:
    """HTML: a chart for each curve of the figures that have an axis."""
    drawn = []
    for figure, rows in audit_words.curves(audit):
        over = figure["over"]
        if over and len(rows) > 1 and len(drawn) < MAX_CHARTS:
            where = audit_words.where(audit_words.without(rows[0]["at"], over))
            title = html.escape(figure["title"] + (f"; {where}" if where else ""))
            if chart := audit_drawings.chart(rows, over, figure["unit"]):
                left_out = len(rows) - audit_drawings.MAX_POINTS
                more = f"<small>and {left_out} more in the table</small>" if left_out > 0 else ""
                drawn.append(f'<div class="card"><small>{title}</small>{chart}{more}</div>')
    if drawn:
        yield audit_drawings.legend(audit_words.variants(audit["rows"]))
        yield f'<div class="charts">{"".join(drawn)}</div>'


def _table(record: Record, audit: Mapping[str, Any]) -> str:
    """HTML: every row with the values of all variants and its place."""
    variants = audit_words.variants(audit["rows"])
    named = (html.escape(reference.name(variant, record.results)) for variant in variants)
    heads = ("", *named, "place")
    body = []
    for row in audit_words.ordered(audit):
        figure, digits = _figure(audit, row), _digits(audit, row)
        about = ", ".join(filter(None, (figure["unit"], audit_words.where(row["at"]))))
        small = f" <small>{html.escape(about)}</small>" if about else ""
        cells = [html.escape(figure["title"]) + small]
        cells += [cell(row["values"].get(variant), digits) for variant in variants]
        kind = ' class="base"' if row is verdict.headline(audit) else ""
        cells.append(place(row))
        body.append(f"<tr{kind}>{''.join(f'<td>{text}</td>' for text in cells)}</tr>")
    return (
        '<div class="card scroll compact"><table><thead><tr>'
        f"{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def cell(found: Mapping[str, Any] | None, digits: int) -> str:
    """HTML: a value with its interval; a dash for None."""
    if found is None:
        return DASH
    bounds = audit_words.interval(found["interval"], digits)
    small = f" <small>{html.escape(bounds)}</small>" if bounds else ""
    return html.escape(audit_words.value(found["value"], digits)) + small


def place(row: Mapping[str, Any]) -> str:
    """HTML: the place of a row; a dash, with the reason, if it has none."""
    if row["place"] is not None:
        return cell(row["place"], 2)
    return f"{DASH} <small>{'no gap' if row['gap'] is not None else 'no retrained model'}</small>"


def _about(record: Record, audit: Mapping[str, Any]) -> str:
    """HTML: how an audit was made, and how long it took."""
    args = ", ".join(f"{key} = {json.dumps(value)}" for key, value in audit["args"].items())
    spent = ", ".join(
        f"{reference.name(variant, record.results)} {audit_words.value(seconds, 0)} s"
        for variant, seconds in audit["seconds"].items()
    )
    parts = [
        "The shaded row is the headline." if len(audit["rows"]) > 1 else "",
        f"Cost: {audit['cost']}." if audit["cost"] else "",
        f"Arguments: {args}." if args else "",
        f"Time: {spent}." if spent else "",
    ]
    return f"<p>{html.escape(' '.join(filter(None, parts)))}</p>"
