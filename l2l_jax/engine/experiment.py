"""One config in one workdir: its model, data and splits, and the way through its phases."""

import contextlib
import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from l2l_jax.data import loader, splits
from l2l_jax.data.loader import Host
from l2l_jax.data.splits import Split
from l2l_jax.engine.step import EndingState, State, UpdateRule
from l2l_jax.lib import config_dicts, files, hosts, optim, preemption, sharding, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.rng import seed_of
from l2l_jax.registry import find
from l2l_jax.types import Array, ImageToImage, Method, Params, Source, Task
from l2l_jax.weights import pretrained
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir import claim
from l2l_jax.workdir.checkpoint import Checkpoints

log = logging.getLogger(__name__)

NOTES = "phases.json"  # in a workdir: what was found out about its phases


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
    reference: Weights | None = None  # retrained without the forget images, on the host, if any

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
        return fresh | self.placed(given)

    def placed(self, params: Params) -> Params:
        """Groups of parameters from the host and the canonical layout onto the mesh."""
        template = {group: self.model.template[group] for group in params}
        shardings = {group: self.shardings[group] for group in params}
        return sharding.place(trees.stack(params, template), shardings)

    def canonical(self, params: Params) -> Params:
        """On the host, in the layout of files and digests."""
        return trees.unstack(hosts.gather(params), self.model.canonical)

    def task(self, name: str) -> tuple[Task, dict[str, Any]]:
        """The module and the arguments of a task that the config names."""
        chosen = self.config["tasks"][name]
        return find("task", chosen["task"]), dict(chosen["args"])

    def method(self, phase: str) -> Method:
        return find("method", self.config[phase]["method"])

    def training(self, phase: str) -> dict[str, Split]:
        """{"retain": ..., "forget": ...}: what plays each side that the phase's method uses.

        ConfigError for a side that is empty, and for retain and proxy where a phase names none.
        """
        settings, found = self.config[phase], dict(self.splits)
        sides = self.method(phase).SIDES
        if settings["on"] == "retain" and "retain" in sides and "proxy" in found:
            raise ConfigError(
                f"Both retain and proxy images are given, and phase {phase!r} trains on one of "
                f"them: say --config.{phase}.on=proxy (retain is then only evaluated), or leave "
                "config.split.proxy and config.data.proxy.name empty."
            )
        if settings["on"] == "proxy":
            found["retain"] = found.get("proxy")
        if settings["on"] == "all":
            rows = [self.splits[side].indices for side in self._all() if side in self.splits]
            found["retain"] = splits.pick("all", "train", self.sources["train"], np.hstack(rows))
        for side in sides:
            if found.get(side) is None:
                name = "proxy" if (side, settings["on"]) == ("retain", "proxy") else side
                raise ConfigError(
                    f"The {name} set is empty, and the method {settings['method']!r} of phase "
                    f"{phase!r} needs it. Say what is in it: --config.split.{name}.classes=..., "
                    f".files=... or .random=N."
                )
        return {side: found[side] for side in sides}

    def _all(self) -> tuple[str, ...]:
        """The sides that on="all" means: those of the data set that is unlearned."""
        apart = splits.PROXY if self.config["data"]["proxy"]["name"] else ""
        return tuple(side for side in splits.SIDES if side != apart)

    def passes(self, phase: str, steps: int | None = None) -> dict[str, dict[str, Any]]:
        """{side: {"split", "digest", "images", "passes"}}: mean times that an image was seen.

        A step draws batch_size images of each side, and each side goes through epochs of its own:
        nothing is seen more often to make the sides alike. steps: those done; None: all.
        """
        settings, told = self.config[phase], {}
        seen = settings["batch_size"] * (settings["steps"] if steps is None else steps)
        for side, split in self.training(phase).items():
            count = len(split.keys)
            told[side] = {"split": split.name, "digest": split.digest, "images": count}
            told[side]["passes"] = seen / count
        return told

    def trained_on(self) -> set[str]:
        """The splits that some phase of this run trains on; what made the weights is not known."""
        names: set[str] = set()
        for phase in self.config["phases"]:
            sides = set(self.method(phase).SIDES)
            if "retain" in sides and self.config[phase]["on"] == "all":
                sides = set(self._all())
            elif "retain" in sides:
                sides = sides - {"retain"} | {self.config[phase]["on"]}
            names |= sides & self.splits.keys()
        return names

    def recipe(self, phase: str) -> UpdateRule:
        settings = self.config[phase]
        optimizer, rate = optim.make(steps=settings["steps"], **settings["optimizer"])
        return UpdateRule(
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
            ema=settings["ema"],
        )

    def abstract_state(self, phase: str) -> State:
        """Shapes and shardings of a phase's state: what its checkpoints are restored onto."""
        shapes = jax.eval_shape(self.recipe(phase).init, self.model.template)
        return sharding.abstract(self.mesh, shapes)

    def initial_state(self, phase: str, start: Params) -> State:
        """The state of a phase before its first step, on the mesh."""
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state(phase))
        return jax.jit(self.recipe(phase).init, out_shardings=shardings)(start)

    def saved_state(self, phase: str, checkpoints: Checkpoints) -> State | None:
        """The newest state of a phase that is whole, on the mesh; None if there is none."""
        abstract = self.abstract_state(phase)
        found = checkpoints.restore(abstract.saved())
        return None if found is None else abstract.replace(**found)

    @property
    def token_views(self) -> int:
        """Views of each training image that are given as tokens; 0: they are given as pixels."""
        return self.config["data"]["token_cache"]["views"] if self.model.takes_tokens else 0

    def noise_tokens(self, phase: str) -> int:
        """Noise images that are tokenised before a phase; 0: its method draws them, if it does."""
        wanted = self.method(phase).draw_noise is not None and self.model.takes_tokens
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

    def batches(
        self, phase: str, rows: Mapping[str, loader.Rows], first: int
    ) -> Iterator[dict[str, Array]]:
        """{side: uint8 [B, H, W, 3] or tokens, on the mesh} from step `first` on."""
        size, place = self.config[phase]["batch_size"], sharding.batch(self.mesh)
        with contextlib.ExitStack() as stack:
            streams = {}
            for side, (picked, augment) in rows.items():
                seed = seed_of(self.config["seed"], phase, side)
                stream = loader.train_batches(picked, augment, size, seed, first, self.host)
                streams[side] = stack.enter_context(contextlib.closing(stream))
            while True:
                batch = {side: next(stream) for side, stream in streams.items()}
                yield jax.tree.map(
                    lambda x: jax.make_array_from_process_local_data(place, x), batch
                )

    def earlier(self, phase: str) -> tuple[str, ...]:
        """The phases before one."""
        phases = tuple(self.config["phases"])
        return phases[: phases.index(phase)]

    def noted(self, phase: str) -> dict[str, Any]:
        """What the workdir's phases.json says about a phase."""
        path = self.workdir / NOTES
        return files.read_json(path).get(phase, {}) if path.exists() else {}

    def note(self, phase: str, **values: Any) -> None:
        """Adds to it; every process sees it when this returns."""
        if hosts.is_main():
            path = self.workdir / NOTES
            kept = files.read_json(path) if path.exists() else {}
            files.write_json(path, kept | {phase: kept.get(phase, {}) | values})
        hosts.barrier(f"noted about {phase}")

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
    return pretrained.load(spec, model["name"], model["args"]) if spec else None


Advance = Callable[[str, "Experiment", Params, Params], tuple[Params, int, int]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Where the phases led. done: steps of each phase that are behind it, and all it has."""

    original: Params
    final: Params
    done: dict[str, tuple[int, int]]


def run_phases(experiment: Experiment, advance: Advance) -> Outcome:
    """Through all phases in order; `advance` trains or restores one."""
    original = params = experiment.start()
    done = {}
    for phase in experiment.config["phases"]:
        params, *counts = advance(phase, experiment, params, original)
        done[phase] = tuple(counts)
        if experiment.method(phase).MAKES_ORIGINAL:
            original = params
    return Outcome(original, params, done)


def restored(
    phase: str, experiment: Experiment, start: Params, original: Params
) -> tuple[Params, int, int]:
    """(parameters, steps done, steps in all) by a phase's newest checkpoint; `start` if none."""
    del original
    checkpoints = experiment.checkpoints(phase, writes=False)
    state = experiment.saved_state(phase, checkpoints)
    checkpoints.close()
    total = experiment.config[phase]["steps"]
    return (start, 0, total) if state is None else (start | state.result, *counted(state, total))


def counted(state: State, total: int) -> tuple[int, int]:
    """(steps done, steps in all); fewer than `total` if the method found its own end."""
    done = int(state.step)
    over = isinstance(state, EndingState) and bool(state.ended)
    return done, done if over else total


def ending(experiment: Experiment, done: Mapping[str, tuple[int, int]]) -> str:
    """Which parameters phases lead to, in words; done: what of them is, as in Outcome."""
    for phase, (count, total) in reversed(done.items()):
        ema, planned = experiment.config[phase]["ema"], experiment.config[phase]["steps"]
        if count and ema:
            left = ema ** (count - (count == total < planned))  # the step that finds an end is none
            said = [f"moving average of phase {phase}, decay {ema}"]
            said += [f"at step {count} of {total}"] if count < total else []
            said += [f"{left:.0%} of it what the phase began with"] if left >= 0.005 else []
            return ", ".join(said)
        if count:
            at = "last step" if count == total else f"step {count} of {total}"
            return f"{at} of phase {phase}"
    loaded = experiment.config["weights"]
    return f"as loaded from {loaded}" if loaded else "a random initialisation"


def read_run(folder: Path, partial: bool = False) -> tuple[Experiment, Outcome]:
    """A workdir's experiment, without its data, and the result of its newest checkpoints.

    ConfigError if a phase is not done, unless partial, or if the original is another one now.
    """
    config = claim.config_of(folder)
    config["runtime"]["fsdp"] = 1  # wherever it was trained, it is read here
    mesh, model = build(config)
    original = load_original(config)
    if original:
        claim.check_original(folder, original.digest)
    experiment = Experiment(config, folder, mesh, model, {}, {}, preemption.Flag(), original)
    outcome = run_phases(experiment, restored)
    unfinished = [(p, *counts) for p, counts in outcome.done.items() if counts[0] < counts[1]]
    if unfinished and not partial:
        told = [f"{phase} is at step {done} of {total}" for phase, done, total in unfinished]
        raise ConfigError(
            f"{folder} is not finished: {', '.join(told)}. Run its command again, or say --partial "
            "(in Python: partial=True) to take what there is."
        )
    return experiment, outcome


def final_weights(folder: Path, partial: bool = False) -> Weights:
    """The last checkpoint of a workdir, canonical, on the host; needs no data.

    ConfigError if a phase is not done, unless partial, or if the original is another one now.
    """
    experiment, outcome = read_run(folder, partial)
    config, model = experiment.config, experiment.model
    final = experiment.canonical(outcome.final)
    said = config_dicts.decisive(config)
    about = {"model": config["model"]["name"]}
    about["args"] = dict(config["model"]["args"]) | model.inferred_args(final)
    about["source"] = {
        "config": files.digest_of_lines([json.dumps(said, sort_keys=True)]),
        "steps": {phase: done for phase, (done, _) in outcome.done.items()},
        "result": ending(experiment, outcome.done),
        "original": trees.digest(experiment.canonical(outcome.original)),
        "code": files.code_digest(),
    }
    return Weights(final, about)
