"""One plan in one workdir, ready to run: mesh, model, data, splits, and the state of each phase."""

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from l2l_jax.data import loader
from l2l_jax.data.loader import Host
from l2l_jax.data.splits import Split
from l2l_jax.engine.plan import Plan
from l2l_jax.engine.step import State, UpdateRule, rows_name
from l2l_jax.lib import ahead, hosts, optim, preemption, sharding, trees
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Array, ImageToImage, Params, Source
from l2l_jax.weights import pretrained
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir.checkpoint import Checkpoints
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)

AHEAD = 2  # batches on the devices before the step that takes them


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One plan in one workdir."""

    plan: Plan
    workdir: Workdir
    mesh: Mesh
    model: ImageToImage
    sources: Mapping[str, Source]  # {"train", "eval", and "proxy" if it is another data set}
    splits: Mapping[str, Split]
    stop: preemption.StopSignal
    weights: Weights | None = None  # the original, on the host; None if a phase makes it
    references: tuple[Weights, ...] = ()  # the retrained models, on the host
    shared_notes: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    rules: dict[str, UpdateRule] = dataclasses.field(init=False, default_factory=dict)

    @property
    def config(self) -> Mapping[str, Any]:
        """The complete config as plain nested dicts."""
        return self.plan.config

    @property
    def host(self) -> Host:
        """This process among all that read the data."""
        runtime = self.config["runtime"]
        index, count = jax.process_index(), jax.process_count()
        threads = hosts.cores() if runtime["threads"] == -1 else runtime["threads"]
        return Host(index, count, threads, runtime["workers"])

    # Parameters

    @functools.cached_property
    def shardings(self) -> Params:
        """The sharding of every parameter of the model."""
        return sharding.parameter_shardings(self.mesh, self.model.template)

    def initial_params(self) -> Params:
        """All parameters before the first phase, on the mesh: loaded ones, and fresh ones."""
        loaded = self.weights.params if self.weights else {}
        fresh = {}
        if self.model.template.keys() - loaded.keys():
            log.info("starting from a random initialisation")
            fresh = self.initialisation()
        if self.weights:
            log.info("starting from %s, digest %s", self.config["weights"], self.weights.digest)
        return fresh | self.place(loaded)

    def initialisation(self) -> Params:
        """Fresh parameters of all groups by the seed of the run, on the mesh."""
        init = jax.jit(self.model.init, out_shardings=self.shardings)
        return init(jax.random.key(self.plan.seed))

    def place(self, params: Params) -> Params:
        """Parameter groups from the host, in the canonical layout, onto the mesh."""
        template = {group: self.model.template[group] for group in params}
        shardings = {group: self.shardings[group] for group in params}
        return sharding.place(trees.stack(params, template), shardings)

    def canonical(self, params: Params) -> Params:
        """Parameters on the host, in the layout of files and digests."""
        return trees.unstack(hosts.gather(params), self.model.canonical)

    def center(self, phase: str) -> Params:
        """All groups of the center of a solver with a guarantee, on the mesh.

        It is an initialisation by the seed, or a weights file. WrongWeights if that does not fit.
        """
        spec, model = self.plan.phases[phase].solver_args["center"], self.plan.model
        if spec:
            return self.place(pretrained.load(spec, model.plugin.name, model.args).params)
        return self.initialisation()

    def begin(self, phase: str, start: Params) -> Params:
        """What the `begin` of method or solver makes of the parameters at which a phase starts.

        Draws of a method depend on the seed and the name of the phase alone.
        """
        planned = self.plan.phases[phase]
        if planned.solver.begin:
            groups, center = planned.method.TRAINABLE, self.center(phase)
            project = functools.partial(planned.solver.begin, **planned.solver_args)
            own, there = ({g: tree[g] for g in groups} for tree in (start, center))
            out = {group: self.shardings[group] for group in groups}
            return start | jax.jit(project, out_shardings=out)(own, there)
        if not planned.method.begin:
            return start
        make = functools.partial(planned.method.begin, self.model, **planned.args)
        made = jax.jit(make, out_shardings=self.shardings)
        log.info("%s: %s takes no step", phase, planned.method.name)
        return made(start, rngs.key(self.plan.seed, phase, "begin"))

    # The state of a phase

    def update_rule(self, phase: str) -> UpdateRule:
        """What one step of a phase does; the same object each time, so that JAX traces it once."""
        if phase in self.rules:
            return self.rules[phase]
        planned = self.plan.phases[phase]
        steps, args = max(planned.steps, 1), dict(planned.solver_args)
        optimizer, rate = optim.make_optimizer(steps=steps, **planned.optimizer)
        if planned.solver.settle:
            args = planned.solver.settle(steps, planned.optimizer["lr"], **args)
        self.rules[phase] = UpdateRule(
            phase=phase,
            model=self.model,
            method=planned.method,
            args=dict(planned.args),
            solver=planned.solver,
            solver_args=args,
            optimizer=optimizer,
            learning_rate=rate,
            seed=self.plan.seed,
            tasks=len(planned.tasks),
            accumulate=planned.accumulate,
            ema=planned.ema,
            stop=planned.stop,
            compared=planned.tasks,
        )
        return self.rules[phase]

    def abstract_state(self, phase: str) -> State:
        """Shapes and shardings of a phase's state: what its checkpoints are restored onto."""
        shapes = jax.eval_shape(self.update_rule(phase).init, self.model.template)
        return sharding.abstract_tree(self.mesh, shapes)

    def initial_state(self, phase: str, start: Params) -> State:
        """The state of a phase before its first step, on the mesh."""
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state(phase))
        return jax.jit(self.update_rule(phase).init, out_shardings=shardings)(start)

    def saved_state(
        self, phase: str, checkpoints: Checkpoints, only_newest: bool = False
    ) -> State | None:
        """The newest whole checkpoint of a phase as a state on the mesh; None if there is none.

        only_newest: Damaged if the newest checkpoint is damaged.
        """
        abstract = self.abstract_state(phase)
        saved = checkpoints.restore(abstract.saved(), only_newest)
        return None if saved is None else dataclasses.replace(abstract, **saved)

    def checkpoints(self, phase: str, writes: bool) -> Checkpoints:
        """The checkpoints of a phase; writes: whether this launch adds to them."""
        keep = self.config["runtime"]["keep"] if writes else None
        return Checkpoints(self.workdir.checkpoints(phase), keep)

    # Data

    def batches(
        self, phase: str, rows: Mapping[str, loader.TrainInput], first: int
    ) -> Generator[dict[str, Array], None, None]:
        """What a step is given, from step `first` on, without end.

        A second thread puts AHEAD batches on the mesh while earlier steps run.
        {side: uint8 [B, H, W, 3] or tokens}, and if the method needs seeds also {"SIDE rows": int32
        [B], which images of the split they are}.
        """
        yield from ahead.ahead(self._placed_batches(phase, rows, first), AHEAD)

    def _placed_batches(
        self, phase: str, rows: Mapping[str, loader.TrainInput], first: int
    ) -> Generator[dict[str, Array], None, None]:
        """The batches, each put on the mesh when it is taken."""
        planned, place = self.plan.phases[phase], sharding.batch_sharding(self.mesh)
        size, with_rows = planned.batch_size, planned.method.needs_seeds(**planned.args)
        seeds = {side: seed_of(self.plan.seed, phase, side) for side in rows}
        with contextlib.ExitStack() as stack:
            streams = {}
            for side, (picked, augment) in rows.items():
                stream = loader.train_batches(picked, augment, size, seeds[side], first, self.host)
                streams[side] = stack.enter_context(contextlib.closing(stream))
            for step in itertools.count(first):
                batch = {side: next(stream) for side, stream in streams.items()}
                for side, (picked, _) in rows.items() if with_rows else ():
                    args = len(picked), size, seeds[side], step, self.host
                    batch[rows_name(side)] = loader.rows_of_step(*args)
                yield jax.tree.map(
                    lambda x: jax.make_array_from_process_local_data(place, x), batch
                )

    # Notes: what was measured about a phase, for later phases, launches and the report

    def noted(self, phase: str) -> dict[str, Any]:
        """What the workdir's notes say about a phase."""
        notes = self.workdir.read_notes() if hosts.single_process() else self.shared_notes
        return notes.get(phase, {})

    def note(self, phase: str, **values: Any) -> None:
        """Adds to the notes about a phase; every process sees them when this returns."""
        with hosts.fail_together():
            if hosts.is_main():
                self.workdir.note(phase, **values)
        self.share_notes()

    def share_notes(self) -> None:
        """Gives all processes the notes that process 0 reads: a network file system may be late."""
        if hosts.single_process():
            return
        with hosts.fail_together():
            found = self.workdir.read_notes() if hosts.is_main() else {}
        self.shared_notes.clear()
        self.shared_notes.update(hosts.json_from_main(found))


def load_original(plan: Plan) -> Weights | None:
    """config.weights as loaded and checked, or None if a phase makes the original."""
    spec, model = plan.config["weights"], plan.model
    return pretrained.load(spec, model.plugin.name, model.args) if spec else None


def without_data(plan: Plan, folder: Path, weights: Weights | None = None) -> Experiment:
    """The experiment of a workdir as far as its checkpoints need it."""
    mesh = sharding.make_mesh(plan.config["runtime"]["fsdp"])
    model, stop = plan.model.build(), preemption.StopSignal()
    return Experiment(plan, Workdir(folder), mesh, model, {}, {}, stop, weights)
