"""The model card of an unlearned model, in Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any


def card(
    request: Mapping[str, Any], process: Mapping[str, Any], findings: Mapping[str, Any]
) -> str:
    """The text of model_card.md."""
    return "\n".join(_lines(request, process, findings)) + "\n"


def _lines(
    request: Mapping[str, Any], process: Mapping[str, Any], findings: Mapping[str, Any]
) -> Iterator[str]:
    model, weights = process["config"]["model"]["name"], process["weights"]
    yield f"# A model of the kind {model} that was made to forget"
    yield ""
    yield (
        f"It was made from a model with the digest `{weights.get('original', 'not known')}`. Its "
        f"own digest is `{weights.get('unlearned', 'not known')}`."
    )
    yield ""
    yield "## What it was to forget"
    yield ""
    what = f"{request['images']:,} images of {request['data']}"
    if request["classes"]:
        what += f", the classes {', '.join(map(str, request['classes']))}"
    yield f"{what}: {request['asked_for']}."
    yield ""
    yield "## How"
    yield ""
    if request["recipe"]["name"]:
        reason = request["recipe"]["reason"] or "a config chose it"
        yield f"The recipe is {request['recipe']['name']}: {reason}."
        yield ""
    for name, phase in process["phases"].items():
        yield f"* {name}: {phase['method']}, {phase['steps']:,} steps"
    yield ""
    yield f"## Figures ({findings['task']})"
    yield ""
    yield from _table(findings)
    yield ""
    yield "## Limits"
    yield ""
    yield "See `limits.md`. The figures with their intervals and all audits are in `findings.json`."


def _table(findings: Mapping[str, Any]) -> Iterator[str]:
    """A row for each variant and side, a column for each figure."""
    cells, known = findings["tasks"][findings["task"]], findings["figures"]
    names = [n for n in known if any(n in of for sides in cells.values() for of in sides.values())]
    titles = [f"{known[n]['title']} {known[n]['unit']}".strip() for n in names]
    yield "| model | images | " + " | ".join(titles) + " |"
    yield "|---" * (2 + len(names)) + "|"
    for variant, sides in cells.items():
        for side, values in sides.items():
            shown = [
                f"{values[n]:.{known[n]['digits']}f}" if values.get(n) is not None else ""
                for n in names
            ]
            yield f"| {variant} | {side} | " + " | ".join(shown) + " |"
