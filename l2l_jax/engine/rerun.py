"""Recomputes the figures of a record from the weights and the images at hand, and compares them.

Everything is computed again: completions come from no cache. Nothing in the workdir changes. Images
may be gone, because they were deleted after a purge. Figures of a side with such images cannot be
recomputed, and neither can those of a feature network that the run trained on them; both are
listed. Audits are not repeated; l2l_jax.audit does that.

Two figures agree if they differ by at most one unit of the last digit that is shown, and a
thousandth: other devices round differently.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.data import splits
from l2l_jax.data.splits import Split
from l2l_jax.engine import evaluation, networks, retrained
from l2l_jax.engine.completions import Columns, Completer
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import Outcome, read_run
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Source
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

RELATIVE = 1e-3  # difference of two figures that agree
Cells = Mapping[str, Any]  # {task: {variant: {side: {figure: value}}}}


@dataclasses.dataclass(frozen=True)
class Rerun:
    """What a recomputation found."""

    differences: list[str]  # a sentence for each figure that is another one
    gone: list[str]  # a sentence for whatever cannot be recomputed
    compared: int  # figures


class _Fresh(Completer):
    """A Completer that reads nothing from the cache."""

    def cached(self, key: tuple[str, str, str], make: Callable[[], Columns]) -> Columns:
        del key
        return make()


def rerun(folder: Path, recorded: Mapping[str, Any]) -> Rerun:
    """Recomputes the figures of a workdir; recorded: findings.json of its record.

    ConfigError if the folder holds no finished run; DataMissing if its data set is not there.
    """
    experiment, outcome = read_run(folder)
    experiment, gone = _with_data(experiment)
    with tempfile.TemporaryDirectory() as temporary:
        experiment = dataclasses.replace(experiment, workdir=Workdir(Path(temporary)))
        tasks, weights, left_out = _figures(experiment, outcome, bool(_trained(gone)))
    recorded_weights = Workdir(folder).read_results()["digests"]["weights"]
    differences = [
        f"the weights of the {name} model have the digest {digest}, not {recorded_weights[name]}"
        for name, digest in weights.items()
        if recorded_weights.get(name) != digest
    ]
    found, compared = _compared(recorded, tasks)
    sentences = [
        f"{len(keys):,} of the {count:,} images of {name} are gone"
        for name, (keys, count) in gone.items()
    ]
    sentences += [f"figures of {name}: its network was trained on them" for name in left_out]
    missing = sorted(_sides(recorded["tasks"]) - _sides(tasks))
    sentences += [f"figures of the side {side} cannot be recomputed" for side in missing]
    return Rerun(differences + found, sentences, compared)


def _with_data(experiment: Experiment) -> tuple[Experiment, dict[str, tuple[list[str], int]]]:
    """(the experiment with data and whole splits, {split: (keys that are gone, all images)})."""
    plan, records = experiment.plan, experiment.workdir.read_splits()
    loaded = {part: plan.dataset.load(part) for part in splits.PARTS}
    sources = dict.fromkeys(splits.PARTS, _joined(loaded))
    if plan.proxy:
        sources[splits.PROXY] = plan.proxy.load("train")
    chosen: dict[str, Split] = {}
    gone: dict[str, tuple[list[str], int]] = {}
    for name, record in records.items():
        source = sources[record["part"]]
        row_of = {key: row for row, key in enumerate(source.keys)}
        if absent := [key for key in record["keys"] if key not in row_of]:
            gone[name] = absent, len(record["keys"])
            continue
        rows = np.array([row_of[key] for key in record["keys"]], np.int64)
        chosen[name] = splits.pick(name, record["part"], source, rows, tuple(record["skipped"]))
        if chosen[name].digest != record["digest"]:
            raise ConfigError(f"{experiment.workdir.split(name)} was edited after the run.")
    if not any(name.endswith("_eval") for name in chosen):
        raise ConfigError("The images of all evaluated sides are gone: nothing can be recomputed.")
    references = retrained.load_all(plan.references, experiment.model) if plan.references else ()
    made = dataclasses.replace(experiment, sources=sources, splits=chosen, references=references)
    return made, gone


def _joined(parts: Mapping[str, Source]) -> Source:
    """One source of the images of all parts.

    A data set that draws its held-out part draws another one once images are gone.
    """
    rows = {key: (part, row) for part in parts for row, key in enumerate(parts[part].keys)}
    keys = sorted(rows)
    classes = tuple(dict.fromkeys(name for each in parts.values() for name in each.classes))
    labels = [
        classes.index(parts[part].classes[parts[part].labels[row]])
        for part, row in (rows[key] for key in keys)
    ]

    def read(index: int) -> np.ndarray:
        part, row = rows[keys[index]]
        return parts[part].read(row)

    titles = next(iter(parts.values())).titles
    return Source(keys, np.array(labels, np.int32), classes, read, titles=titles)


def _trained(gone: Mapping[str, Any]) -> list[str]:
    """The splits for training among those with images that are gone."""
    return [name for name in gone if not name.endswith("_eval") and name != splits.CALIBRATION]


def _figures(
    experiment: Experiment, outcome: Outcome, without_own: bool
) -> tuple[Cells, Mapping[str, str], list[str]]:
    """(figures, {variant: digest of its weights}, evaluators that are left out).

    without_own: leave out what reads a feature network that the run itself trains.
    """
    plan, left_out = experiment.plan, []
    evaluators = dict(plan.evaluators)
    skipped = networks.skipped_evaluators(plan, networks.missing_files(plan))
    for name, planned in plan.evaluators.items():
        own = planned.network and not plan.networks[planned.network].plugin.file
        if name in skipped or (own and without_own):
            del evaluators[name]
            left_out += [] if name in skipped else [name]
    experiment = dataclasses.replace(
        experiment, plan=dataclasses.replace(plan, evaluators=evaluators)
    )
    completer = _Fresh(
        experiment, evaluation.variants(experiment, outcome), networks.load(experiment)
    )
    described = evaluation.describe_figures(evaluators)
    tasks, _, _ = evaluation.measure(completer, evaluators, described)
    return tasks, completer.digests, left_out


def _compared(recorded: Mapping[str, Any], tasks: Cells) -> tuple[list[str], int]:
    """(a sentence for each figure that differs, how many were compared)."""
    different, count = [], 0
    for where, name, value in _each(tasks):
        task, variant, side = where
        before = recorded["tasks"].get(task, {}).get(variant, {}).get(side, {}).get(name)
        if before is None and value is None:
            continue
        count += 1
        figure = recorded["figures"].get(name, {"title": name, "digits": 4})
        unit = 10.0 ** -figure["digits"]
        if before is None or value is None or abs(before - value) > unit + RELATIVE * abs(before):
            different.append(
                f"{figure['title']} of {task}, {variant}, {side} is {value}, recorded is {before}"
            )
    return different, count


def _sides(tasks: Cells) -> set[str]:
    return {side for (_, _, side), _, _ in _each(tasks)}


def _each(tasks: Cells) -> Iterator[tuple[tuple[str, str, str], str, Any]]:
    for task, variants in tasks.items():
        for variant, sides in variants.items():
            for side, values in sides.items():
                for name, value in values.items():
                    yield (task, variant, side), name, value
