"""Judges at work: what a model makes of held-out images, and what networks see in it."""

import collections
import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import images as pictures
from l2l_jax.data import loader
from l2l_jax.engine.experiment import Experiment
from l2l_jax.lib import files, hosts, pixels, sharding, trees
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.registry import find
from l2l_jax.types import RANDOM_WEIGHTS, Array, Completions, FeatureNetwork, Params
from l2l_jax.weights import feature_networks

log = logging.getLogger(__name__)

PICTURES = ("images", "hidden", "completed")  # kept for the shown examples only
SHOWN = 10  # examples of each side in the grids
SEEN = ("features", "logits")  # what a network tells of an image
MAIN = "main"  # the network of evaluators that name none
Columns = dict[str, np.ndarray]


def missing_files(config: Mapping[str, Any]) -> dict[str, str]:
    """{network: why it is not there} of those whose file is missing."""
    missing = {}
    for name, section in config["networks"].items():
        plugin = find("feature_network", section["name"])
        spec = plugin.file(**section["args"]) if plugin.file else RANDOM_WEIGHTS
        try:
            if spec != RANDOM_WEIGHTS:
                feature_networks.locate(spec)
        except DataMissing as error:
            missing[name] = str(error)
    return missing


def check(experiment: Experiment) -> None:
    """Makes those with a file once, so that a wrong one is told before training and not after.

    ConfigError, WrongWeights; also for a score of classes by a network that knows none.
    """
    config, size = experiment.config, experiment.model.image_size
    missing, mute = missing_files(config), set()
    pictures = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    for name, section in config["networks"].items():
        if name in missing:
            said = "the network %s, and what it measures, will be left out: %s"
            log.warning(said, name, missing[name])
        elif find("feature_network", section["name"]).file:
            made = _built(experiment, section)
            _, logits = jax.eval_shape(made.apply, made.params, pictures)
            mute |= set() if logits.shape[1] else {name}
    for name, section in config["evaluators"].items():
        wants = find("evaluator", section.get("evaluator", name)).NEEDS_LOGITS
        if wants and section["network"] in mute:
            raise ConfigError(
                f"evaluators.{name} needs a network that tells classes apart, and "
                f"{section['network']!r} ({config['networks'][section['network']]['name']}) gives "
                "features only. Name another."
            )


def networks(experiment: Experiment) -> dict[str, FeatureNetwork]:
    """Those that are there, the same on every process."""
    chosen, missing = experiment.config["networks"], missing_files(experiment.config)
    if others := hosts.disagreeing(np.array([name in missing for name in chosen])):
        raise ConfigError(f"Processes {others} have files of other networks; give all the same.")
    with hosts.fail_together():
        built = {n: _built(experiment, some) for n, some in chosen.items() if n not in missing}
    return {  # each process may have made its own
        name: dataclasses.replace(made, params=hosts.from_main(made.params))
        for name, made in built.items()
    }


def _built(experiment: Experiment, section: Mapping[str, Any]) -> FeatureNetwork:
    context = feature_networks.context(
        experiment.sources, experiment.splits, experiment.model.image_size
    )
    return find("feature_network", section["name"]).build(context, **section["args"])


class Completer:
    """`types.Evaluation`: completions and their features, each computed once, sharded."""

    def __init__(
        self,
        experiment: Experiment,
        params: Mapping[str, Params],
        networks: Mapping[str, FeatureNetwork],
    ):
        self.variants = tuple(params)
        self.sides = tuple(s for s in ("retain", "forget") if f"{s}_eval" in experiment.splits)
        self.tasks = tuple(experiment.config["evaluate"]["tasks"])
        self.seed = experiment.config["seed"]
        self.digests = {v: trees.digest(experiment.canonical(p)) for v, p in params.items()}
        self._experiment, self._params, self._networks = experiment, params, networks
        given = {name: network.params for name, network in networks.items()}
        everywhere = jax.tree.map(lambda _: sharding.replicated(experiment.mesh), given)
        self._judges = sharding.place(given, everywhere)
        self._programs: dict[str, Callable[..., dict[str, Array]]] = {}
        self._look = jax.jit(self._judged)  # compiled once for all tasks
        self._done: dict[tuple[str, ...], Any] = {}

    def completions(self, variant: str, side: str, task: str, network: str = MAIN) -> Completions:
        """All held-out images of a side, hidden and completed; the same masks for every variant.

        Completed once, and judged by all networks then; network: whose features and logits to give.
        """
        key = (variant, side, task)
        if key not in self._done:
            log.info("evaluate: %s model, %s images, %s", *key)
            params, complete = self._params[variant], self.completer(task)
            other = self._params.get("retrained") if variant != "retrained" else None
            base = rngs.key(self.seed, "evaluate", side, task)

            def program(images: Array, at: int) -> dict[str, Array]:
                made = complete(params, other, images, rngs.fold(base, at))
                return made | self._look(self._judges, made["completed"])

            self._done[key] = self.kept(key, lambda: self._over(side, program))
        made, real = self._done[key], self._real(side)
        mine = {k: made.get(f"{network}/{k}") for k in SEEN}  # None if its file is missing
        mine |= {f"real_{k}": real.get(f"{network}/{k}") for k in SEEN}
        return Completions(**{k: x for k, x in made.items() if "/" not in k}, **mine)

    def kept(self, key: tuple[str, str, str], make: Callable[[], Columns]) -> Columns:
        """What many runs share, such as the original's completions, is kept in the cache.

        Under the digest of everything that decides it, the code and the devices included. The
        variant "real" stands for the images as they are, which have no task.
        """
        variant, side, task = key
        if variant == "unlearned" or not hosts.single_process():
            return make()
        experiment, config = self._experiment, self._experiment.config
        split, digest = experiment.splits[f"{side}_eval"], self.digests.get
        judged = {name: network.about for name, network in self._networks.items()}
        stamp = experiment.sources[split.part].stamp  # keys alone do not tell one tree from another
        stamps = stamp and files.digest_of_lines([stamp(row) for row in split.indices])
        decides = [
            *(variant == "real", digest(variant), digest("retrained"), split.digest, stamps, task),
            *(config["tasks"].get(task), self.seed, config["model"], config["data"]),
            *(config["evaluate"]["batch_size"], judged, str(jax.devices()), jax.__version__),
            files.code_digest(),
        ]
        name = files.digest_of_lines([json.dumps(decides, sort_keys=True)])[:32]
        path = files.cache_dir() / "completions" / f"{name}.npz"
        if path.exists():
            with np.load(path) as found:
                return dict(found)
        columns = make()
        files.keep(path, lambda file: np.savez(file, **columns))
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
        if hosts.is_main():
            pictures.write_png(self._experiment.workdir / "images" / f"{name}.png", image)

    def keep_record(self, name: str, record: Any) -> None:
        if hosts.is_main():
            files.write_json(self._experiment.workdir / f"{name}.json", record)

    def _real(self, side: str) -> Columns:
        """What the networks see in the images as they are."""
        key = ("real", side, "")
        if key not in self._done:
            self._done[key] = self.kept(
                key, lambda: self._over(side, lambda images, _: self._look(self._judges, images))
            )
        return self._done[key]

    def _judged(self, judges: Mapping[str, Params], images: Array) -> dict[str, Array]:
        """{"NETWORK/features": ..., "NETWORK/logits": ...} of uint8 images."""
        found, images = {}, pixels.unit(images)
        for name, network in self._networks.items():
            pair = network.apply(judges[name], images)
            found |= {f"{name}/{k}": x.astype(jnp.float32) for k, x in zip(SEEN, pair, strict=True)}
        return found

    def completer(self, task: str) -> Callable[..., dict[str, Array]]:
        """One compiled program for a task: hide, complete, measure."""
        if task not in self._programs:
            model, (module, args) = self._experiment.model, self._experiment.task(task)
            visible = module.visible(model.grid, **args)

            def complete(
                params: Params, other: Params | None, images: Array, key: Array
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
                found = {
                    "images": images,
                    "hidden": hidden[..., 0],
                    "completed": completed,
                    "l1": mean(jnp.abs(shown - given)),
                    "mse": mean((shown - given) ** 2),
                }
                if other is not None:
                    found["retrain_distance"] = jnp.sqrt(
                        mean((shown - pixels.unit(made(other))) ** 2)
                    )
                return found

            self._programs[task] = jax.jit(complete)
        return self._programs[task]

    def _over(self, side: str, program: Callable[[Array, int], dict[str, Array]]) -> Columns:
        """The program on every batch of a side, concatenated in key order; pictures if shown."""
        experiment, split = self._experiment, self._experiment.splits[f"{side}_eval"]
        picked = loader.Subset(experiment.sources[split.part], split.indices)
        size = experiment.config["evaluate"]["batch_size"]
        place, shown = sharding.batch(experiment.mesh), self._shown(side)
        columns = collections.defaultdict(list)
        batches = loader.eval_batches(picked, experiment.model.image_size, size, experiment.host)
        for at, rows in enumerate(batches):
            made = program(jax.make_array_from_process_local_data(place, rows), at)
            here = shown[shown // size == at] % size
            wanted = {k: x for k, x in made.items() if len(here) or k not in PICTURES}
            for name, value in hosts.gather(wanted).items():
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
