"""Which runs belong together: those that differ in nothing but their seed; and what to call them.

A label begins with the methods of the phases and goes on with what tells a group from others of the
same methods: "l2l", "max_loss, alpha 0.1", "ascent, then finetune", "l2l with epsilon, r 0.25".
"""

import collections
import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from l2l_jax.lib import config_dicts
from l2l_jax.report.collect import Record

VARIES = ("seed", "runtime")  # sections that may differ within a group, and `reference` anywhere
CONTAINERS = (
    "args",
    "solver_args",
    "optimizer",
    "name",
)  # parts of a key that tell a reader nothing
VAGUE = ("seed",)  # words that need another one before them
USUAL = "weighted"  # the solver that goes without saying
FIRST = (
    r"{phase}\.solver_args\.",
    r"{phase}\.args\.",
    r"(model|data)\.name",
    r"model\.",
    r"data\.",
    r"{phase}\.steps",
    r"{phase}\.",
)  # what a label would rather name
ENOUGH = 3  # differences in a label, unless more are needed to tell it from others
ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one config, one for each seed and in the order of their seeds."""

    label: str
    runs: tuple[Record, ...]
    settings: Mapping[str, Any]  # dotted names of all values that the runs share
    about: str  # everything that tells it from groups of the same methods

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def unlearned(self) -> bool:
        return any("unlearned" in run.results for run in self.runs)


def grouped(runs: Sequence[Record]) -> list[Group]:
    """The groups, in the order of their first runs; those of a series stay together, in its order.

    A second run of the same config and seed opens another group.
    """
    found: dict[tuple[str, int], list[Record]] = {}
    for run in runs:
        text, turn = json.dumps(settings_of(run), sort_keys=True), 0
        while any(other.seed == run.seed for other in found.get((text, turn), [])):
            turn += 1
        found.setdefault((text, turn), []).append(run)
    members = [tuple(sorted(some, key=lambda run: run.seed)) for some in found.values()]
    settings = [settings_of(some[0]) for some in members]
    labels, about = _labels(_bases([some[0] for some in members]), settings)
    repeated = collections.Counter(labels)
    for at, some in enumerate(members):
        if repeated[labels[at]] > 1:  # the same config twice: only the folder tells them apart
            labels[at] += f", {some[0].name}"
    groups = [Group(*parts) for parts in zip(labels, members, settings, about, strict=True)]
    return [group for _, some in series(groups) for group in some]


def settings_of(run: Record) -> dict[str, Any]:
    """Dotted names of all values that decide what a run does, apart from its seed.

    A path that names the seed, such as runs/original-s1 with seed 1, is the same for every seed.
    Phases that could end early are others with an aim, which a reference may give, than without.
    """
    kept = {k: v for k, v in config_dicts.decisive(run.config).items() if k not in VARIES}
    kept["aim"] = sorted(run.results.get("ended", {}))
    seed = re.compile(rf"(?<![A-Za-z0-9])(s|seed)[-_=]?{run.seed}(?![A-Za-z0-9])")
    return {
        key: seed.sub(r"\1*", value) if isinstance(value, str) and "/" in value else value
        for key, value in _leaves(kept)
        if "reference" not in key.split(".")
    }


def _leaves(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        return [(prefix.rstrip("."), node)]
    return [leaf for key, item in node.items() for leaf in _leaves(item, f"{prefix}{key}.")]


def _bases(runs: Sequence[Record]) -> list[str]:
    """The text for the methods of each run; runs of other phases have another text."""
    texts = [_methods(run) for run in runs]
    ways = [tuple(run.config["phases"]) for run in runs]
    alike = {text: {w for t, w in zip(texts, ways, strict=True) if t == text} for text in texts}
    return [
        text if len(alike[text]) == 1 else f"{text} ({' + '.join(way)})"
        for text, way in zip(texts, ways, strict=True)
    ]


def _methods(run: Record) -> str:
    """Methods, and solvers that are not the usual one; what it makes if it unlearns nothing."""
    if "unlearned" not in run.results:
        return run.variants[-1]
    phases = [run.config[phase] for phase in run.config["phases"]]
    told = [p for p in phases if p["method"] != "pretrain"] or phases
    return ", then ".join(name for name, _ in itertools.groupby(map(_method, told)))


def _method(phase: Mapping[str, Any]) -> str:
    solver = "" if phase["solver"] == USUAL else f" with {phase['solver']}"
    share = phase.get("saliency", 1)
    return phase["method"] + solver + (f", saliency {share:g}" if share < 1 else "")


def _labels(
    bases: Sequence[str], settings: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """(labels, everything that differs) of groups; those of one base are told apart."""
    labels, about = list(bases), [""] * len(bases)
    for base in dict.fromkeys(bases):
        family = [at for at, other in enumerate(bases) if other == base]
        keys = differing([settings[at] for at in family], settings[family[0]]["phases"])
        names = _short(keys)
        parts = {at: [_part(names[k], settings[at].get(k, ABSENT)) for k in keys] for at in family}
        count = min(ENOUGH, len(keys))
        distinct = len({tuple(told) for told in parts.values()})
        while len({tuple(told[:count]) for told in parts.values()}) < distinct:
            count += 1
        for at in family:
            labels[at] = ", ".join([base, *parts[at][:count]])
            about[at] = ", ".join(parts[at])
    return labels, about


def differing(settings: Sequence[Mapping[str, Any]], phases: Sequence[str]) -> list[str]:
    """Keys whose values are not the same in all, the telling ones first."""
    phase = f"({'|'.join(map(re.escape, phases))})"
    marks = [re.compile(mark.replace("{phase}", phase)) for mark in FIRST]

    def rank(key: str) -> tuple[bool, int, str]:
        mark = next((at for at, mark in enumerate(marks) if mark.match(key)), len(marks))
        return any(key not in some for some in settings), mark, key

    keys = {key for some in settings for key in some}
    first = settings[0]
    return sorted(
        (k for k in keys if any(s.get(k, ABSENT) != first.get(k, ABSENT) for s in settings)),
        key=rank,
    )


def _short(keys: Sequence[str]) -> dict[str, str]:
    """{key: its last words, as many as tell it from the other keys}."""
    words = {key: [w for w in key.split(".") if w not in CONTAINERS] for key in keys}
    names = {}
    for key, own in words.items():
        others = [other for k, other in words.items() if k != key]
        least = 2 if own[-1] in VAGUE else 1
        lengths = (
            n for n in range(least, len(own) + 1) if own[-n:] not in [o[-n:] for o in others]
        )
        length = next(lengths, 0)
        names[key] = " ".join(own[-length:]) if length else key
    return names


def _part(name: str, value: Any) -> str:
    if value is ABSENT:
        return f"no {name}"
    return f"{name} {written(value)}"


def written(value: Any) -> str:
    """A value of a config in a few letters."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "+".join(written(item) for item in value) or "none"
    return str(value) or "none"


def series(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """Groups that differ in one number of a phase, in its order: [(its key, groups)].

    A group that stands alone is a series of one with the key "". Each group is in one series.
    """
    left, found = list(groups), []
    while left:
        key, members = "", [left[0]]
        phases = left[0].runs[0].config["phases"]
        for dial in (key for key in left[0].settings if _is_dial(key, phases)):
            alike = _alike(left, dial)
            if len(alike) > len(members):
                key, members = dial, alike
        found.append((key, sorted(members, key=lambda g: g.settings.get(key, 0))))
        left = [group for group in left if group not in members]
    return found


def _is_dial(key: str, phases: Sequence[str]) -> bool:
    first, second = (*key.split("."), "")[:2]
    return first in phases and second in ("args", "solver_args")


def _alike(groups: Sequence[Group], dial: str) -> list[Group]:
    """Those that are like the first but for this number, one for each value of it."""
    first, found = groups[0], {}
    for group in groups:
        value = group.settings.get(dial)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and {**group.settings, dial: None} == {**first.settings, dial: None}:
            found.setdefault(value, group)
    return list(found.values())
