"""One table of names serves import and export, so that each is the other's inverse.

A rule pairs an official name with ours; `{i}` stands for a number, the same on both sides:

    Rule("blocks.{i}.norm1.weight", "encoder/blocks/{i}/norm1/scale")
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from l2l_jax.lib import trees
from l2l_jax.lib.errors import WrongWeights


@dataclasses.dataclass(frozen=True)
class Convert:
    """How an array changes on the way in and back out."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


identity = Convert(lambda x: x, lambda x: x)
transpose = Convert(np.transpose, np.transpose)  # PyTorch linear weights are [out, in]


@dataclasses.dataclass(frozen=True)
class Rule:
    theirs: str
    ours: str
    convert: Convert = identity


def _translate(name: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, int] | None:
    for at, (source, goal) in enumerate(pairs):
        pattern = re.escape(source).replace(r"\{i\}", r"(\d+)")
        if found := re.fullmatch(pattern, name):
            number = found.group(1) if found.groups() else ""
            return goal.replace("{i}", number), at
    return None


def _apply(given: Mapping[str, np.ndarray], rules: Sequence[Rule], inward: bool) -> dict:
    pairs = [(r.theirs, r.ours) if inward else (r.ours, r.theirs) for r in rules]
    result, strangers = {}, []
    for name, value in given.items():
        if hit := _translate(name, pairs):
            convert = rules[hit[1]].convert
            result[hit[0]] = (convert.to_ours if inward else convert.to_theirs)(value)
        else:
            strangers.append(name)
    if strangers:
        listed = ", ".join(sorted(strangers)[:10])
        more = f" and {len(strangers) - 10} more" if len(strangers) > 10 else ""
        raise WrongWeights(f"No rule for the names {listed}{more}.")
    return result


def to_ours(state: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> trees.Tree:
    """An official state dict as our nested tree. WrongWeights names what no rule knows."""
    return trees.unflatten(_apply(state, rules, inward=True))


def to_theirs(tree: trees.Tree, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Our tree (canonical layout) as an official state dict, contiguous arrays."""
    state = _apply(trees.flatten(tree), rules, inward=False)
    return {name: np.ascontiguousarray(value) for name, value in state.items()}
