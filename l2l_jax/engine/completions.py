"""Completions of the evaluated images by every variant of the model, and the features of each."""

import collections
import functools
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import class_selection, loader
from l2l_jax.data import images as pictures
from l2l_jax.engine import evaluated, judging
from l2l_jax.engine.evaluated import HELD_OUT, evaluated_sets
from l2l_jax.engine.experiment import Experiment
from l2l_jax.lib import files, hosts, pixels, sealed, sharding, trees
from l2l_jax.lib import rng as rngs
from l2l_jax.types import Array, Completions, FeatureNetwork, Params

log = logging.getLogger(__name__)

SPLIT = "split"  # the entry of a file of the cache that has the digest of the split
PICTURES = ("images", "hidden", "completed")  # kept for the examples of the grids only
GRID_EXAMPLES = 10  # of each side
OUTPUTS = ("features", "logits")  # of a feature network
Columns = dict[str, np.ndarray]  # {name: one row for each image}
Program = Callable[..., dict[str, Array]]
Key = tuple[str, str, str]  # (variant, side, task)
T = TypeVar("T")


class Completer:
    """`types.Evaluation`: completions and their features, each computed once, sharded.

    During `judged` a second thread reads completions while this one computes the next.
    """

    def __init__(
        self,
        experiment: Experiment,
        params: Mapping[str, Params],
        networks: Mapping[str, FeatureNetwork],
    ):
        self.variants = tuple(params)
        self.sets = evaluated_sets(experiment.splits, experiment.sources, experiment.plan.seed)
        self.sides = tuple(side for side in self.sets if side in HELD_OUT)
        self.tasks = tuple(planned.name for planned in experiment.plan.evaluate_tasks)
        self.shown = tuple(s for s in self.sides if not evaluated.withheld(experiment.config, s))
        self.seed = experiment.plan.seed
        self.digests = {v: trees.digest(experiment.canonical(p)) for v, p in params.items()}
        self._experiment, self._params, self._networks = experiment, params, networks
        on_host = {name: network.params for name, network in networks.items()}
        everywhere = jax.tree.map(lambda _: sharding.replicated(experiment.mesh), on_host)
        self._network_params = sharding.place(on_host, everywhere)
        self._programs: dict[str, Program] = {}
        self._describe = jax.jit(sharding.on(experiment.mesh, self._features))
        self._columns: dict[Key, Columns] = {}
        self.kept: dict[str, dict[str, str]] = {"pictures": {}, "records": {}}  # SHA-256 by name
        self._ahead = judging.Ahead[Key](self._complete)

    def completions(self, variant: str, side: str, task: str, network: str = "main") -> Completions:
        """All images of a side, hidden and completed; the same masks for every variant.

        Images are completed once and then described by all networks; `network` says whose features
        and logits are returned.
        """
        key = (variant, side, task)
        self._ahead.need(key)
        columns, real = self._columns[key], self._columns["real", side, ""]
        features: dict[str, Any] = {k: columns.get(f"{network}/{k}") for k in OUTPUTS}
        features |= {f"real_{k}": real.get(f"{network}/{k}") for k in OUTPUTS}
        return Completions(**{k: x for k, x in columns.items() if "/" not in k}, **features)

    def judged(self, judge: Callable[[], T], cells: Sequence[Key]) -> T:
        """What judge() returns, in a second thread, while this one completes `cells` in order."""
        return self._ahead.run(judge, cells)

    def _complete(self, key: Key) -> None:
        """Computes the columns of a cell, and those of its complete images, once."""
        variant, side, task = key
        if key not in self._columns:
            log.info("evaluate: %s model, %s images, %s", *key)
            params, complete = self._params[variant], self.program(task)
            others = {name: self._params[name] for name in self._references(variant)}
            base = rngs.key(self.seed, "evaluate", side, task)

            def program(images: Array, batch: int) -> dict[str, Array]:
                completed = complete(params, others, images, rngs.fold(base, batch))
                return completed | self._describe(self._network_params, completed["completed"])

            self._columns[key] = self.cached(key, lambda: self.over_batches(side, program))
        self._complete_real(side)

    def _references(self, variant: str) -> list[str]:
        """The retrained models that a variant is compared with: all but the variant itself."""
        return [v for v in self.digests if v.startswith("retrained") and v != variant]

    def cached(self, key: Key, make: Callable[[], Columns]) -> Columns:
        """What make() returns; what many runs share, such as the original's, is kept in the cache.

        key: (variant, side, task); the variant "real" stands for the complete images, which have
        no task. The file is named after everything that decides its content, including the code
        and the devices, and is made again if it does not fit its digest.
        """
        variant, side, task = key
        if variant == "unlearned" or not hosts.single_process():
            return make()
        experiment, config = self._experiment, self._experiment.config
        split, digest = self.sets[side], self.digests.get
        references = [self.digests[name] for name in self._references(variant)]
        networks = {name: network.about for name, network in self._networks.items()}
        stamp = experiment.sources[split.part].stamp  # keys alone do not tell one tree from another
        stamps = stamp and files.digest_of_lines([stamp(row) for row in split.indices])
        decides = [
            *(variant == "real", digest(variant), references, split.digest, stamps, task),
            *(config["tasks"].get(task), self.seed, config["model"], config["data"]),
            *(config["evaluate"]["batch_size"], networks, str(jax.devices()), jax.__version__),
            files.code_digest(),
        ]
        name = files.digest_of_lines([json.dumps(decides, sort_keys=True)])[:32]
        path = files.cache_dir() / "completions" / f"{name}.npz"
        if stored := sealed.read(path, name):
            with np.load(io.BytesIO(stored)) as arrays:
                return {column: arrays[column] for column in arrays if column != SPLIT}
        columns = make()
        named = {SPLIT: np.array(split.digest)}  # whose images it is of: see engine/purge.py
        write = functools.partial(np.savez, allow_pickle=False, **columns, **named)
        sealed.write_if_possible(path, name, write)
        return columns

    def keep_picture(self, name: str, image: np.ndarray) -> None:
        """Writes images/<name>.png; image: uint8 RGB [H, W, 3]."""
        path = self._experiment.workdir.picture(name)
        if hosts.is_main():
            pictures.write_png(path, image)
            self.kept["pictures"][name] = files.sha256(path)

    def keep_record(self, name: str, record: Any) -> None:
        """Writes <name>.json."""
        path = self._experiment.workdir.record(name)
        if hosts.is_main():
            files.write_json(path, record)
            self.kept["records"][name] = files.sha256(path)

    def program(self, task: str) -> Program:
        """One compiled program for a task: hide, complete, measure.

        (params, params of retrained models by name, uint8 images, key) -> the columns of
        `Completions` without features.
        """
        if task not in self._programs:
            model = self._experiment.model
            planned = next(t for t in self._experiment.plan.evaluate_tasks if t.name == task)
            visible = planned.task.visible(model.grid, **planned.args)

            def complete(
                params: Params, others: Mapping[str, Params], images: Array, key: Array
            ) -> dict[str, Array]:
                real, mask_key = pixels.to_unit_range(images), rngs.fold(key, "mask")
                mask = planned.task.mask(mask_key, images.shape[0], model.grid, **planned.args)
                hidden = pixels.hidden_pixels(mask, model.image_size)
                values = jnp.maximum(3 * jnp.sum(hidden, axis=(1, 2, 3)), 1)

                def completed_by(params: Params) -> Array:
                    made = model.reconstruct(params, real, mask, rngs.fold(key, "model"), visible)
                    return jnp.round(made * 255).astype(jnp.uint8)  # what a saved picture holds

                def mean(errors: Array) -> Array:
                    return jnp.sum(jnp.where(hidden, errors, 0.0), axis=(1, 2, 3)) / values

                completed = completed_by(params)
                shown = pixels.to_unit_range(completed)
                columns = {
                    "images": images,
                    "hidden": hidden[..., 0],
                    "completed": completed,
                    "l1": mean(jnp.abs(shown - real)),
                    "mse": mean((shown - real) ** 2),
                }
                distances = []
                for other in others.values():
                    difference = shown - pixels.to_unit_range(completed_by(other))
                    distances.append(jnp.sqrt(mean(difference**2)))
                if distances:
                    columns["retrain_distance"] = sum(distances[1:], distances[0]) / len(distances)
                return columns

            self._programs[task] = jax.jit(sharding.on(self._experiment.mesh, complete))
        return self._programs[task]

    def over_batches(self, side: str, program: Callable[[Array, int], dict[str, Array]]) -> Columns:
        """The program on every batch of a side, concatenated in key order.

        program(uint8 images, number of the batch) returns columns; those in PICTURES are kept for
        the examples of the grids only. The columns of a batch are fetched once the next batch is
        dispatched, so that the devices do not wait for the host.
        """
        experiment, split = self._experiment, self.sets[side]
        picked = loader.Subset(experiment.sources[split.part], split.indices)
        size = experiment.config["evaluate"]["batch_size"]
        place, examples = sharding.batch_sharding(experiment.mesh), self.grid_examples(side)
        columns = collections.defaultdict(list)
        batches = loader.eval_batches(picked, experiment.model.image_size, size, experiment.host)

        def fetch(computed: dict[str, Array], batch: int) -> None:
            here = examples[examples // size == batch] % size
            wanted = {k: x for k, x in computed.items() if len(here) or k not in PICTURES}
            for name, value in hosts.gather(wanted).items():
                columns[name].append(value[here] if name in PICTURES else value)

        placed = (jax.make_array_from_process_local_data(place, rows) for rows in batches)
        dispatched = ((program(images, batch), batch) for batch, images in enumerate(placed))
        before = next(dispatched)
        for after in dispatched:
            fetch(*before)
            before = after
        fetch(*before)
        count = len(picked)
        return {name: np.concatenate(parts)[:count] for name, parts in columns.items()}

    def _complete_real(self, side: str) -> None:
        """Computes what the networks return for the complete images, once."""
        key = ("real", side, "")
        if key not in self._columns:

            def program(images: Array, _: int) -> dict[str, Array]:
                return self._describe(self._network_params, images)

            self._columns[key] = self.cached(key, lambda: self.over_batches(side, program))

    def _features(self, params: Mapping[str, Params], images: Array) -> dict[str, Array]:
        """{"NETWORK/features": [B, D], "NETWORK/logits": [B, C]} float32 of uint8 images."""
        columns, images = {}, pixels.to_unit_range(images)
        for name, network in self._networks.items():
            outputs = network.apply(params[name], images)
            for output, value in zip(OUTPUTS, outputs, strict=True):
                columns[f"{name}/{output}"] = value.astype(jnp.float32)
        return columns

    def labels(self, side: str) -> np.ndarray:
        """The class of each image of a side, int32 [N]: rows of `titles(side)`."""
        split = self.sets[side]
        return self._experiment.sources[split.part].labels[split.indices]

    def titles(self, side: str) -> tuple[str, ...]:
        """All classes of the source of a side, as people call them."""
        source = self._experiment.sources[self.sets[side].part]
        return tuple(source.titles or source.classes)

    def grid_examples(self, side: str) -> np.ndarray:
        """Rows of the examples for the grids: seeded, one class after the other; sorted."""
        seed = rngs.seed_of(self.seed, "shown", side)
        return class_selection.balanced(self.labels(side), GRID_EXAMPLES, seed)


class TrainingImages:
    """`types.Evaluation` of one side of training images under the first task.

    It keeps no pictures and no records, so that the page does not show the images to forget.
    """

    def __init__(self, completer: Completer, side: str):
        self.variants, self.seed = completer.variants, completer.seed
        self.sides, self.shown, self.tasks = (side,), (), completer.tasks[:1]
        self.completions = completer.completions

    def keep_picture(self, name: str, image: np.ndarray) -> None:
        """Nothing."""

    def keep_record(self, name: str, record: Any) -> None:
        """Nothing."""
