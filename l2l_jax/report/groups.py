"""Groups runs that differ only in their seed, and gives each group a short label.

A label begins with the methods of the phases. Then it states the settings in which a group differs
from others of the same methods: "l2l", "max_loss, alpha 0.1", "ascent, then finetune", "l2l with
epsilon, r 0.25".
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

IGNORED_SECTIONS = ("seed", "runtime")  # may differ within a group, and so may any `reference`
IGNORED_KEYS = ("unclean_reference",)
OMITTED_WORDS = ("args", "solver_args", "optimizer", "name")  # parts of a key that labels omit
AMBIGUOUS_WORDS = ("seed",)  # parts of a key that a label does not use alone
DEFAULT_SOLVER = "weighted"  # labels do not name it
PREFERRED_KEYS = (
    r"{phase}\.solver_args\.",
    r"{phase}\.args\.",
    r"(model|data)\.name",
    r"model\.",
    r"data\.",
    r"{phase}\.steps",
    r"{phase}\.",
)  # patterns of keys that labels state first
MAX_SETTINGS = 3  # in a label, unless more are needed to make it unique
ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one config, one for each seed and in the order of their seeds."""

    label: str
    runs: tuple[Record, ...]
    settings: Mapping[str, Any]  # {dotted name: value} of the config that the runs share
    differences: str  # all settings in which it differs from groups of the same methods

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run."""
        return tuple(run.seed for run in self.runs)

    @property
    def unlearned(self) -> bool:
        """Whether any of the runs has an unlearned model."""
        return any("unlearned" in run.results for run in self.runs)


def grouped(runs: Sequence[Record]) -> list[Group]:
    """The groups, in the order of their first runs; a series is in the order of its setting.

    A second run of the same config and seed begins another group.
    """
    by_config: dict[tuple[str, int], list[Record]] = {}
    for run in runs:
        text, turn = json.dumps(settings_of(run), sort_keys=True), 0
        while any(other.seed == run.seed for other in by_config.get((text, turn), [])):
            turn += 1
        by_config.setdefault((text, turn), []).append(run)
    members = [tuple(sorted(group, key=lambda run: run.seed)) for group in by_config.values()]
    settings = [settings_of(group[0]) for group in members]
    labels, differences = _labels(_bases([group[0] for group in members]), settings)
    repeated = collections.Counter(labels)
    for at, group in enumerate(members):
        if repeated[labels[at]] > 1:  # the same config twice: only the folders differ
            labels[at] += f", {group[0].name}"
    groups = [Group(*parts) for parts in zip(labels, members, settings, differences, strict=True)]
    return [group for _, ordered in series(groups) for group in ordered]


def settings_of(run: Record) -> dict[str, Any]:
    """{dotted name: value} of all settings that decide what a run does, apart from its seed.

    In a path the seed is replaced, so that runs/original-s1 with seed 1 equals runs/original-s2
    with seed 2. "aim" holds the phases that have a stopping criterion, which may depend on whether
    there is a reference.
    """
    decisive = config_dicts.decisive(run.config)
    kept = {key: value for key, value in decisive.items() if key not in IGNORED_SECTIONS}
    kept["aim"] = sorted(run.results["ended"])
    seed = re.compile(rf"(?<![A-Za-z0-9])(s|seed)[-_=]?{run.seed}(?![A-Za-z0-9])")
    return {
        key: seed.sub(r"\1*", value) if isinstance(value, str) and "/" in value else value
        for key, value in _leaves(kept)
        if key not in IGNORED_KEYS and "reference" not in key.split(".")
    }


def _leaves(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        return [(prefix.rstrip("."), node)]
    return [leaf for key, item in node.items() for leaf in _leaves(item, f"{prefix}{key}.")]


def _bases(runs: Sequence[Record]) -> list[str]:
    """The methods of each run as text; if they do not determine the phases, those are added."""
    texts = [_methods(run) for run in runs]
    phases = [tuple(run.config["phases"]) for run in runs]
    variants = {
        text: {p for t, p in zip(texts, phases, strict=True) if t == text} for text in texts
    }
    return [
        text if len(variants[text]) == 1 else f"{text} ({' + '.join(names)})"
        for text, names in zip(texts, phases, strict=True)
    ]


def _methods(run: Record) -> str:
    """Methods with their solvers; of a run without unlearning, the variant that it trains."""
    if "unlearned" not in run.results:
        return run.variants[-1]
    phases = [run.config[phase] for phase in run.config["phases"]]
    named = [p for p in phases if p["method"] != "pretrain"] or phases
    return ", then ".join(name for name, _ in itertools.groupby(map(_method, named)))


def _method(phase: Mapping[str, Any]) -> str:
    solver = "" if phase["solver"] == DEFAULT_SOLVER else f" with {phase['solver']}"
    share = phase.get("saliency", 1)
    return phase["method"] + solver + (f", saliency {share:g}" if share < 1 else "")


def _labels(
    bases: Sequence[str], settings: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """(labels, all differences as text) of groups; groups of one base get different labels."""
    labels, differences = list(bases), [""] * len(bases)
    for base in dict.fromkeys(bases):
        family = [at for at, other in enumerate(bases) if other == base]
        keys = differing([settings[at] for at in family], settings[family[0]]["phases"])
        names = _short(keys)
        parts = {at: [_part(names[k], settings[at].get(k, ABSENT)) for k in keys] for at in family}
        count = min(MAX_SETTINGS, len(keys))
        distinct = len({tuple(texts) for texts in parts.values()})
        while len({tuple(texts[:count]) for texts in parts.values()}) < distinct:
            count += 1
        for at in family:
            labels[at] = ", ".join([base, *parts[at][:count]])
            differences[at] = ", ".join(parts[at])
    return labels, differences


def differing(settings: Sequence[Mapping[str, Any]], phases: Sequence[str]) -> list[str]:
    """Keys whose values differ; PREFERRED_KEYS first, those that some settings lack last."""
    phase = f"({'|'.join(map(re.escape, phases))})"
    patterns = [re.compile(pattern.replace("{phase}", phase)) for pattern in PREFERRED_KEYS]

    def rank(key: str) -> tuple[bool, int, str]:
        first = (at for at, pattern in enumerate(patterns) if pattern.match(key))
        return any(key not in each for each in settings), next(first, len(patterns)), key

    keys = {key for each in settings for key in each}
    first = settings[0]
    return sorted(
        (k for k in keys if any(s.get(k, ABSENT) != first.get(k, ABSENT) for s in settings)),
        key=rank,
    )


def _short(keys: Sequence[str]) -> dict[str, str]:
    """{key: its last words, as many as make it unique}."""
    words = {k: [w for w in k.split(".") if w not in OMITTED_WORDS] or [k] for k in keys}
    names = {}
    for key, own in words.items():
        others = [other for k, other in words.items() if k != key]
        least = 2 if own[-1] in AMBIGUOUS_WORDS else 1
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
    """A value of a config as short text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "+".join(written(item) for item in value) or "none"
    return str(value) or "none"


def series(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """[(key, groups)]: groups that differ only in the number under this key, in its order.

    A group without such others is a series of one with the key "". Each group is in one series.
    """
    remaining, all_series = list(groups), []
    while remaining:
        key, members = "", [remaining[0]]
        phases = remaining[0].runs[0].config["phases"]
        for argument in (k for k in remaining[0].settings if _is_argument(k, phases)):
            candidates = _varying(remaining, argument)
            if len(candidates) > len(members):
                key, members = argument, candidates
        all_series.append((key, sorted(members, key=lambda g: g.settings.get(key, 0))))
        remaining = [group for group in remaining if group not in members]
    return all_series


def _is_argument(key: str, phases: Sequence[str]) -> bool:
    """Whether a key is an argument of the method or the solver of a phase."""
    first, second = (*key.split("."), "")[:2]
    return first in phases and second in ("args", "solver_args")


def _varying(groups: Sequence[Group], key: str) -> list[Group]:
    """Groups that equal the first one except for the number under this key, one per number."""
    first, by_value = groups[0], {}
    for group in groups:
        value = group.settings.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and {**group.settings, key: None} == {**first.settings, key: None}:
            by_value.setdefault(value, group)
    return list(by_value.values())
