"""The train step: takes uint8 images or tokens and updates the trainable parameter groups.

It is a pure function under jax.jit. Every array that it takes or returns has a declared sharding,
and the state is donated. Its randomness is a function of (seed, phase, step). Frozen parameters are
not part of the state.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from l2l_jax.engine.plan import TaskPlan
from l2l_jax.lib import pixels, sharding
from l2l_jax.lib import rng as rngs
from l2l_jax.types import (
    Array,
    Batch,
    ImageToImage,
    Method,
    Metrics,
    Params,
    Solver,
    UnlearnBatch,
)

Step = Callable[["State", Params, dict[str, Array]], tuple["State", Metrics]]

UNSEEN = "unseen"  # the value of a phase's `stop`; see engine/unseen.py
OVER_UNSEEN = "over_unseen"  # the metric that ends such a phase, at 0


def mean_name(metric: str) -> str:
    """The name of what is compared with the limit: a mean over tasks, see check_end."""
    return f"{metric}_mean"


@no_type_check  # JAX also builds it from shapes and shardings
@flax.struct.dataclass
class State:
    """What a step changes, which is also what a checkpoint holds."""

    step: Array  # int32, number of updates done
    student: Params  # the trainable groups
    optimizer: Any
    average: Params | None  # moving average of the student, float32; None without ema

    @property
    def result(self) -> Params:
        """The result of the phase: the moving average if there is one, else the student."""
        return self.student if self.average is None else self.average

    def saved(self) -> dict[str, Any]:
        """{name: value} of the fields that are not None, for orbax, which would store a None."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}


@no_type_check
@flax.struct.dataclass
class EndingState(State):
    """The state for a phase that may end before its last step."""

    ended: Array  # bool scalar: the phase has ended, and no step changes anything any more
    recent: Array  # [tasks] float32: the metric that ends the phase, in the last step of each task;
    #     [1] if the metric of a step is that of all tasks


@dataclasses.dataclass(frozen=True)
class UpdateRule:
    """What one step of a phase does: plug-ins, and their arguments from the config."""

    phase: str
    model: ImageToImage
    method: Method
    args: Mapping[str, Any]
    solver: Solver
    solver_args: Mapping[str, Any]
    optimizer: optax.GradientTransformationExtraArgs
    learning_rate: optax.Schedule
    seed: int
    tasks: int = 1  # tasks that the phase rotates over; step i uses the i-th, in turn
    accumulate: int = 1
    ema: float = 0.0  # decay of the moving average; 0 = no average
    stop: str = ""  # UNSEEN, or "": where the method says so, if it does
    compared: tuple[TaskPlan, ...] = ()  # the tasks whose masks UNSEEN looks at
    made: list[tuple[TaskPlan, Mesh, Step]] = dataclasses.field(init=False, default_factory=list)

    @property
    def until(self) -> tuple[str, float | None] | None:
        """(metric, limit): the phase ends when the metric reaches its limit, unless that is None.

        None if nothing can end the phase before its last step.
        """
        if self.stop:
            return OVER_UNSEEN, 0.0
        if self.method.UNTIL is None:
            return None
        metric, argument = self.method.UNTIL
        return metric, self.args.get(argument) or None

    @property
    def turns(self) -> int:
        """Steps after which the metric of `until` has been measured under every task."""
        return 1 if self.stop else self.tasks

    def init(self, params: Params) -> State:
        """The state before the first step. params: all groups of the model.

        The moving average starts at the student's initial values.
        """
        student = {group: params[group] for group in self.method.TRAINABLE}
        # A copy: the state is donated, the parameters it starts from are not.
        student = jax.tree.map(jnp.copy, student)
        average = jax.tree.map(lambda x: jnp.array(x, jnp.float32), student) if self.ema else None
        fields = jnp.zeros((), jnp.int32), student, self.optimizer.init(student), average
        if self.until is None:
            return State(*fields)
        return EndingState(*fields, jnp.zeros((), bool), jnp.zeros(self.turns, jnp.float32))

    def fixed(
        self,
        start: Params,
        original: Params,
        noise: Array | jax.ShapeDtypeStruct | None = None,
        salient: Params | None = None,
        pairs: Mapping[str, Array | jax.ShapeDtypeStruct] | None = None,
        certified: Params | None = None,
    ) -> Params:
        """What a step reads and never changes: {"frozen", "teacher", and the other arguments}.

        start: all groups that the phase begins with; original: the teacher. noise: tokens of noise
        images, [N, h, w] integers; None: the method draws noise in each step. salient: bools like
        the student, True for values that may move; None: all of them. pairs: what engine/unseen.py
        compares, if the phase stops at UNSEEN. certified: what engine/certificate.py gives a solver
        with a guarantee; None: `start` as its center, and noise by the seed, which others know.
        """
        frozen = {k: v for k, v in start.items() if k not in self.method.TRAINABLE}
        teacher = original if self.method.TEACHER else {}
        if self.solver.after and certified is None:
            key = jax.random.key_data(rngs.key(self.seed, self.phase, "noise"))
            certified = {"center": {g: start[g] for g in self.method.TRAINABLE}, "secret": key}
        shown = {"noise": noise, "salient": salient, "pairs": pairs, "certified": certified}
        return {"frozen": frozen, "teacher": teacher, **shown}

    def check_end(self, state: EndingState, metrics: Metrics) -> tuple[Array, Array, Array]:
        """(bool: whether the stopping criterion is met, mean of its metric, state.recent with it).

        The mean is over the last step of each task, because the metric of one task may be twice
        that of another. Before every task has had a step, the criterion is not met.
        """
        assert self.until
        metric, limit = self.until
        recent = state.recent.at[state.step % self.turns].set(metrics[metric])
        mean = jnp.sum(recent) / jnp.minimum(state.step + 1, self.turns)
        if limit is None:
            return jnp.zeros((), bool), mean, recent
        return (state.step + 1 >= self.turns) & (mean >= limit), mean, recent


@dataclasses.dataclass(frozen=True)
class BatchObjectives:
    """The two objectives of one batch; see types.Objectives."""

    rule: UpdateRule
    fixed: Params
    batch: UnlearnBatch  # leading axis [accumulate] if that is more than one
    rng: Array

    @property
    def center(self) -> Params:
        """See types.CenteredObjectives; {} if the solver has no guarantee."""
        return (self.fixed["certified"] or {}).get("center", {})

    def __call__(self, student: Params, batch: UnlearnBatch, rng: Array) -> tuple[Array, Metrics]:
        """([retain, forget], metrics) of one micro-batch."""
        rule, whole = self.rule, self.fixed["frozen"] | student
        retain, forget, metrics = rule.method.objectives(
            rule.model, whole, self.fixed["teacher"], batch, rng, **rule.args
        )
        both = jnp.stack([retain, forget]).astype(jnp.float32)
        return both, metrics | {"retain": retain, "forget": forget}

    def gradients(
        self, student: Params, *weights: tuple[float, float]
    ) -> tuple[list[Params], Metrics]:
        """See types.Objectives: one forward pass, one backward pass for each pair of weights.

        Means over the micro-batches; zero where values may not move.
        """

        def one(batch: UnlearnBatch, rng: Array) -> tuple[list[Params], Metrics]:
            function = functools.partial(self, batch=batch, rng=rng)
            _, pullback, metrics = jax.vjp(function, student, has_aux=True)
            pulled = [pullback(jnp.array(pair, jnp.float32))[0] for pair in weights]
            return [_salient(gradient, self.fixed["salient"]) for gradient in pulled], metrics

        pieces = self.rule.accumulate
        if pieces == 1:
            return one(self.batch, self.rng)

        def add(total: Any, piece: tuple[Array, UnlearnBatch]) -> tuple[Any, None]:
            result = one(piece[1], rngs.fold(self.rng, piece[0]))
            return jax.tree.map(jnp.add, total, result), None

        first = jax.tree.map(lambda x: x[0], self.batch)
        shapes = jax.eval_shape(one, first, self.rng)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(add, zero, (jnp.arange(pieces), self.batch))
        return jax.tree.map(lambda x: x / pieces, total)


def rows_name(side: str) -> str:
    """The key, among the arrays of a step, of the rows of a side's images in their split."""
    return f"{side} rows"


def draw(
    rule: UpdateRule,
    side: str,
    images: Array,
    planned: TaskPlan,
    rng: Array,
    rows: Array | None = None,
) -> Batch:
    """The batch of one side: images [B, H, W, 3] float32 in [0, 1], or tokens, and their masks.

    images: uint8 pixels, or tokens [B, h, w] integers. rows: [B] int32, which images of the split
    they are; if given, each image gets a seed that depends on its row and not on the step.
    """
    grid, args = rule.model.grid, planned.args
    mask = planned.task.mask(rngs.fold(rng, "mask", side), images.shape[0], grid, **args)
    visible = planned.task.visible(grid, **args)
    given = pixels.to_unit_range(images) if images.dtype == jnp.uint8 else images.astype(jnp.int32)
    seeds = None
    if rows is not None:
        base = rngs.key(rule.seed, rule.phase, "image", side)
        seeds = jax.vmap(lambda row: jax.random.bits(rngs.fold(base, row), dtype=jnp.uint32))(rows)
    return Batch(given, mask, visible, seeds)


def make_objectives(
    rule: UpdateRule, task: TaskPlan, mesh: Mesh
) -> Callable[[Array, Params, dict[str, Array]], BatchObjectives]:
    """(step, fixed, images) -> the objectives of that step's batch, with all that it draws."""

    def split(x: Array) -> Array:
        """[B, ...] -> [accumulate, B / accumulate, ...], every device keeping its own rows."""
        rows = x.reshape(-1, rule.accumulate, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(rows, sharding.microbatch_sharding(mesh))

    def at_step(step: Array, fixed: Params, images: dict[str, Array]) -> BatchObjectives:
        rng = rngs.key(rule.seed, rule.phase, step)
        halves = {
            side: draw(rule, side, images[side], task, rng, images.get(rows_name(side)))
            for side in rule.method.SIDES
        }
        batch = UnlearnBatch(halves.get("retain"), halves.get("forget"))
        if (bank := fixed["noise"]) is not None:
            drawn = halves["forget"].seeds  # the same noise for an image in every step, or other
            if drawn is None:
                rows = (len(images["forget"]),)
                drawn = jax.random.randint(rngs.fold(rng, "bank"), rows, 0, len(bank))
            drawn = drawn % len(bank)
            batch = dataclasses.replace(batch, noise=bank[drawn].astype(jnp.int32))
        if rule.accumulate > 1:
            batch = jax.tree.map(split, batch)
        return BatchObjectives(rule, fixed, batch, rngs.fold(rng, "method"))

    return at_step


def make_update(rule: UpdateRule, task: TaskPlan, mesh: Mesh) -> Step:
    """The update as a pure function, not compiled: (state, fixed, images) -> (state, metrics).

    It is the same function for the same objects: JAX traces a function once for the checks before
    step 0, the count of FLOPs, and the program.
    """
    for known, where, made in rule.made:
        if known is task and where == mesh:
            return made
    at_step = make_objectives(rule, task, mesh)

    def update(state: State, fixed: Params, images: dict[str, Array]) -> tuple[State, Metrics]:
        objectives = at_step(state.step, fixed, images)
        gradient, metrics = rule.solver.update(
            objectives, state.student, state.step, **rule.solver_args
        )

        def direction(student: Params) -> Params:
            """The gradient of this step at other parameters, for optimizers of second order."""
            return rule.solver.update(objectives, student, state.step, **rule.solver_args)[0]

        updates, optimizer = rule.optimizer.update(
            gradient, state.optimizer, state.student, direction=direction
        )
        updates = _salient(updates, fixed["salient"])  # weight decay moves what has no gradient
        student: Any = optax.apply_updates(state.student, updates)
        if rule.solver.after:
            key = rngs.fold(jax.random.wrap_key_data(fixed["certified"]["secret"]), state.step)
            student = rule.solver.after(student, key, **rule.solver_args)
        measured: dict[str, Any] = {
            "gradient_norm": optax.tree.norm(gradient),
            "update_norm": optax.tree.norm(updates),
            "learning_rate": rule.learning_rate(state.step),
        }
        metrics |= measured
        if rule.stop:
            metrics |= over_unseen(rule, fixed, state.result)
        average = _averaged(state.average, student, rule.ema)
        new = dataclasses.replace(
            state, step=state.step + 1, student=student, optimizer=optimizer, average=average
        )
        if not isinstance(state, EndingState):
            return new, metrics
        assert rule.until
        met, mean, recent = rule.check_end(state, metrics)
        ended = state.ended | met
        new = jax.tree.map(lambda x, y: jnp.where(ended, x, y), state, new)
        # The step that meets the criterion counts; steps dispatched after it do not.
        recent = jnp.where(state.ended, state.recent, recent)
        new = dataclasses.replace(new, step=state.step + ~state.ended, ended=ended, recent=recent)
        metrics[mean_name(rule.until[0])] = mean
        return new, metrics | {"ended": ended.astype(jnp.float32)}

    made = sharding.on(mesh, update)
    rule.made.append((task, mesh, made))
    return made


def over_unseen(rule: UpdateRule, fixed: Params, student: Params) -> Metrics:
    """{OVER_UNSEEN: how far the loss on forget images is above that on never-seen ones}.

    Beside it the losses of the pairs that a step looks at; see engine/unseen.py.
    """
    pairs = fixed["pairs"]
    losses = pair_losses(rule, fixed["frozen"] | student, pairs, 0)
    gap = losses["forget"] - losses["calibration"]
    shown = {f"{side}_loss": value for side, value in losses.items()}
    return {OVER_UNSEEN: gap + pairs["offset"], **shown}


def pair_losses(
    rule: UpdateRule, params: Params, pairs: Mapping[str, Array], turn: Array | int
) -> dict[str, Array]:
    """{side: scalar, its mean loss under all tasks} of pairs of a forget and a never-seen image.

    pairs: uint8 [R, H, W, 3] or tokens of the sides "forget" and "calibration". A row has the same
    mask and draws of T on both sides. They depend on `turn` and not on the step.
    """
    sides, total = ("forget", "calibration"), jnp.zeros(2)
    both = jnp.stack([pairs[side] for side in sides])
    for at, task in enumerate(rule.compared):
        rng = rngs.key(rule.seed, rule.phase, UNSEEN, at, turn)

        def loss(images: Array, task: TaskPlan = task, rng: Array = rng) -> Array:
            batch, key = draw(rule, "", images, task, rng), rngs.fold(rng, "corrupt")
            shown = rule.model.corrupt(params, batch.images, batch.mask, key, visible=batch.visible)
            return jnp.mean(rule.model.loss(params, shown))

        total += jax.lax.map(loss, both) / len(rule.compared)  # one program for both sides
    return dict(zip(sides, total, strict=True))


def _averaged(average: Params | None, student: Params, decay: float) -> Params | None:
    """decay * average + (1 - decay) * student, so that a value that does not move stays equal."""
    if average is None:
        return None
    return jax.tree.map(lambda a, x: a + (1 - decay) * (x - a), average, student)


def _salient(tree: Any, mask: Params | None) -> Any:
    return tree if mask is None else jax.tree.map(lambda x, keep: jnp.where(keep, x, 0), tree, mask)


def shard_update(
    update: Step, state: State, fixed: Params, names: Iterable[str], mesh: Mesh
) -> Step:
    """jax.jit with shardings; the state is donated, metrics come back replicated.

    names: the keys of what a step is given, sides and rows.
    """
    of = functools.partial(jax.tree.map, lambda x: x.sharding)
    images = {name: sharding.batch_sharding(mesh) for name in names}
    return jax.jit(
        update,
        in_shardings=(of(state), of(fixed), images),
        out_shardings=(of(state), sharding.replicated(mesh)),
        donate_argnums=0,
    )
