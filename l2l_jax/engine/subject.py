"""What an audit is given of one variant (types.Subject): programs, attacks, and estimates."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.data import loader
from l2l_jax.engine import measure
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import PhasePlan, TaskPlan
from l2l_jax.engine.step import State, Step, UpdateRule, make_update, shard_update
from l2l_jax.engine.train import check_finite
from l2l_jax.lib import hosts, optim, pixels, sharding
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import CannotRun, ConfigError, NonFinite
from l2l_jax.registry import find, names
from l2l_jax.types import (
    Array,
    Batch,
    Finding,
    ImageSet,
    ImageToImage,
    Measure,
    Params,
    Place,
    Task,
    TaskName,
)

RESAMPLES = 200  # of the images of a set, for intervals
ATTACK: dict[str, Any] = dict(
    warmup=0.0, weight_decay=0.0, clip=1.0
)  # of the optimizer; the rate is constant
EXAMPLE_GRID = 4  # cells of a side of the grid that Task.EXAMPLE fits


@dataclasses.dataclass
class Laboratory:
    """Compiled programs of a run's audits, shared by all variants: each is compiled once."""

    experiment: Experiment
    programs: dict[Hashable, Callable[..., Any]] = dataclasses.field(default_factory=dict)

    def task(self, name: TaskName) -> TaskPlan:
        """The task of a name ("" = the headline), or of a file of tasks/ and its arguments."""
        plan = self.experiment.plan
        if isinstance(name, tuple):
            return TaskPlan(name[0], find("task", name[0]), name[1])
        known = {t.name: t for p in plan.phases.values() for t in p.tasks}
        known |= {t.name: t for t in plan.evaluate_tasks}
        return known[name or plan.evaluate_tasks[0].name]

    @functools.cached_property
    def other_tasks(self) -> dict[str, TaskName]:
        """{file: (file, arguments)} of the tasks that hide something and that the run never uses.

        Left out are those that do not fit the model's grid.
        """
        plan, model = self.experiment.plan, self.experiment.model
        planned = [*plan.evaluate_tasks, *(t for p in plan.phases.values() for t in p.tasks)]
        unused = [name for name in names("task") if name not in {t.task.name for t in planned}]
        fitted = {name: fitting(find("task", name), model) for name in unused}
        return {name: (name, args) for name, args in fitted.items() if args is not None}

    def forgetting(self) -> PhasePlan:
        """The run's last phase that has a forget side. CannotRun if there is none."""
        for planned in reversed(list(self.experiment.plan.phases.values())):
            if "forget" in planned.method.SIDES:
                return planned
        raise CannotRun("no phase of the run has a forget side, so that it cannot be repeated")

    def batch_size(self, images: int) -> int:
        """The smallest batch for so many images, at most config.evaluate.batch_size."""
        devices = self.experiment.mesh.size
        whole = -(-images // devices) * devices
        return min(self.experiment.config["evaluate"]["batch_size"], whole)

    def measuring(
        self, function: Measure, planned: TaskPlan, static: Mapping[str, Any], with_given: bool
    ) -> Callable[..., Any]:
        """The compiled program (params, uint8 images, key, given) -> what the function returns."""
        args = tuple(sorted(static.items())), tuple(sorted(planned.args.items()))
        key = (function, planned.task.name, args, with_given)
        if key not in self.programs:
            model = self.experiment.model
            visible = planned.task.visible(model.grid, **planned.args)

            def program(params: Params, images: Array, rng: Array, given: Any) -> Any:
                mask = planned.task.mask(
                    rngs.fold(rng, "mask"), images.shape[0], model.grid, **planned.args
                )
                batch = Batch(pixels.to_unit_range(images), mask, visible)
                more = {"given": given} if with_given else {}
                return function(model, params, batch, rngs.fold(rng, "model"), **static, **more)

            self.programs[key] = jax.jit(sharding.on(self.experiment.mesh, program))
        return self.programs[key]

    def updating(
        self,
        key: Hashable,
        rule: UpdateRule,
        planned: TaskPlan,
        state: State,
        fixed: Params,
        batch: Mapping[str, Array],
    ) -> Step:
        """The compiled step under one task; key: what the rule is a function of."""
        key = (key, planned.name)
        if key not in self.programs:
            mesh = self.experiment.mesh
            update = make_update(rule, planned, mesh)
            self.programs[key] = shard_update(update, state, fixed, batch, mesh)
        return self.programs[key]

    def initial(self, key: Hashable, rule: UpdateRule, start: Params) -> State:
        """The state before the first step, on the mesh."""
        key = (key, "init")
        if key not in self.programs:
            shapes = jax.eval_shape(rule.init, self.experiment.model.template)
            abstract = sharding.abstract_tree(self.experiment.mesh, shapes)
            placed = jax.tree.map(lambda x: x.sharding, abstract)
            self.programs[key] = jax.jit(rule.init, out_shardings=placed)
        return self.programs[key](start)


def fitting(task: Task, model: ImageToImage) -> dict[str, Any] | None:
    """The arguments of Task.EXAMPLE for the model's grid; None if the task hides nothing or fails.

    `cells` grows with the grid, and `finer` is left out where the pixels are not as fine.
    """
    args, side = dict(task.EXAMPLE), min(model.grid)
    if "cells" in args:
        args["cells"] = max(1, round(args["cells"] * side / EXAMPLE_GRID))
    if any(model.image_size % (cells * args.get("finer", 1)) for cells in model.grid):
        args.pop("finer", None)
    with contextlib.suppress(ConfigError):
        task.visible(model.grid, **args)
        return args if task.HIDES else None
    return None


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

    @property
    def other_tasks(self) -> Mapping[str, TaskName]:
        return self.laboratory.other_tasks

    def measure(
        self,
        function: Measure,
        images: ImageSet,
        *,
        params: Params | None = None,
        task: TaskName = "",
        draw: int = 0,
        given: Any = None,
        **static: Any,
    ) -> Any:
        laboratory, planned = self.laboratory, self.laboratory.task(task)
        program = laboratory.measuring(function, planned, static, given is not None)
        size, place = laboratory.batch_size(len(images)), self._batch_sharding()
        base = rngs.key(self.seed, "audit", images.name, planned.name, draw)
        whole = sharding.replicated(laboratory.experiment.mesh)
        given = jax.tree.map(
            lambda x: x if isinstance(x, jax.Array) else sharding.place(x, whole), given
        )
        params = self.params if params is None else params
        parts = []
        for at, first in enumerate(range(0, len(images), size)):
            rows = images.images[first : first + size]
            count = len(rows)
            rows = np.concatenate([rows, rows[-1:].repeat(size - count, axis=0)])
            made = program(params, sharding.place(rows, place), rngs.fold(base, at), given)
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
        groups: tuple[str, ...] = (),
    ) -> Iterator[tuple[int, Params]]:
        laboratory, experiment = self.laboratory, self.laboratory.experiment
        begin = self.params if start is None else start
        size = -(-batch_size // experiment.mesh.size) * experiment.mesh.size
        rule = self._rule(method, lr, max(steps), groups)
        seed, host = rngs.seed_of(self.seed, "audit", images.name), experiment.host
        key, tasks = ("attack", method, lr, groups), (laboratory.task(""),)
        stream = loader.train_batches(_Pictures(images), _as_it_is, size, seed, 0, host)
        with contextlib.closing(stream):
            placed = (
                {"retain": jax.make_array_from_process_local_data(self._batch_sharding(), rows)}
                for rows in stream
            )
            fixed = rule.fixed(begin, {})
            yield from self._trained(key, rule, tasks, begin, fixed, placed, steps)

    def unlearn(
        self, forget: ImageSet, retain: ImageSet, steps: int, *, start: Params | None = None
    ) -> Params:
        laboratory, experiment = self.laboratory, self.laboratory.experiment
        planned, begin = laboratory.forgetting(), self.params if start is None else start
        phase, sets = planned.name, {"retain": retain, "forget": forget}
        rows = {side: (_Pictures(sets[side]), _as_it_is) for side in planned.method.SIDES}
        optimizer, rate = optim.make_optimizer(steps=steps, **planned.optimizer)
        rule = dataclasses.replace(
            experiment.update_rule(phase), optimizer=optimizer, learning_rate=rate, stop=""
        )
        rule, fixed = measure.resolve_arguments(rule, experiment, rows, begin, begin, None)
        key = ("unlearn", phase, steps)
        with contextlib.closing(experiment.batches(phase, rows, 0)) as batches:
            trained = self._trained(key, rule, planned.tasks, begin, fixed, batches, (steps,))
            return next(trained)[1]

    def _trained(
        self,
        key: Hashable,
        rule: UpdateRule,
        tasks: Sequence[TaskPlan],
        begin: Params,
        fixed: Params,
        batches: Iterator[Mapping[str, Array]],
        steps: Sequence[int],
    ) -> Iterator[tuple[int, Params]]:
        """(steps done, parameters) at each of `steps`; the tasks take turns."""
        laboratory = self.laboratory
        state = laboratory.initial(key, rule, begin)
        for step in range(max(steps) + 1):
            if step in steps:
                yield step, begin | jax.tree.map(jnp.copy, state.result)  # it is donated
            if step == max(steps):
                return
            batch = dict(next(batches))
            task = tasks[step % len(tasks)]
            update = laboratory.updating(key, rule, task, state, fixed, batch)
            state, metrics = update(state, fixed, batch)
            values = {name: float(x) for name, x in jax.device_get(metrics).items()}
            try:
                check_finite(values, step, [])
            except NonFinite as error:
                raise CannotRun(str(error)) from error

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

    def _rule(self, method: str, lr: float, steps: int, groups: tuple[str, ...]) -> UpdateRule:
        chosen = find("method", method)
        if groups:
            chosen = dataclasses.replace(chosen, TRAINABLE=groups)
        optimizer, rate = optim.make_optimizer(steps=steps, lr=lr, final=lr, **ATTACK)
        return UpdateRule(
            phase="audit",
            model=self.model,
            method=chosen,
            args={},
            solver=find("solver", "weighted"),
            solver_args={},
            optimizer=optimizer,
            learning_rate=rate,
            seed=self.seed,
        )

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
