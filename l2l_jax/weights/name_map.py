"""One table of names serves import and export, so that each is the other's inverse.

A rule pairs an official name with ours; `{i}` and `{j}` stand for numbers, in the same order on
both sides:

    Rule("blocks.{i}.norm1.weight", "encoder/blocks/{i}/norm1/scale")
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from l2l_jax.lib import trees
from l2l_jax.lib.errors import WrongWeights

EXTRA_KEY = "l2l_jax"  # beside the state dict of an official file: what the official class has not


@dataclasses.dataclass(frozen=True)
class Convert:
    """How an array changes on the way in and back out."""

    from_torch: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


identity = Convert(lambda x: x, lambda x: x)
transpose = Convert(np.transpose, np.transpose)  # PyTorch linear weights are [out, in]
convolution = Convert(  # and kernels [out, in, h, w], ours [h, w, in, out]
    lambda w: w.transpose(2, 3, 1, 0), lambda k: k.transpose(3, 2, 0, 1)
)


@dataclasses.dataclass(frozen=True)
class Rule:
    torch: str
    ours: str
    convert: Convert = identity


def linear(torch: str, ours: str, kernel: Convert = transpose) -> list[Rule]:
    """The two arrays of a layer with a bias."""
    weight = Rule(f"{torch}.weight", f"{ours}/kernel", kernel)
    return [weight, Rule(f"{torch}.bias", f"{ours}/bias")]


def norm(torch: str, ours: str) -> list[Rule]:
    """Scale and bias of a normalisation."""
    return [Rule(f"{torch}.weight", f"{ours}/scale"), Rule(f"{torch}.bias", f"{ours}/bias")]


def _translate(name: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, int] | None:
    for at, (source, goal) in enumerate(pairs):
        pattern = (
            re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{j\}", r"(?P<j>\d+)")
        )
        if found := re.fullmatch(pattern, name):
            return goal.format(**found.groupdict()), at
    return None


def _apply(given: Mapping[str, np.ndarray], rules: Sequence[Rule], inward: bool) -> dict:
    pairs = [(r.torch, r.ours) if inward else (r.ours, r.torch) for r in rules]
    result = {}
    for name, value in given.items():
        if hit := _translate(name, pairs):
            convert = rules[hit[1]].convert
            result[hit[0]] = (convert.from_torch if inward else convert.to_torch)(value)
        elif not inward:
            raise WrongWeights(f"No rule for the name {name}.")
    return result


def official(ours: str, rules: Sequence[Rule]) -> str:
    """The official name of one of our arrays. WrongWeights if no rule knows it."""
    if hit := _translate(ours, [(rule.ours, rule.torch) for rule in rules]):
        return hit[0]
    raise WrongWeights(f"No rule for the name {ours}.")


def unknown_arrays(state: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> str:
    """The official names that no rule knows, as a sentence ('' if there are none)."""
    pairs = [(rule.torch, rule.ours) for rule in rules]
    unknown = sorted(name for name in state if not _translate(name, pairs))
    listed = ", ".join(unknown[:10])
    more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    return f"No rule for the names {listed}{more}." if unknown else ""


def as_is(tree: trees.Tree, *_: object) -> trees.Tree:
    """For models whose official files hold just what ours do."""
    return tree


def to_params(state: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> trees.Tree:
    """An official state dict as our nested tree, without what no rule knows (see `strangers`)."""
    return trees.unflatten(_apply(state, rules, inward=True))


def to_state_dict(tree: trees.Tree, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Our tree (canonical layout) as an official state dict, contiguous arrays."""
    state = _apply(trees.flatten(tree), rules, inward=False)
    return {name: np.ascontiguousarray(value) for name, value in state.items()}
