"""What the weights of a run were trained on, through the whole chain of files that they come from.

A training is a plain dict, written into weights files and results.json:

    {"loaded": None, or {"weights": FILE, "digest", "groups": [...], "training": a training, or
                         None},
     "phases": {PHASE: {"method", "groups": [...], "steps", "data": NAME,
                        "sides": {SIDE: {"split", "digest", "images", "passes"}}}}}

`loaded` is the weights file that the first phase started from; its `training` is None if nobody
recorded it, as for a published file. A weights file of this project holds its own training; those
of the bundled files are in weights/bundled/training.json.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from l2l_jax.data import splits
from l2l_jax.engine.plan import PhasePlan, Plan
from l2l_jax.engine.training_sets import own_sides
from l2l_jax.lib import files
from l2l_jax.weights.pretrained import BUNDLED
from l2l_jax.weights.safetensors import Weights

Training = Mapping[str, Any]
SplitRecords = Mapping[str, Mapping[str, Any]]  # as Workdir.read_splits returns them
TOKENIZER = "tokenizer"  # the parameter group that turns images into tokens; see models/mage.py


def training_of(
    plan: Plan, records: SplitRecords, done: Mapping[str, int], loaded: Weights | None
) -> dict[str, Any]:
    """The training of a run's result. done: {phase: steps that were done}, of the phases to count.

    loaded: the original that the run started from, if it is a file.
    """
    phases = {
        name: _phase(plan, plan.phases[name], records, steps)
        for name, steps in done.items()
        if steps
    }
    spec = plan.config["weights"]
    return {"loaded": _loaded(loaded, spec) if loaded else None, "phases": phases}


def _phase(plan: Plan, planned: PhasePlan, records: SplitRecords, steps: int) -> dict[str, Any]:
    sides = {}
    for side in planned.method.SIDES:
        name, keys = side, None
        if side == "retain" and planned.on == "proxy":
            name = splits.PROXY
        elif side == "retain" and planned.on == "all":
            own = [records[each]["keys"] for each in own_sides(plan) if each in records]
            name, keys = "all", sorted({key for some in own for key in some})
        if keys is None:
            keys = records.get(name, {"keys": ()})["keys"]
        images = len(keys)
        sides[side] = {
            "split": name,
            "digest": files.digest_of_lines(list(keys)),
            "images": images,
            "passes": planned.batch_size * steps / images if images else 0.0,
        }
    data = plan.proxy if planned.on == "proxy" and plan.proxy else plan.dataset
    return {
        "method": planned.method.name,
        "groups": sorted(planned.method.TRAINABLE),
        "steps": steps,
        "data": data.plugin.name,
        "sides": sides,
    }


def _loaded(weights: Weights, spec: str) -> dict[str, Any]:
    training, groups = training_of_weights(weights), sorted(weights.params)
    return {"weights": spec, "digest": _digest(weights), "groups": groups, "training": training}


def training_of_weights(weights: Weights) -> Training | None:
    """The training that a weights file carries, or that of a bundled file; None: not recorded."""
    return weights.about.get("source", {}).get("training") or bundled().get(_digest(weights))


def _digest(weights: Weights) -> str:
    return weights.about.get("digest", weights.digest)


def bundled() -> dict[str, Any]:
    """{digest of a bundled file: its training}."""
    return files.read_json(BUNDLED / "training.json")


def problems(training: Training, allowed: Collection[str], subject: str = "it") -> Iterator[str]:
    """Why a model is not clean, one reason each: which of its parts may have seen other images.

    allowed: digests of the splits that a clean model may be trained on.
    """
    for name, phase in training["phases"].items():
        for used in phase["sides"].values():
            if used["digest"] not in allowed:
                yield (
                    f"{subject} was trained on other images than the retain split (phase {name}: "
                    f"{_images(used, phase)})"
                )
    loaded = training["loaded"]
    if loaded is None:
        return
    part = f"its {' and '.join(_parts(loaded))} from {loaded['weights']}"
    if loaded["training"] is None:
        yield f"nobody recorded what {part} was trained on"
    else:
        yield from problems(loaded["training"], allowed, part)


def _images(used: Mapping[str, Any], phase: Mapping[str, Any]) -> str:
    return f"{used['images']:,} images, split {used['split']} of {phase['data']}"


def _parts(loaded: Mapping[str, Any]) -> list[str]:
    return [TOKENIZER] if loaded["groups"] == [TOKENIZER] else ["weights"]


def summary(training: Training) -> dict[str, Any]:
    """How the model itself was trained: {"images", "passes", "steps", "splits", "tokenizer"}.

    images: of the retain side; passes: how often it saw each of them, in all phases and in the
    files that it started from. Both are None if that is not known. splits and tokenizer are text.
    """
    chain = list(_chain(training))
    known = bool(chain) and None not in chain
    phases = [phase for phase in chain if phase is not None]
    retain = [p["sides"]["retain"] for p in phases if "retain" in p["sides"]]
    texts = [_images(used, p) for p in phases for used in p["sides"].values()]
    return {
        "images": retain[0]["images"] if known and retain else None,
        "passes": sum(used["passes"] for used in retain) if known and retain else None,
        "steps": sum(phase["steps"] for phase in phases) if known else None,
        "splits": "; ".join(dict.fromkeys(texts)) + ("" if known else " (and what is not known)")
        if texts
        else "not known",
        TOKENIZER: _tokenizer(training),
    }


def _chain(training: Training | None) -> Iterator[Mapping[str, Any] | None]:
    """The phases that trained the model without its tokenizer; None where that is not known."""
    if training is None:
        yield None
        return
    loaded = training["loaded"]
    if loaded and loaded["groups"] != [TOKENIZER]:
        yield from _chain(loaded["training"])
    yield from training["phases"].values()


def _tokenizer(training: Training | None) -> str:
    """The tokenizer of a model and what it was trained on; "" if the model loaded none."""
    if training is None:
        return "not known"
    loaded = training["loaded"]
    if not loaded or TOKENIZER not in loaded["groups"]:
        return ""
    if loaded["groups"] != [TOKENIZER]:
        return _tokenizer(loaded["training"])
    inner = loaded["training"]
    words = summary(inner)["splits"] if inner else "trained on what is not known"
    return f"{loaded['weights']}: {words}"
