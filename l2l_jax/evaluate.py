"""What the original and the unlearned model make of held-out images, judged on the same footing.

    python -m l2l_jax.evaluate --workdir runs/demo

evaluates the last checkpoint of a workdir again and rewrites results.json and report.html.
"""

import argparse
import collections
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.experiment import Experiment, Outcome, restored, walk
from l2l_jax.find import find
from l2l_jax.lib import cli, files, hosts, loader, pixels, preemption, sharding, trees, workdir
from l2l_jax.lib import images as pictures
from l2l_jax.lib import rng as rngs
from l2l_jax.prepare import prepare
from l2l_jax.report import page
from l2l_jax.types import Array, Completions, Features, Params

log = logging.getLogger(__name__)

PICTURES = ("images", "hidden", "completed")  # kept for the shown examples only
SHOWN = 10  # examples of each side in the grids
Columns = dict[str, np.ndarray]


class Judge:
    """`types.Evaluation`: completions and their features, each computed once, sharded."""

    def __init__(self, experiment: Experiment, params: Mapping[str, Params], features: Features):
        self.variants = tuple(params)
        self.sides = tuple(s for s in ("retain", "forget") if f"{s}_eval" in experiment.splits)
        self.tasks = tuple(experiment.config["evaluate"]["tasks"])
        self.seed = experiment.config["seed"]
        self.digests = {v: trees.digest(experiment.canonical(p)) for v, p in params.items()}
        self._experiment, self._params, self._features = experiment, params, features
        everywhere = jax.tree.map(lambda _: sharding.replicated(experiment.mesh), features.params)
        self._judge = sharding.place(features.params, everywhere)
        self._programs: dict[str, Callable[..., dict[str, Array]]] = {}
        self._done: dict[tuple[str, ...], Any] = {}

    def completions(self, variant: str, side: str, task: str) -> Completions:
        """All held-out images of a side, hidden and completed; the same masks for every variant."""
        key = (variant, side, task)
        if key not in self._done:
            log.info("evaluate: %s model, %s images, %s", *key)
            params, complete = self._params[variant], self._completer(task)
            other = self._params.get("retrained") if variant != "retrained" else None
            base = rngs.key(self.seed, "evaluate", side, task)

            def program(images: Array, at: int) -> dict[str, Array]:
                return complete(params, other, self._judge, images, rngs.fold(base, at))

            columns = self._kept(key, lambda: self._over(side, program))
            self._done[key] = Completions(**columns, **self._real(side))
        return self._done[key]

    def _kept(self, key: tuple[str, str, str], make: Callable[[], Columns]) -> Columns:
        """What many runs share, such as the original's completions, is kept in the cache.

        Under the digest of everything that decides it, the code and the devices included.
        """
        variant, side, task = key
        if variant == "unlearned" or not hosts.alone():
            return make()
        experiment, config = self._experiment, self._experiment.config
        split, digest = experiment.splits[f"{side}_eval"], self.digests.get
        decides = [
            *(digest(variant), digest("retrained"), split.digest, task, config["tasks"][task]),
            *(self.seed, config["model"], config["data"], config["evaluate"]["batch_size"]),
            *(self._features.about["digest"], str(jax.devices()), jax.__version__),
            files.code_digest(),
        ]
        name = files.digest_of_lines([json.dumps(decides, sort_keys=True)])[:32]
        path = files.cache_dir() / "completions" / f"{name}.npz"
        if path.exists():
            with np.load(path) as found:
                return dict(found)
        columns = make()
        with files.replacing(path) as file:
            np.savez(file, **columns)
        return columns

    def tokenizer(self, variant: str) -> dict[str, dict[str, float]]:
        """What a model's tokenizer makes of whole images: PSNR in dB, and how many codes it uses.

        images/tokenizer_<side>.png has the image above, and what is left of it below.
        """
        model, params, found = self._experiment.model, self._params[variant], {}

        @jax.jit
        def through(params: Params, images: Array) -> dict[str, Array]:
            given = pixels.unit(images)
            tokens = model.tokenize(params, given)
            made = jnp.round(jnp.clip(model.detokenize(params, tokens), 0, 1) * 255)
            mse = jnp.mean((pixels.unit(made) - given) ** 2, axis=(1, 2, 3))
            completed = made.astype(jnp.uint8)
            return {"images": images, "completed": completed, "mse": mse, "tokens": tokens}

        for side in self.sides:
            columns = self._over(side, lambda images, _: through(params, images))
            rows = [columns["images"], columns["completed"]]
            self.keep_picture(f"tokenizer_{side}", pictures.sheet(rows))
            share = np.bincount(columns["tokens"].ravel(), minlength=model.codes)
            share = share / share.sum()
            entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
            found[side] = {
                "psnr": float(np.mean(-10 * np.log10(np.maximum(columns["mse"], 1e-10)))),
                "codebook_usage": float(np.mean(share > 0)),
                "codebook_perplexity": float(np.exp(entropy)),
            }
        return found

    def keep_picture(self, name: str, image: np.ndarray) -> None:
        if hosts.first():
            pictures.write_png(self._experiment.workdir / "images" / f"{name}.png", image)

    def keep_record(self, name: str, record: Any) -> None:
        if hosts.first():
            files.write_json(self._experiment.workdir / f"{name}.json", record)

    def _real(self, side: str) -> Columns:
        """Features of the images as they are."""
        if ("real", side) not in self._done:
            apply = jax.jit(self._features.apply)

            def program(images: Array, at: int) -> dict[str, Array]:
                del at
                return _judged(apply(self._judge, pixels.unit(images)))

            columns = self._over(side, program)
            self._done["real", side] = {f"real_{name}": x for name, x in columns.items()}
        return self._done["real", side]

    def _completer(self, task: str) -> Callable[..., dict[str, Array]]:
        """One compiled program for a task: hide, complete, measure."""
        if task not in self._programs:
            model, (module, args) = self._experiment.model, self._experiment.task(task)
            visible = module.visible(model.grid, **args)

            def complete(
                params: Params, other: Params | None, judge: Params, images: Array, key: Array
            ) -> dict[str, Array]:
                given = pixels.unit(images)
                mask = module.mask(rngs.fold(key, "mask"), images.shape[0], model.grid, **args)
                hidden = pixels.hidden(mask, model.image_size)
                values = jnp.maximum(3 * jnp.sum(hidden, axis=(1, 2, 3)), 1)

                def made(params: Params) -> Array:
                    made = model.reconstruct(params, given, mask, rngs.fold(key, "model"), visible)
                    return jnp.round(made * 255).astype(jnp.uint8)  # what a saved picture holds

                def mean(errors: Array) -> Array:
                    return jnp.sum(jnp.where(hidden, errors, 0.0), axis=(1, 2, 3)) / values

                completed = made(params)
                shown = pixels.unit(completed)
                found = _judged(self._features.apply(judge, shown)) | {
                    "images": images,
                    "hidden": hidden[..., 0],
                    "completed": completed,
                    "l1": mean(jnp.abs(shown - given)),
                    "mse": mean((shown - given) ** 2),
                }
                if other is not None:
                    found["apart"] = jnp.sqrt(mean((shown - pixels.unit(made(other))) ** 2))
                return found

            self._programs[task] = jax.jit(complete)
        return self._programs[task]

    def _over(self, side: str, program: Callable[[Array, int], dict[str, Array]]) -> Columns:
        """The program on every batch of a side, concatenated in key order; pictures if shown."""
        experiment, split = self._experiment, self._experiment.splits[f"{side}_eval"]
        picked = loader.Picked(experiment.sources[split.part], split.indices)
        size = experiment.config["evaluate"]["batch_size"]
        place, shown = sharding.batch(experiment.mesh), self._shown(side)
        columns = collections.defaultdict(list)
        batches = loader.eval_batches(picked, experiment.model.image_size, size, experiment.host)
        for at, rows in enumerate(batches):
            made = program(jax.make_array_from_process_local_data(place, rows), at)
            here = shown[shown // size == at] % size
            wanted = {k: x for k, x in made.items() if len(here) or k not in PICTURES}
            for name, value in hosts.gathered(wanted).items():
                columns[name].append(value[here] if name in PICTURES else value)
        count = len(picked)
        return {name: np.concatenate(parts)[:count] for name, parts in columns.items()}

    def _shown(self, side: str) -> np.ndarray:
        """Rows of the examples for the grids: seeded, one class after the other."""
        split = self._experiment.splits[f"{side}_eval"]
        labels = self._experiment.sources[split.part].labels[split.indices]
        rng = np.random.default_rng(rngs.seed_of(self.seed, "shown", side))
        mixed = rng.permutation(len(labels))
        turn = np.empty(len(labels), np.int64)  # how many of its class come before an example
        for label in np.unique(labels):
            mine = mixed[labels[mixed] == label]
            turn[mine] = np.arange(len(mine))
        order = mixed[np.argsort(turn[mixed], kind="stable")]
        return np.sort(order[:SHOWN])


def _judged(pair: tuple[Array, Array]) -> dict[str, Array]:
    return {"features": pair[0].astype(jnp.float32), "logits": pair[1].astype(jnp.float32)}


def evaluate(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """Runs config.evaluators and writes results.json; returns its content."""
    began, config = time.perf_counter(), experiment.config
    params = variants(experiment, outcome)
    name, args = config["features"]["name"], config["features"]["args"]
    model = experiment.model
    features = find("features", name).build(
        experiment.sources, experiment.splits, model.image_size, **args
    )
    shared = hosts.of_first(features.params)  # each process may have made its own
    judge = Judge(experiment, params, dataclasses.replace(features, params=shared))
    tasks: dict = {t: {v: {s: {} for s in judge.sides} for v in params} for t in judge.tasks}
    for name, args in config["evaluators"].items():
        for (variant, side, task), metric, value in find("evaluator", name).evaluate(judge, **args):
            tasks[task][variant][side][metric] = float(value)

    headline = judge.tasks[0]
    results = {
        **tasks[headline],
        "audits": {},
        "tokenizer": judge.tokenizer(judge.variants[-1]) if hasattr(model, "detokenize") else None,
        "seconds": _seconds(experiment) | {"evaluate": time.perf_counter() - began},
        "steps": {phase: list(counts) for phase, counts in outcome.done.items()},
        "cost": _cost(experiment, outcome),
        "ended": _ended(experiment, outcome),
        "reference": config["reference"],
        "trained_on": sorted(experiment.trained_on()),
        "task": headline,
        "tasks": tasks,
        "counts": {side: len(experiment.splits[f"{side}_eval"].keys) for side in judge.sides},
        "classes": {name: list(split.classes) for name, split in experiment.splits.items()},
        "features": {"name": features.name, **features.about},
        "digests": {
            "code": files.code_digest(),
            "splits": {name: split.digest for name, split in experiment.splits.items()},
            "weights": judge.digests,
        },
    }
    if hosts.first():
        # No page tells older figures than the results beside it.
        (experiment.workdir / "report.html").unlink(missing_ok=True)
        files.write_json(experiment.workdir / "results.json", results)
    return results


def variants(experiment: Experiment, outcome: Outcome) -> dict[str, Params]:
    """{"original": ..., "unlearned": ...} and the reference as "retrained", if there is one.

    Of a run that only trains from scratch: {"original": ...}, or {"retrained": ...} if it spared
    the forget images.
    """
    config, retrained = experiment.config, experiment.reference
    if any(not experiment.method(phase).MAKES_ORIGINAL for phase in config["phases"]):
        found = {"original": outcome.original, "unlearned": outcome.final}
        return found | ({"retrained": experiment.placed(retrained.params)} if retrained else {})
    spared = "forget" in experiment.splits and "forget" not in experiment.trained_on()
    return {"retrained" if spared and not config["weights"] else "original": outcome.final}


def _seconds(experiment: Experiment) -> dict[str, float]:
    """Time spent in each phase, over all launches."""
    spent = dict.fromkeys(experiment.config["phases"], 0.0)
    for record in files.read_jsonl(experiment.workdir / "metrics.jsonl"):
        spent[record["phase"]] = record["seconds"]
    return spent


def _cost(experiment: Experiment, outcome: Outcome) -> dict[str, dict[str, float]]:
    """Of each phase, over all launches: seconds, steps, FLOPs, and the peak of memory in bytes."""
    seconds, cost = _seconds(experiment), {}
    for phase, (done, _) in outcome.done.items():
        noted = experiment.noted(phase)
        cost[phase] = {"seconds": seconds[phase], "steps": done}
        if "step_flops" in noted:
            cost[phase]["flops"] = done * noted["step_flops"]
        if "memory" in noted:
            cost[phase]["memory"] = noted["memory"]
    return cost


def _ended(experiment: Experiment, outcome: Outcome) -> dict[str, str]:
    """What became of phases that end when a metric reaches a limit; "not reached" if it did not."""
    last = {r["phase"]: r for r in files.read_jsonl(experiment.workdir / "metrics.jsonl")}
    said = {}
    for phase, (done, total) in outcome.done.items():
        metric, argument = getattr(experiment.method(phase), "UNTIL", ("", ""))
        settings = experiment.config[phase]
        limit = metric and (settings["args"].get(argument) or experiment.noted(phase).get(argument))
        if not limit or phase not in last:
            continue
        where = f"{metric} is {last[phase][metric]:.4g}, {argument} is {limit:.4g}"
        if last[phase]["over"]:
            said[phase] = f"{phase} ended by itself at step {done} of {settings['steps']}: {where}"
        elif done == total:
            said[phase] = (
                f"not reached: after all {total} steps of {phase} {where}; give it more steps or a "
                "higher learning rate"
            )
            log.warning(said[phase])
    return said


def main(argv: list[str] | None = None) -> None:
    """The command line: restores the last checkpoint of every phase and evaluates it."""
    parser = argparse.ArgumentParser(prog="python -m l2l_jax.evaluate", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    folder = parser.parse_args(argv).workdir
    config = workdir.config_of(folder)
    if jax.device_count() % max(1, config["runtime"]["fsdp"]):
        config["runtime"]["fsdp"] = -1  # it was trained on other devices than these
    with preemption.watch() as stop, workdir.locked(folder):
        experiment = prepare(config, folder, stop)
        evaluate(experiment, walk(experiment, restored))
        page.write(folder)


if __name__ == "__main__":
    cli.explained(main)
