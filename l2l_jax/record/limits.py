"""What a record does not show, in sentences made from what was run and what was not."""

from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.report import guarantee
from l2l_jax.report.verdict import is_attack, verdict

HEAD = """# What this record does not show

"""


def limits(findings: Mapping[str, Any]) -> str:
    """The text of limits.md."""
    return HEAD + "\n".join(f"* {sentence}" for sentence in _sentences(findings)) + "\n"


def _sentences(findings: Mapping[str, Any]) -> Iterator[str]:
    audits = findings["audits"]
    yield from guarantee.sentences(findings.get("certificate"))
    yield from verdict(audits).titles
    ran = [name for name, audit in audits.items() if is_attack(audit) and "skipped" not in audit]
    if ran:
        yield f"These attacks were tried, and no others: {', '.join(sorted(ran))}."
    for name, audit in audits.items():
        if "skipped" in audit:
            yield f"The audit {name} did not run: {audit['skipped']}"
    variants = findings["tasks"][findings["task"]]
    if not any(name.startswith("retrained") for name in variants):
        yield (
            "There was no model that never saw the images. Nobody knows how such a model would "
            "answer, so no figure here says that the model is like one."
        )
    for name, reasons in findings["unclean"].items():
        yield f"The model '{name}' may have seen the images: {'; '.join(reasons)}"
    counts = findings["counts"]
    yield (
        "Figures are of "
        + " and ".join(f"{count:,} images of {side}" for side, count in counts.items())
        + ". Each has an interval over these images; training again with another seed changes it "
        "too."
    )
    yield (
        "It is about the weights whose digest is recorded, alone. Copies of the original model, of "
        "the images, and of earlier completions are not reached by it."
    )
    yield "It says nothing about copies of the same content under other names in the training data."
