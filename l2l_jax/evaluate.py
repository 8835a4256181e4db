"""What the original and the unlearned model make of held-out images, judged on the same footing.

    python -m l2l_jax.evaluate --workdir runs/demo

evaluates the last checkpoint of a workdir again and rewrites results.json and report.html.
"""

import argparse
import collections
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax import experiment
from l2l_jax.find import find
from l2l_jax.lib import cli, files, loader, masks, preemption, sharding, trees, workdir
from l2l_jax.lib import rng as rngs
from l2l_jax.report import page
from l2l_jax.types import Array, Completions, Features, Params

log = logging.getLogger(__name__)

PICTURES = ("images", "hidden", "completed")  # kept for the shown examples only
SHOWN = 10  # examples of each side in the grids
Columns = dict[str, np.ndarray]
Program = Callable[[Array, Array], dict[str, Array]]  # (uint8 images, key) -> per-example arrays


class Judge:
    """`types.Evaluation`: completions and their features, each computed once, sharded."""

    def __init__(
        self, bench: experiment.Experiment, params: Mapping[str, Params], features: Features
    ):
        self.variants = tuple(params)
        self.sides = tuple(s for s in ("retain", "forget") if f"{s}_eval" in bench.splits)
        self.tasks = tuple(bench.config["evaluate"]["tasks"])
        self.workdir, self.seed = bench.workdir, bench.config["seed"]
        self._bench, self._params, self._features = bench, params, features
        everywhere = jax.tree.map(lambda _: sharding.replicated(bench.mesh), features.params)
        self._judge = sharding.place(features.params, everywhere)
        self._programs: dict[str, Callable] = {}
        self._done: dict[tuple[str, ...], Any] = {}

    def completions(self, variant: str, side: str, task: str) -> Completions:
        """All held-out images of a side, hidden and completed; the same masks for every variant."""
        key = (variant, side, task)
        if key not in self._done:
            log.info("evaluate: %s model, %s images, %s", *key)
            params, complete = self._params[variant], self._completer(task)
            base = rngs.key(self.seed, "evaluate", side, task)
            columns = self._over(
                side,
                lambda images, at: complete(params, self._judge, images, rngs.fold(base, at)),
            )
            self._done[key] = Completions(**columns, **self._real(side))
        return self._done[key]

    def _real(self, side: str) -> Columns:
        """Features of the images as they are."""
        if ("real", side) not in self._done:
            apply = jax.jit(self._features.apply)
            columns = self._over(
                side, lambda images, at: _judged(apply(self._judge, _unit(images)))
            )
            self._done["real", side] = {f"real_{name}": x for name, x in columns.items()}
        return self._done["real", side]

    def _completer(self, task: str) -> Callable[..., dict[str, Array]]:
        """One compiled program for a task: hide, complete, measure."""
        if task not in self._programs:
            model, (module, args) = self._bench.model, self._bench.task(task)
            visible = module.visible(model.grid, **args)

            def complete(params: Params, judge: Params, images: Array, key: Array) -> dict:
                given = _unit(images)
                mask = module.mask(rngs.fold(key, "mask"), images.shape[0], model.grid, **args)
                made = model.reconstruct(params, given, mask, rngs.fold(key, "model"), visible)
                completed = jnp.round(made * 255).astype(jnp.uint8)  # what a saved picture holds
                hidden = masks.to_pixels(mask, model.image_size)
                error = jnp.where(hidden, _unit(completed) - given, 0.0)
                values = jnp.maximum(3 * jnp.sum(hidden, axis=(1, 2, 3)), 1)
                return _judged(self._features.apply(judge, _unit(completed))) | {
                    "images": images,
                    "hidden": hidden[..., 0],
                    "completed": completed,
                    "l1": jnp.sum(jnp.abs(error), axis=(1, 2, 3)) / values,
                    "mse": jnp.sum(error**2, axis=(1, 2, 3)) / values,
                }

            self._programs[task] = jax.jit(complete)
        return self._programs[task]

    def _over(self, side: str, program: Callable[[Array, int], dict[str, Array]]) -> Columns:
        """The program on every batch of a side, concatenated in key order; pictures if shown."""
        split = self._bench.splits[f"{side}_eval"]
        picked = loader.Picked(self._bench.sources[split.part], split.indices)
        size, host = self._bench.config["evaluate"]["batch_size"], self._bench.host
        place, shown = sharding.batch(self._bench.mesh), self._shown(side)
        columns = collections.defaultdict(list)
        batches = loader.eval_batches(picked, self._bench.model.image_size, size, host)
        for at, rows in enumerate(batches):
            if preemption.agreed(self._bench.stop):
                raise preemption.Preempted("evaluation")
            images = jax.make_array_from_process_local_data(place, rows)
            for name, value in sharding.to_host(program(images, at)).items():
                here = shown[(shown >= at * size) & (shown < (at + 1) * size)] - at * size
                columns[name].append(value[here] if name in PICTURES else value)
        count = len(picked)
        return {name: np.concatenate(parts)[:count] for name, parts in columns.items()}

    def _shown(self, side: str) -> np.ndarray:
        """Rows of the examples for the grids: seeded, one class after the other."""
        split = self._bench.splits[f"{side}_eval"]
        labels = self._bench.sources[split.part].labels[split.indices]
        rng = np.random.default_rng(rngs.seed_of(self.seed, "shown", side))
        mixed = rng.permutation(len(labels))
        turn = np.empty(len(labels), np.int64)  # how many of its class come before an example
        for label in np.unique(labels):
            mine = mixed[labels[mixed] == label]
            turn[mine] = np.arange(len(mine))
        order = mixed[np.argsort(turn[mixed], kind="stable")]
        return np.sort(order[:SHOWN])


def _unit(images: Array) -> Array:
    """uint8 -> float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def _judged(pair: tuple[Array, Array]) -> dict[str, Array]:
    return {"features": pair[0].astype(jnp.float32), "logits": pair[1].astype(jnp.float32)}


def evaluate(bench: experiment.Experiment, original: Params, final: Params) -> dict[str, Any]:
    """Runs config.evaluators and writes results.json; returns its content."""
    began = time.perf_counter()
    params = {"original": original}
    if any(not m.MAKES_ORIGINAL for m in _methods(bench.config)):
        params["unlearned"] = final
    settings = bench.config["features"]
    train = {s: bench.splits[s] for s in ("forget", "retain", "proxy") if s in bench.splits}
    features = find("features", settings["name"]).build(
        bench.sources, train, bench.model.image_size, **settings["args"]
    )
    judge = Judge(bench, params, features)
    tasks: dict = {t: {v: {s: {} for s in judge.sides} for v in params} for t in judge.tasks}
    for name, args in bench.config["evaluators"].items():
        for (variant, side, task), metric, value in find("evaluator", name).evaluate(judge, **args):
            tasks[task][variant][side][metric] = float(value)

    headline = judge.tasks[0]
    results = {
        **tasks[headline],
        "audits": {},
        "seconds": _seconds(bench) | {"evaluate": time.perf_counter() - began},
        "task": headline,
        "tasks": tasks,
        "counts": {side: len(bench.splits[f"{side}_eval"].keys) for side in judge.sides},
        "classes": {name: list(split.classes) for name, split in bench.splits.items()},
        "features": {"name": features.name, **features.about},
        "digests": {
            "code": files.code_digest(),
            "splits": {name: split.digest for name, split in bench.splits.items()},
            "weights": {v: trees.digest(bench.canonical(p)) for v, p in params.items()},
        },
    }
    if jax.process_index() == 0:
        files.write_json(bench.workdir / "results.json", results)
    return results


def _methods(config: Mapping[str, Any]) -> list[Any]:
    return [find("method", config[phase]["method"]) for phase in config["phases"]]


def _seconds(bench: experiment.Experiment) -> dict[str, float]:
    """Time spent in each phase, over all launches."""
    spent = dict.fromkeys(bench.config["phases"], 0.0)
    for record in files.read_jsonl(bench.workdir / "metrics.jsonl"):
        spent[record["phase"]] = record["seconds"]
    return spent


def main(argv: list[str] | None = None) -> None:
    """The command line: restores the last checkpoint of every phase and evaluates it."""
    parser = argparse.ArgumentParser(prog="python -m l2l_jax.evaluate", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    folder = parser.parse_args(argv).workdir
    with preemption.watch() as stop:
        bench = experiment.prepare(workdir.config_of(folder), folder, stop)
        evaluate(bench, *experiment.walk(bench, experiment.restored))
    if jax.process_index() == 0:
        page.write(folder)


if __name__ == "__main__":
    cli.explained(main)
