"""An answer for each image of a list to forget: found or not, its copies, before and after.

For each line of the list:

    state      "trained on", "held out" (found, and never trained on), "not readable", or "not in
               the data"
    copies     exact and near ones among the other images of the run; see copies.py
    losses     the mean loss under DRAWS masks, of the original and of the unlearned model, beside
               that of never-seen images of the same class
    scores     the membership score: the share of these never-seen images whose loss is higher, ties
               half. 0.5 is expected of an image that was never seen; near 1 it is remembered, near
               0 over-forgotten. With a retrained model the loss is first divided by that model's,
               so that hard and easy images compare (as RMIA, arXiv 2312.03262, and as the audit
               `membership` does)

A score of one image is a weak statement: one in twenty never-seen images has a score of at least
0.95. What all listed images show together is the audit `membership`.

The answers are kept in the workdir with the names of the images; pages and records get salted
digests in their place (record/content.py). They are made again if the weights, the list or the
images change.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from l2l_jax.data import class_selection, key_lists, splits
from l2l_jax.data.duplicates import FORGET
from l2l_jax.engine import copies, evaluation
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import Outcome
from l2l_jax.engine.subject import Examination, Laboratory
from l2l_jax.lib import config_dicts, files, hosts
from l2l_jax.lib.errors import UserError
from l2l_jax.lib.per_image import mean_loss
from l2l_jax.lib.rng import seed_of
from l2l_jax.record import answers as tables
from l2l_jax.record.content import Salt
from l2l_jax.types import ImageSet, Params

log = logging.getLogger(__name__)

DRAWS = 16  # masks of each image, over all training tasks
UNSEEN = 50  # never-seen images of each class, at most
CHUNK = 1024  # images in memory at a time
STATES = {"train": "trained on", "eval": "held out"}
Losses = Float[np.ndarray, " N"]
Row = dict[str, Any]


def answer(experiment: Experiment, outcome: Outcome, results: Mapping[str, Any]) -> None:
    """Writes answers.json and answers.csv of a run that forgets a list; of another run, nothing."""
    if not config_dicts.forgets_a_list(experiment.config):
        return
    variants = evaluation.variants(experiment, outcome)
    if "unlearned" not in variants:
        return
    workdir, lines = experiment.workdir, hosts.json_from_main(_lines(experiment))
    decides = [results["digests"]["weights"], results["digests"]["splits"], experiment.plan.seed,
               experiment.config["evaluate"]["batch_size"], DRAWS, UNSEEN, lines]  # fmt: skip
    key = files.digest_of_lines([str(files.as_json(decides))])
    if hosts.from_main(int(workdir.read_answers().get("key") == key)):
        return
    rows = _rows(experiment, variants, lines)
    if not hosts.is_main():
        return
    salt = Salt(workdir)
    rows = [row | {"digest": salt.digest(row["image"])} for row in rows]
    relative = any(name.startswith("retrained") for name in variants)
    files.write_json(workdir.answers, {"key": key, "relative": relative, "rows": rows})
    with files.atomic_write(workdir.answers_table) as file:
        file.write(tables.table(rows, names=True).encode())
    log.info("the answer to each line of the list is in %s", workdir.answers_table)


def _lines(experiment: Experiment) -> list[str]:
    """The lines of the list; those of earlier answers, or of the splits, if the list is gone."""
    path = Path(experiment.config["split"]["forget"]["files"]).expanduser()
    try:
        return key_lists.read(path)
    except (UserError, OSError):
        known = [row["image"] for row in experiment.workdir.read_answers().get("rows", ())]
        return known or sorted({key for s in _forget_splits(experiment) for key in s.keys})


def _forget_splits(experiment: Experiment) -> list[Any]:
    return [experiment.splits[name] for name in FORGET if name in experiment.splits]


def _rows(experiment: Experiment, variants: Mapping[str, Params], lines: list[str]) -> list[Row]:
    """The answers without digests, in the order of the list."""
    places = {
        key: (split.part, int(row))
        for split in _forget_splits(experiment)
        for key, row in zip(split.keys, split.indices, strict=True)
    }
    found = [key for key in lines if key in places]
    duplicated = copies.find(experiment, [places[key] for key in found])
    measured = _measured(experiment, variants, [places[key] for key in found])
    in_data = {key for part in STATES for key in experiment.sources[part].keys}
    rows = []
    for line in lines:
        if line not in places:
            state = "not readable" if line in in_data else "not in the data"
            rows.append({"image": line, "state": state})
            continue
        place = places[line]
        exact, near = duplicated[place].exact, duplicated[place].near
        names = [experiment.sources[part].keys[row] for part, row in (*exact, *near)]
        rows.append(
            {
                "image": line,
                "state": STATES[place[0]],
                "exact_copies": len(exact),
                "near_copies": len(near),
                "copies_in": copies.where(experiment, (*exact, *near)),
                "copies": names,
                **measured[place],
            }
        )
    return rows


def _measured(
    experiment: Experiment, variants: Mapping[str, Params], places: list[copies.Place]
) -> dict[copies.Place, Row]:
    """{image: {"loss_before", "loss_after", "unseen_before", "unseen_after", "score_before",
    "score_after"}}; the last four are None without never-seen images of the class.
    """
    chosen = _unseen(experiment, places)
    laboratory = Laboratory(experiment)
    losses: dict[str, tuple[Losses, dict[str, Losses]]] = {}
    for variant, params in variants.items():
        examined = Examination(laboratory, variant, params, {}, {})
        own = _losses(examined, "forget_train", places)
        losses[variant] = (
            own,
            {name: _losses(examined, "forget_eval", unseen) for name, unseen in chosen.items()},
        )
    retrained = [losses[name] for name in variants if name.startswith("retrained")]
    found: dict[copies.Place, Row] = {}
    for at, place in enumerate(places):
        name, row = _class(experiment, place), {}
        for variant, when in (("original", "before"), ("unlearned", "after")):
            own, of_class = losses[variant]
            unseen = of_class.get(name)
            row[f"loss_{when}"] = float(own[at])
            row[f"unseen_{when}"] = None if unseen is None else float(np.mean(unseen))
            row[f"score_{when}"] = None
            if unseen is not None:
                mine, theirs = own[at], unseen
                if retrained:
                    mine = mine / np.mean([each[0][at] for each in retrained])
                    theirs = theirs / np.mean([each[1][name] for each in retrained], axis=0)
                row[f"score_{when}"] = score(float(mine), theirs)
        found[place] = row
    return found


def score(own: float, unseen: Losses) -> float:
    """The share of never-seen images with a higher loss than an image's own; ties count half."""
    return float(np.mean((unseen > own) + 0.5 * (unseen == own)))


def _class(experiment: Experiment, place: copies.Place) -> str:
    source = experiment.sources[place[0]]
    return source.classes[source.labels[place[1]]]


def _unseen(experiment: Experiment, places: list[copies.Place]) -> dict[str, list[copies.Place]]:
    """{class of a listed image: held-out images of it that are not listed}, drawn with the seed.

    Images that were set apart for stop=unseen are not among them.
    """
    source = experiment.sources["eval"]
    used = [split.indices for split in _forget_splits(experiment) if split.part == "eval"]
    if splits.CALIBRATION in experiment.splits:
        used.append(experiment.splits[splits.CALIBRATION].indices)
    rows = np.setdiff1d(np.arange(len(source.keys)), np.concatenate([np.zeros(0, int), *used]))
    names, chosen = np.array(source.classes)[source.labels[rows]], {}
    for name in sorted({_class(experiment, place) for place in places}):
        mine = rows[names == name]
        seed = seed_of(experiment.plan.seed, "answers", name)
        drawn = mine[class_selection.balanced(source.labels[mine], UNSEEN, seed)]
        if len(drawn):
            chosen[name] = [("eval", int(row)) for row in drawn]
    return chosen


def _losses(examined: Any, name: str, places: list[copies.Place]) -> Losses:
    """The mean loss of each image; name: of a set, on which its masks depend."""
    experiment, parts = examined.laboratory.experiment, []
    for at in range(0, len(places), CHUNK):
        chunk = places[at : at + CHUNK]
        pictures = np.stack([copies.small(experiment, place) for place in chunk])
        parts.append(mean_loss(examined, ImageSet(name, pictures, ("",) * len(chunk)), DRAWS))
    return np.concatenate(parts) if parts else np.zeros(0)
