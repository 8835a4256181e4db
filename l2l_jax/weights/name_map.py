"""Translates array names between official PyTorch files and this project.

One list of rules serves import and export, so that each is the inverse of the other. A rule pairs
an official name with ours; `{i}` and `{j}` stand for numbers, in the same order on both sides:

    Rule("blocks.{i}.norm1.weight", "encoder/blocks/{i}/norm1/scale")
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from l2l_jax.lib import trees
from l2l_jax.lib.errors import WrongWeights

EXTRA_KEY = "l2l_jax"  # entry of an official file for arrays that the official class lacks


@dataclasses.dataclass(frozen=True)
class Convert:
    """How the values of an array change on import and on export."""

    from_torch: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


identity = Convert(lambda x: x, lambda x: x)
transpose = Convert(np.transpose, np.transpose)  # linear: PyTorch [out, in], ours [in, out]
convolution = Convert(  # PyTorch [out, in, h, w], ours [h, w, in, out]
    lambda w: w.transpose(2, 3, 1, 0), lambda k: k.transpose(3, 2, 0, 1)
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """An official name, our name, and the conversion of the values."""

    torch: str
    ours: str
    convert: Convert = identity


def linear(torch: str, ours: str, kernel: Convert = transpose) -> list[Rule]:
    """Rules for weight and bias of a linear or convolutional layer."""
    weight = Rule(f"{torch}.weight", f"{ours}/kernel", kernel)
    return [weight, Rule(f"{torch}.bias", f"{ours}/bias")]


def norm(torch: str, ours: str) -> list[Rule]:
    """Rules for scale and bias of a normalisation layer."""
    return [Rule(f"{torch}.weight", f"{ours}/scale"), Rule(f"{torch}.bias", f"{ours}/bias")]


def _translate(name: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, int] | None:
    """(translated name, position of the pair that matches), or None."""
    for position, (source, target) in enumerate(pairs):
        pattern = (
            re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{j\}", r"(?P<j>\d+)")
        )
        if match := re.fullmatch(pattern, name):
            return target.format(**match.groupdict()), position
    return None


def _apply(
    arrays: Mapping[str, np.ndarray], rules: Sequence[Rule], importing: bool
) -> dict[str, np.ndarray]:
    pairs = [(r.torch, r.ours) if importing else (r.ours, r.torch) for r in rules]
    result = {}
    for name, value in arrays.items():
        if hit := _translate(name, pairs):
            convert = rules[hit[1]].convert
            result[hit[0]] = (convert.from_torch if importing else convert.to_torch)(value)
        elif not importing:
            raise WrongWeights(f"No rule for the name {name}.")
    return result


def official(ours: str, rules: Sequence[Rule]) -> str:
    """The official name of one of our arrays. WrongWeights if no rule matches it."""
    if hit := _translate(ours, [(rule.ours, rule.torch) for rule in rules]):
        return hit[0]
    raise WrongWeights(f"No rule for the name {ours}.")


def unknown_arrays(state: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> str:
    """A sentence that lists the official names without a rule ('' if there are none)."""
    pairs = [(rule.torch, rule.ours) for rule in rules]
    unknown = sorted(name for name in state if not _translate(name, pairs))
    listed = ", ".join(unknown[:10])
    more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    return f"No rule for the names {listed}{more}." if unknown else ""


def to_params(state: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> trees.Tree:
    """An official state dict as our nested dict; see `unknown_arrays` for what has no rule."""
    return trees.unflatten(_apply(state, rules, importing=True))


def to_state_dict(tree: trees.Tree, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Our parameters (canonical layout) as an official state dict of contiguous arrays."""
    state = _apply(trees.flatten(tree), rules, importing=False)
    return {name: np.ascontiguousarray(value) for name, value in state.items()}
