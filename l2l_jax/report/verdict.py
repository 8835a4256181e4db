"""What the audits of a run allow to say, in words that go no further than what was measured.

The headline of an audit is its first row. Only audits that attack count: one that asks about the
images to keep says nothing about forgetting. That a model has forgotten is never said: attacks that
find nothing end at what was tried.
"""

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Audits = Mapping[str, Mapping[str, Any]]  # as results["audits"]
LEAST = 0.1  # a place nearer to the retrained model does not count, whatever its interval


class State(enum.Enum):
    """What the headline of an audit says about the unlearned model."""

    HIDDEN = "hidden"  # the attack finds what a retrained model does not have
    OVER = "over-forgotten"  # the model lies beyond a retrained one, away from the original
    ALIKE = "like a retrained model"  # the attack does not tell it from one
    UNCLEAR = "no interval"
    NO_GAP = "no gap"  # the original and the retrained model do not differ
    NO_REFERENCE = "no retrained model"
    SKIPPED = "left out"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict on a run, as plain text."""

    kind: str  # "bad", "warn", or "" if nothing speaks against the model
    titles: list[str]  # sentences that everybody must read
    more: list[str]  # further sentences
    moved: list[tuple[str, str]]  # (audit, its sentence), where no place is known


def headline(audit: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row that a page shows on a line; None if the audit found nothing or was left out."""
    return None if "skipped" in audit else next(iter(audit["rows"]), None)


def floor(row: Mapping[str, Any]) -> float:
    """How far retrained models differ from each other, on the scale of places; 0 if not known."""
    if not row["floor"] or not row["gap"]:
        return 0.0
    share = abs(float(row["floor"]) / float(row["gap"]))
    return share if math.isfinite(share) else 0.0


def state(audit: Mapping[str, Any]) -> State:
    """What the headline of an audit says."""
    row = headline(audit)
    if row is None:
        return State.SKIPPED
    if row["place"] is None:
        return State.NO_REFERENCE if row["gap"] is None else State.NO_GAP
    value, interval = row["place"]["value"], row["place"]["interval"]
    if interval is None or not all(map(math.isfinite, (value, *interval))):
        return State.UNCLEAR
    least = max(LEAST, floor(row))
    if interval[0] > 0 and value >= least:
        return State.HIDDEN
    return State.OVER if interval[1] < 0 and value <= -least else State.ALIKE


def is_attack(audit: Mapping[str, Any]) -> bool:
    """Whether the verdict counts an audit."""
    return bool(audit.get("attack"))


def attacks(audits: Audits) -> dict[State, list[str]]:
    """{state: names of the attacks}; left-out audits are among them, attacks or not."""
    by_state: dict[State, list[str]] = {each: [] for each in State}
    for name, audit in audits.items():
        if headline(audit) is None or is_attack(audit):
            by_state[state(audit)].append(name)
    return by_state


UNCHANGED = (
    "The weights are those of the original: only how the model samples differs. Whoever has the "
    "weights has everything that the original knows."
)


def verdict(audits: Audits) -> Verdict:
    """What these audits allow to say about the unlearned model."""
    found = _verdict(audits)
    if not any(audit.get("unchanged") for audit in audits.values()):
        return found
    return dataclasses.replace(found, kind="bad", titles=[UNCHANGED, *found.titles])


def _verdict(audits: Audits) -> Verdict:
    found = attacks(audits)
    if not any(names for each, names in found.items() if each != State.SKIPPED):
        title = "The result was not attacked: nobody knows whether the forgetting holds."
        return Verdict("warn", [title], list(_apart(found)), [])
    against = [*_against(found)]
    if against:
        return Verdict("bad", against, [*_level_with(found), *_apart(found)], [])
    if found[State.ALIKE]:
        titles = [_none_tells(found[State.ALIKE])]
        return Verdict("", titles, list(_apart(found)), [])
    moved = [(n, a["sentence"]) for n, a in audits.items() if is_attack(a) and a["sentence"]]
    return Verdict("warn", [_nothing_follows(found)], list(_apart(found)), moved)


def _against(found: Mapping[State, Sequence[str]]) -> Iterator[str]:
    """What attacks found."""
    if names := found[State.HIDDEN]:
        verb = _verb(names, "finds", "find")
        yield f"Hidden, not forgotten: {listed(names)} {verb} what a retrained model does not have."
    if names := found[State.OVER]:
        verb = _verb(names, "finds", "find")
        yield (
            f"Over-forgotten: {listed(names)} {verb} it further from the original than a retrained "
            "model is, so that one can see that something was removed."
        )


def _level_with(found: Mapping[State, Sequence[str]]) -> Iterator[str]:
    if names := found[State.ALIKE]:
        verb = _verb(names, "does", "do")
        yield f"{_first(listed(names))} {verb} not tell the model from a retrained one."


def _none_tells(names: Sequence[str]) -> str:
    if len(names) == 1:
        words = f"The attack {names[0]} does not tell the model from a retrained one."
    else:
        which = f"None of the {len(names)} attacks ({listed(names)})"
        words = f"{which} tells the model from a retrained one."
    return f"{words} This is no proof: another attack may."


def _nothing_follows(found: Mapping[State, Sequence[str]]) -> str:
    if found[State.NO_REFERENCE]:
        return (
            "Nothing can be concluded: without a retrained model nobody knows what a model that "
            "never saw the images would do under the same attack."
        )
    return (
        "Nothing can be concluded: no attack has a place on the line between a retrained model and "
        "the original."
    )


def _apart(found: Mapping[State, Sequence[str]]) -> Iterator[str]:
    """Audits that do not count, and why."""
    if names := found[State.NO_GAP]:
        verb = _verb(names, "says", "say")
        yield (
            f"{_first(listed(names))} {verb} nothing here: there is no gap between the original "
            "and the retrained model."
        )
    if names := found[State.UNCLEAR]:
        verb = _verb(names, "does", "do")
        yield f"{_first(listed(names))} {verb} not count: the place has no interval."
    placed = found[State.HIDDEN] or found[State.OVER] or found[State.ALIKE]
    if placed and (names := found[State.NO_REFERENCE]):
        verb = _verb(names, "has", "have")
        yield f"{_first(listed(names))} {verb} no retrained model to compare with."
    if names := found[State.SKIPPED]:
        yield f"Left out: {listed(names)}."


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def _verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many


def _first(text: str) -> str:
    return text[:1].upper() + text[1:]
