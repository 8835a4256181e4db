"""Everything that is decided before the first step: config checked, mesh, model, data, splits."""

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from l2l_jax import originals, schema
from l2l_jax.find import find
from l2l_jax.lib import files, imagefolder, optim, preemption, sharding, splits, trees, workdir
from l2l_jax.lib.checkpoint import Checkpoints
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.lib.loader import Host
from l2l_jax.lib.splits import Split
from l2l_jax.lib.weightfile import Weights
from l2l_jax.step import Recipe
from l2l_jax.types import ImageToImage, Params, Source

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One config in one workdir, ready to run. config: plain nested dicts."""

    config: Mapping[str, Any]
    workdir: Path
    mesh: Mesh
    model: ImageToImage
    sources: Mapping[str, Source]
    splits: Mapping[str, Split]
    stop: preemption.Flag
    weights: Weights | None = None  # the original, on the host, if it is not made by a phase

    @property
    def host(self) -> Host:
        runtime = self.config["runtime"]
        index, count = jax.process_index(), jax.process_count()
        return Host(index, count, runtime["threads"], runtime["workers"])

    @functools.cached_property
    def shardings(self) -> Params:
        return sharding.parameters(self.mesh, self.model.template)

    def start(self) -> Params:
        """The parameters before the first phase, on the mesh."""
        if self.weights is None:
            init = jax.jit(self.model.init, out_shardings=self.shardings)
            log.info("starting from a random initialisation")
            return init(jax.random.key(self.config["seed"]))
        digest = trees.digest(self.weights.params)
        log.info("starting from %s, digest %s", self.config["weights"], digest)
        params = trees.stack(self.weights.params, self.model.template)
        return sharding.place(params, self.shardings)

    def canonical(self, params: Params) -> Params:
        """On the host, in the layout of files and digests."""
        return trees.unstack(sharding.to_host(params), self.model.canonical)

    def task(self, name: str) -> tuple[Any, dict[str, Any]]:
        """The module and the arguments of a task that the config names."""
        chosen = self.config["tasks"][name]
        return find("task", chosen["task"]), dict(chosen["args"])

    def training(self, phase: str) -> dict[str, Split]:
        """{"retain": ..., "forget": ...}: what plays each side that the phase's method uses."""
        settings = self.config[phase]
        found = {"forget": self.splits.get("forget")}
        found["retain"] = self.splits.get("proxy") or self.splits.get("retain")
        if settings["on"] == "all":
            found["retain"] = self._all()
        sides = find("method", settings["method"]).SIDES
        for side in sides:
            if found[side] is None:
                raise ConfigError(
                    f"The {side} set is empty, and the method {settings['method']!r} of phase "
                    f"{phase!r} needs it. Say what is in it: --config.split.{side}.classes=..., "
                    f".files=... or .random=N."
                )
        return {side: found[side] for side in sides}

    def _all(self) -> Split:
        rows = [
            i for name in splits.SIDES if name in self.splits for i in self.splits[name].indices
        ]
        return splits.pick("all", "train", self.sources["train"], rows)

    def recipe(self, phase: str) -> Recipe:
        settings = self.config[phase]
        optimizer, rate = optim.make(steps=settings["steps"], **settings["optimizer"])
        return Recipe(
            phase=phase,
            model=self.model,
            method=find("method", settings["method"]),
            args=dict(settings["args"]),
            solver=find("solver", settings["solver"]),
            solver_args=dict(settings["solver_args"]),
            optimizer=optimizer,
            learning_rate=rate,
            seed=self.config["seed"],
            accumulate=settings["accumulate"],
        )

    def checkpoints(self, phase: str) -> Checkpoints:
        return Checkpoints(self.workdir / "checkpoints" / phase, self.config["runtime"]["keep"])


def prepare(config: Mapping[str, Any], folder: Path, stop: preemption.Flag) -> Experiment:
    """Checks all that can be checked without a step, and only then makes the workdir this run's."""
    schema.check(config)
    workdir.check(folder, config)
    mesh, model = build(config)
    for phase in config["phases"]:
        settings = config[phase]
        size, pieces = settings["batch_size"], settings["accumulate"]
        sharding.check_batch(size, mesh, pieces, f"{phase}.batch_size")
    sharding.check_batch(config["evaluate"]["batch_size"], mesh, 1, "evaluate.batch_size")
    sources = _load_sources(config)
    original = _load_original(config)
    chosen = _choose_splits(config, folder / "splits", sources)
    bench = Experiment(config, folder, mesh, model, sources, chosen, stop, original)
    for phase in config["phases"]:
        bench.training(phase)
    agree_across_hosts(config, chosen)
    workdir.claim(folder, config)
    if jax.process_index() == 0:
        splits.save(folder / "splits", chosen)
    return bench


def _load_sources(config: Mapping[str, Any]) -> dict[str, Source]:
    """The data; DataMissing names everything that is missing at once, weights included."""
    missing, sources = [], {}
    try:
        if config["weights"]:
            originals.locate(config["weights"])
    except DataMissing as error:
        missing.append(str(error))
    try:
        dataset, args = find("dataset", config["data"]["name"]), config["data"]["args"]
        sources = {part: dataset.load(part, **args) for part in splits.PARTS}
    except DataMissing as error:
        missing.append(str(error))
    if missing:
        raise DataMissing("\n\n".join(missing))
    return sources


def _load_original(config: Mapping[str, Any]) -> Weights | None:
    spec, model = config["weights"], config["model"]
    return originals.load(spec, model["name"], model["args"]) if spec else None


def build(config: Mapping[str, Any]) -> tuple[Mesh, ImageToImage]:
    """The mesh and the model of a config."""
    mesh = sharding.make_mesh(config["runtime"]["fsdp"])
    return mesh, find("model", config["model"]["name"]).build(**config["model"]["args"])


Advance = Callable[[str, "Experiment", Params, Params], Params]


def walk(bench: Experiment, advance: Advance) -> tuple[Params, Params]:
    """(original, final): the parameters through all phases; `advance` trains or restores one."""
    original = params = bench.start()
    for phase in bench.config["phases"]:
        params = advance(phase, bench, params, original)
        if find("method", bench.config[phase]["method"]).MAKES_ORIGINAL:
            original = params
    return original, params


def restored(phase: str, bench: Experiment, start: Params, original: Params) -> Params:
    """What the newest checkpoint of a phase holds, without training; `start` if there is none."""
    del original
    shapes = jax.eval_shape(bench.recipe(phase).init, bench.model.template)
    checkpoints = bench.checkpoints(phase)
    state = checkpoints.restore(sharding.abstract(bench.mesh, shapes))
    checkpoints.close()
    if state is None:
        log.warning("phase %s has no checkpoint; its starting point is taken", phase)
        return start
    return start | state.student


def final_weights(folder: Path) -> Weights:
    """The last checkpoint of a workdir, canonical, on the host; needs no data."""
    config = workdir.config_of(folder)
    mesh, model = build(config)
    loaded = _load_original(config)
    bench = Experiment(config, folder, mesh, model, {}, {}, preemption.Flag(), loaded)
    original, final = walk(bench, restored)
    about = {"model": config["model"]["name"], "args": dict(config["model"]["args"])}
    about["source"] = {
        "config": files.digest_of_lines([json.dumps(config, sort_keys=True)]),
        "phases": list(config["phases"]),
        "original": trees.digest(bench.canonical(original)),
        "code": files.code_digest(),
    }
    return Weights(bench.canonical(final), about)


def _choose_splits(
    config: Mapping[str, Any], kept: Path, sources: Mapping[str, Source]
) -> dict[str, Split]:
    """The splits the workdir keeps; on the first launch new ones, free of broken images."""
    if kept.exists():
        return splits.load(kept, sources)
    chosen = {}
    for name, split in splits.make(config["split"], sources).items():
        source, policy = sources[split.part], config["data"]["broken"]
        rows, skipped = imagefolder.readable(source, name, split.indices, policy)
        chosen[name] = splits.pick(name, split.part, source, rows, skipped)
        log.info("%s: %d images of %d classes", name, len(rows), len(chosen[name].classes))
    return chosen


def agree_across_hosts(config: Mapping[str, Any], chosen: Mapping[str, Split]) -> None:
    """Every process must run the same config on the same images; one that differs hangs all."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    said = json.dumps([files.as_json(config), {k: s.digest for k, s in chosen.items()}])
    words = np.frombuffer(hashlib.sha256(said.encode()).digest(), np.uint8)
    heard = multihost_utils.process_allgather(words)
    if strangers := [rank for rank, other in enumerate(heard) if not np.array_equal(other, words)]:
        raise ConfigError(f"Processes {strangers} run another config, or see other data.")
