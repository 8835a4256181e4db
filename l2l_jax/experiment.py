"""One config in one workdir: its model, data and splits, and the way through its phases."""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from l2l_jax import originals
from l2l_jax import step as steps
from l2l_jax.find import find
from l2l_jax.lib import files, hosts, optim, preemption, sharding, splits, trees, workdir
from l2l_jax.lib.checkpoint import Checkpoints
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.loader import Host
from l2l_jax.lib.splits import Split
from l2l_jax.lib.weightfile import Weights
from l2l_jax.types import ImageToImage, Params, Source

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One config in one workdir, ready to run. config: plain nested dicts, complete."""

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
        given = self.weights.params if self.weights else {}
        fresh = {}
        if self.model.template.keys() - given.keys():
            log.info("starting from a random initialisation")
            init = jax.jit(self.model.init, out_shardings=self.shardings)
            fresh = init(jax.random.key(self.config["seed"]))
        if self.weights:
            log.info("starting from %s, digest %s", self.config["weights"], self.weights.digest)
        template = {group: self.model.template[group] for group in given}
        placed = {group: self.shardings[group] for group in given}
        return fresh | sharding.place(trees.stack(given, template), placed)

    def canonical(self, params: Params) -> Params:
        """On the host, in the layout of files and digests."""
        return trees.unstack(hosts.gathered(params), self.model.canonical)

    def task(self, name: str) -> tuple[ModuleType, dict[str, Any]]:
        """The module and the arguments of a task that the config names."""
        chosen = self.config["tasks"][name]
        return find("task", chosen["task"]), dict(chosen["args"])

    def method(self, phase: str) -> ModuleType:
        return find("method", self.config[phase]["method"])

    def training(self, phase: str) -> dict[str, Split]:
        """{"retain": ..., "forget": ...}: what plays each side that the phase's method uses.

        A proxy, if there is one, plays retain. ConfigError for a side that is empty.
        """
        settings, found = self.config[phase], dict(self.splits)
        found["retain"] = found.get("proxy", found.get("retain"))
        if settings["on"] == "all":
            rows = [self.splits[s].indices for s in splits.SIDES if s in self.splits]
            found["retain"] = splits.pick("all", "train", self.sources["train"], np.hstack(rows))
        sides = self.method(phase).SIDES
        for side in sides:
            if found.get(side) is None:
                raise ConfigError(
                    f"The {side} set is empty, and the method {settings['method']!r} of phase "
                    f"{phase!r} needs it. Say what is in it: --config.split.{side}.classes=..., "
                    f".files=... or .random=N."
                )
        return {side: found[side] for side in sides}

    def trained_on(self) -> set[str]:
        """The splits that some phase of this run trains on; what made the weights is not known."""
        names: set[str] = set()
        for phase in self.config["phases"]:
            sides = set(self.method(phase).SIDES)
            if "retain" in sides and self.config[phase]["on"] == "all":
                sides = set(splits.SIDES)
            elif "retain" in sides and "proxy" in self.splits:
                sides = sides - {"retain"} | {"proxy"}
            names |= sides & self.splits.keys()
        return names

    def recipe(self, phase: str) -> steps.Recipe:
        settings = self.config[phase]
        optimizer, rate = optim.make(steps=settings["steps"], **settings["optimizer"])
        return steps.Recipe(
            phase=phase,
            model=self.model,
            method=self.method(phase),
            args=dict(settings["args"]),
            solver=find("solver", settings["solver"]),
            solver_args=dict(settings["solver_args"]),
            optimizer=optimizer,
            learning_rate=rate,
            seed=self.config["seed"],
            accumulate=settings["accumulate"],
        )

    def abstract_state(self, phase: str) -> steps.State:
        """Shapes and shardings of a phase's state: what its checkpoints are restored onto."""
        shapes = jax.eval_shape(self.recipe(phase).init, self.model.template)
        return sharding.abstract(self.mesh, shapes)

    def initial_state(self, phase: str, start: Params) -> steps.State:
        """The state of a phase before its first step, on the mesh."""
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state(phase))
        return jax.jit(self.recipe(phase).init, out_shardings=shardings)(start)

    @property
    def token_views(self) -> int:
        """Views of each training image that are given as tokens; 0: they are given as pixels."""
        return self.config["data"]["token_cache"]["views"] if self.model.takes_tokens else 0

    def noise_tokens(self, phase: str) -> int:
        """Noise images that are tokenised before a phase; 0: its method draws them, if it does."""
        wanted = hasattr(self.method(phase), "noise_images") and self.model.takes_tokens
        return self.config["data"]["token_cache"]["noise"] if wanted else 0

    def abstract_images(self, batch: int) -> jax.ShapeDtypeStruct:
        """What a step is given of each side."""
        if self.token_views:
            return jax.ShapeDtypeStruct((batch, *self.model.grid), np.uint16)
        size = self.model.image_size
        return jax.ShapeDtypeStruct((batch, size, size, 3), np.uint8)

    def abstract_noise(self, phase: str) -> jax.ShapeDtypeStruct | None:
        """What a step is given as its bank of noise."""
        count = self.noise_tokens(phase)
        return jax.ShapeDtypeStruct((count, *self.model.grid), np.uint16) if count else None

    def checkpoints(self, phase: str, writes: bool) -> Checkpoints:
        keep = self.config["runtime"]["keep"] if writes else None
        return Checkpoints(self.workdir / "checkpoints" / phase, keep)


def build(config: Mapping[str, Any]) -> tuple[Mesh, ImageToImage]:
    """The mesh and the model of a config."""
    mesh = sharding.make_mesh(config["runtime"]["fsdp"])
    return mesh, find("model", config["model"]["name"]).build(**config["model"]["args"])


def load_original(config: Mapping[str, Any]) -> Weights | None:
    """config.weights as loaded and checked, or None if a phase makes the original."""
    spec, model = config["weights"], config["model"]
    return originals.load(spec, model["name"], model["args"]) if spec else None


Advance = Callable[[str, "Experiment", Params, Params], tuple[Params, int]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Where the phases led. done: steps of each phase that are behind it."""

    original: Params
    final: Params
    done: dict[str, int]


def walk(experiment: Experiment, advance: Advance) -> Outcome:
    """Through all phases in order; `advance` trains or restores one."""
    original = params = experiment.start()
    done = {}
    for phase in experiment.config["phases"]:
        params, done[phase] = advance(phase, experiment, params, original)
        if experiment.method(phase).MAKES_ORIGINAL:
            original = params
    return Outcome(original, params, done)


def restored(
    phase: str, experiment: Experiment, start: Params, original: Params
) -> tuple[Params, int]:
    """(parameters, step) of the newest checkpoint of a phase; `start` and 0 if there is none."""
    del original
    checkpoints = experiment.checkpoints(phase, writes=False)
    state = checkpoints.restore(experiment.abstract_state(phase))
    checkpoints.close()
    return (start, 0) if state is None else (start | state.student, int(state.step))


def final_weights(folder: Path, partial: bool = False) -> Weights:
    """The last checkpoint of a workdir, canonical, on the host; needs no data.

    ConfigError if a phase is not done, unless partial, or if the original is another one now.
    """
    config = workdir.config_of(folder)
    said = {key: section for key, section in config.items() if key != workdir.FREE}
    config["runtime"]["fsdp"] = 1  # wherever it was trained, it is read here
    mesh, model = build(config)
    original = load_original(config)
    if original:
        workdir.check_original(folder, original.digest)
    experiment = Experiment(config, folder, mesh, model, {}, {}, preemption.Flag(), original)
    outcome = walk(experiment, restored)
    unfinished = [p for p, step in outcome.done.items() if step < config[p]["steps"]]
    if unfinished and not partial:
        told = [f"{p} is at step {outcome.done[p]} of {config[p]['steps']}" for p in unfinished]
        raise ConfigError(
            f"{folder} is not finished: {', '.join(told)}. Run its command again, or say --partial "
            "to export what there is."
        )
    final = experiment.canonical(outcome.final)
    about = {"model": config["model"]["name"]}
    about["args"] = dict(config["model"]["args"]) | model.told(final)
    about["source"] = {
        "config": files.digest_of_lines([json.dumps(said, sort_keys=True)]),
        "steps": outcome.done,
        "original": trees.digest(experiment.canonical(outcome.original)),
        "code": files.code_digest(),
    }
    return Weights(final, about)
