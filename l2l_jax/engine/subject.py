"""What an audit is given of one variant (types.Subject): programs, attacks, and estimates."""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import loader
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import TaskPlan
from l2l_jax.engine.step import State, Step, UpdateRule, make_update, shard_update
from l2l_jax.engine.train import check_finite
from l2l_jax.lib import hosts, optim, pixels, sharding
from l2l_jax.lib import rng as rngs
from l2l_jax.registry import find
from l2l_jax.types import Array, Batch, Finding, ImageSet, Measure, Params, Place

RESAMPLES = 200  # of the images of a set, for intervals
ATTACK = dict(warmup=0.0, weight_decay=0.0, clip=1.0)  # of the optimizer; the rate is constant
Task = str | tuple[str, Mapping[str, Any]]  # a name in config.tasks, or a file of tasks/ with args


@dataclasses.dataclass
class Laboratory:
    """Compiled programs of a run's audits, shared by all variants: each is compiled once."""

    experiment: Experiment
    programs: dict[Hashable, Callable[..., Any]] = dataclasses.field(default_factory=dict)

    def task(self, name: Task) -> TaskPlan:
        """The task of a name ("" = the headline), or of a file of tasks/ and its arguments."""
        plan = self.experiment.plan
        if isinstance(name, tuple):
            return TaskPlan(name[0], find("task", name[0]), name[1])
        known = {t.name: t for p in plan.phases.values() for t in p.tasks}
        known |= {t.name: t for t in plan.evaluate_tasks}
        return known[name or plan.evaluate_tasks[0].name]

    def batch_size(self, images: int) -> int:
        """The smallest batch for so many images, at most config.evaluate.batch_size."""
        devices = self.experiment.mesh.size
        whole = -(-images // devices) * devices
        return min(self.experiment.config["evaluate"]["batch_size"], whole)

    def measuring(
        self, function: Measure, planned: TaskPlan, static: Mapping[str, Any]
    ) -> Callable[[Params, Any, Array], Any]:
        """The compiled program (params, uint8 images, key) -> what the function returns."""
        args = tuple(sorted(static.items())), tuple(sorted(planned.args.items()))
        key = (function, planned.task.name, args)
        if key not in self.programs:
            model = self.experiment.model
            visible = planned.task.visible(model.grid, **planned.args)

            def program(params: Params, images: Array, rng: Array) -> Any:
                mask = planned.task.mask(
                    rngs.fold(rng, "mask"), images.shape[0], model.grid, **planned.args
                )
                batch = Batch(pixels.to_unit_range(images), mask, visible)
                return function(model, params, batch, rngs.fold(rng, "model"), **static)

            self.programs[key] = jax.jit(program)
        return self.programs[key]

    def updating(
        self, rule: UpdateRule, planned: TaskPlan, lr: float, state: State, fixed: Params
    ) -> Step:
        """The compiled step of an attack under one task."""
        key = ("attack", rule.method.name, planned.name, lr)
        if key not in self.programs:
            mesh = self.experiment.mesh
            update = make_update(rule, planned, mesh)
            self.programs[key] = shard_update(update, state, fixed, rule.method.SIDES, mesh)
        return self.programs[key]


@dataclasses.dataclass(frozen=True)
class Examination:
    """`types.Subject`: one variant under one audit."""

    laboratory: Laboratory
    variant: str
    params: Params
    others: Mapping[str, Params]
    sets: Mapping[str, ImageSet]

    @property
    def model(self) -> Any:
        return self.laboratory.experiment.model

    @property
    def seed(self) -> int:
        return self.laboratory.experiment.plan.seed

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.laboratory.experiment.plan.evaluate_tasks)

    @property
    def training_tasks(self) -> tuple[str, ...]:
        *_, last = self.laboratory.experiment.plan.phases.values()
        return tuple(task.name for task in last.tasks)

    def measure(
        self,
        function: Measure,
        images: ImageSet,
        *,
        params: Params | None = None,
        task: Task = "",
        draw: int = 0,
        **static: Any,
    ) -> Any:
        laboratory, planned = self.laboratory, self.laboratory.task(task)
        program = laboratory.measuring(function, planned, static)
        size, place = laboratory.batch_size(len(images)), self._batch_sharding()
        base = rngs.key(self.seed, "audit", images.name, planned.name, draw)
        given = self.params if params is None else params
        parts = []
        for at, first in enumerate(range(0, len(images), size)):
            rows = images.images[first : first + size]
            count = len(rows)
            rows = np.concatenate([rows, rows[-1:].repeat(size - count, axis=0)])
            made = program(given, sharding.place(rows, place), rngs.fold(base, at))
            parts.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], hosts.gather(made)))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    def attack(
        self,
        images: ImageSet,
        steps: Sequence[int],
        *,
        lr: float,
        batch_size: int = 16,
        start: Params | None = None,
        method: str = "finetune",
    ) -> Iterator[tuple[int, Params]]:
        laboratory, experiment = self.laboratory, self.laboratory.experiment
        begin = self.params if start is None else start
        task = laboratory.task("")
        size = -(-batch_size // experiment.mesh.size) * experiment.mesh.size
        rule = self._rule(method, lr, max(steps))
        state, fixed = self._initial(rule, begin), rule.fixed(begin, {})
        seed, host = rngs.seed_of(self.seed, "audit", images.name), experiment.host
        stream = loader.train_batches(_Pictures(images), _as_it_is, size, seed, 0, host)
        try:
            for step in range(max(steps) + 1):
                if step in steps:
                    yield step, begin | jax.tree.map(jnp.copy, state.result)  # it is donated
                if step == max(steps):
                    break
                batch = jax.make_array_from_process_local_data(self._batch_sharding(), next(stream))
                update = laboratory.updating(rule, task, lr, state, fixed)
                state, metrics = update(state, fixed, {"retain": batch})
                values = {name: float(x) for name, x in jax.device_get(metrics).items()}
                check_finite(values, step, [])
        finally:
            stream.close()

    def estimate(
        self,
        figure: str,
        of: Callable[..., float],
        *samples: np.ndarray,
        at: Place | None = None,
    ) -> Finding:
        draws = [
            np.random.default_rng(rngs.seed_of(self.seed, "audit", "resample", place, len(sample)))
            for place, sample in enumerate(samples)
        ]
        values = np.empty(RESAMPLES)
        for index in range(RESAMPLES):
            picked = [s[d.integers(0, len(s), len(s))] for s, d in zip(samples, draws, strict=True)]
            values[index] = of(*picked)
        return Finding(figure, float(of(*samples)), values, dict(at or {}))

    def _rule(self, method: str, lr: float, steps: int) -> UpdateRule:
        optimizer, rate = optim.make_optimizer(steps=steps, lr=lr, final=lr, **ATTACK)
        return UpdateRule(
            phase="audit",
            model=self.model,
            method=find("method", method),
            args={},
            solver=find("solver", "weighted"),
            solver_args={},
            optimizer=optimizer,
            learning_rate=rate,
            seed=self.seed,
        )

    def _initial(self, rule: UpdateRule, start: Params) -> State:
        mesh = self.laboratory.experiment.mesh
        abstract = sharding.abstract_tree(mesh, jax.eval_shape(rule.init, self.model.template))
        placed = jax.tree.map(lambda x: x.sharding, abstract)
        key = ("init", rule.method.name)
        if key not in self.laboratory.programs:
            self.laboratory.programs[key] = jax.jit(rule.init, out_shardings=placed)
        return self.laboratory.programs[key](start)

    def _batch_sharding(self) -> Any:
        return sharding.batch_sharding(self.laboratory.experiment.mesh)


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """The images of a set as the loader reads them."""

    images: ImageSet

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self.images.images[index]


def _as_it_is(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    del rng
    return image
