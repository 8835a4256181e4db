"""Attacks the guarantee of solvers/noisy.py on a small autoencoder.

    python -m launch.drills.certificate
    python -m launch.drills.certificate --runs 4000 --epsilon 1

Two originals are trained, one of them on CANARIES as well: random pictures that it learns by heart.
Both go through the noisy phase RUNS times, each time with another secret, by the train step of the
project. The attacker knows both originals and projects what comes out on their difference. Half of
the runs choose the threshold, the other half give a Clopper-Pearson bound of epsilon from below. It
must not exceed the claim. Without noise, and with noise that the learning rate scales, it must.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from l2l_jax.engine.plan import TaskPlan
from l2l_jax.engine.step import UpdateRule, make_update
from l2l_jax.lib import accountant, optim, sharding, trees
from l2l_jax.registry import find
from l2l_jax.types import Params

TASK = TaskPlan("random", find("task", "random"), dict(ratio=0.5))
BATCH, STEPS, RATE, RADIUS, CLIP, DELTA = 2, 2, 0.01, 0.1, 0.5, 1e-5
CANARIES, TRAINING = 8, 100  # images, steps
PLAIN = dict(name="sgd", warmup=0.0, weight_decay=0.0)


def rule_of(solver: str, steps: int, rate: float, optimizer: dict, **args: object) -> UpdateRule:
    """A phase of finetune on the smallest autoencoder."""
    plugin = find("model", "autoencoder")
    made, schedule = optim.make_optimizer(steps=steps, lr=rate, final=rate, **optimizer)
    return UpdateRule(
        phase="drill",
        model=plugin.build(**plugin.SMALLEST),
        method=find("method", "finetune"),
        args={},
        solver=find("solver", solver),
        solver_args=args,
        optimizer=made,
        learning_rate=schedule,
        seed=0,
    )


def pictures(count: int, seed: int) -> np.ndarray:
    """Random images, uint8 [count, S, S, 3]: smooth ones, which can be learned."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def original(images: np.ndarray) -> Params:
    """A model trained on the images."""
    rule = rule_of("weighted", TRAINING, 3e-3, dict(warmup=0.0))
    params = rule.model.init(jax.random.key(0))
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    update, state = jax.jit(make_update(rule, TASK, mesh)), rule.init(params)
    fixed, rng = rule.fixed(params, {}), np.random.default_rng(0)
    for _ in range(TRAINING):
        rows = rng.integers(0, len(images), BATCH)
        state, _ = update(state, fixed, {"retain": images[rows]})
    return params | state.student


def noisy_phase(center: Params, retain: np.ndarray) -> Callable[..., Params]:
    """(start, secret, sigma) -> where the noisy phase ends; compiled once for all of them."""
    args = dict(radius=RADIUS, clip=CLIP, decay=0.0, center="")
    rule = rule_of("noisy", STEPS, RATE, PLAIN, **args)
    mesh, groups = sharding.make_mesh(1, jax.devices()[:1]), rule.method.TRAINABLE
    there = {group: center[group] for group in groups}
    batches = [retain[np.arange(BATCH) + BATCH * step] for step in range(STEPS)]

    def run(start: Params, secret: jax.Array, sigma: jax.Array) -> Params:
        noisy = dataclasses.replace(rule, solver_args=args | dict(sigma=sigma))
        update = make_update(noisy, TASK, mesh)
        assert rule.solver.begin
        own = {group: start[group] for group in groups}
        start = start | rule.solver.begin(own, there, radius=RADIUS)
        state = rule.init(start)
        fixed = rule.fixed(start, {}, certified={"center": there, "secret": secret})
        for images in batches:
            state, _ = update(state, fixed, {"retain": jnp.asarray(images)})
        return state.student

    return jax.jit(run)


def bound(one: np.ndarray, other: np.ndarray) -> float:
    """The bound of epsilon from below; the two kinds of runs on the line between them."""
    half, best = len(one) // 2, (-1.0, 0.0)
    for cut in np.quantile(np.concatenate([one[:half], other[:half]]), np.linspace(0, 1, 41)):
        best = max(best, (_judged(one[:half], other[:half], cut), float(cut)))
    return _judged(one[half:], other[half:], best[1])


def _judged(one: np.ndarray, other: np.ndarray, cut: float) -> float:
    found, wrong = int((one >= cut).sum()), int((other >= cut).sum())
    return accountant.lower_bound(found, len(one), wrong, len(other), DELTA)


class Attack:
    """Both originals, and what the attacker knows of them."""

    def __init__(self, runs: int):
        self.runs = runs
        retain, canaries = pictures(BATCH * STEPS, 1), pictures(CANARIES, 2)
        center = rule_of("weighted", 1, 0.1, PLAIN).model.init(jax.random.key(0))
        self.starts = original(np.concatenate([retain, canaries])), original(retain)
        self.program = noisy_phase(center, retain)

    def __call__(self, sigma: float) -> float:
        """The bound of epsilon from below for this noise."""
        program, starts = self.program, self.starts
        secrets = np.random.default_rng(0).integers(0, 2**32, (2, self.runs, 2), np.uint32)
        made = []
        for start, each in zip(starts, secrets, strict=True):
            parts = [jax.device_get(program(start, secret, sigma)) for secret in each]
            made.append(jax.tree.map(lambda *x: np.stack(x), *parts))
        away = trees.weighted_sum(1.0, starts[0], -1.0, starts[1])
        axis = {group: away[group] for group in made[0]}

        def along(tree: Params) -> np.ndarray:
            parts = jax.tree.map(
                lambda x, d: np.asarray(x, np.float64).reshape(len(x), -1) @ np.ravel(d), tree, axis
            )
            return np.sum(jax.tree.leaves(parts), axis=0)

        return bound(along(made[0]), along(made[1]))


def main(runs: int, epsilon: float) -> int:
    """Prints the bounds; returns 1 if one of them is on the wrong side of the claim."""
    sigma = accountant.sigma_for(
        epsilon, DELTA, start=2 * RADIUS, steps=STEPS, rate=RATE, clip=CLIP
    )
    attack = Attack(runs)
    wrong = 0
    for name, noise, below in (
        ("the noise of the guarantee", sigma, True),
        ("no noise", 0.0, False),
        ("noise that the learning rate scales", RATE * sigma, False),
    ):
        found = attack(noise)
        good = (found <= epsilon) if below else (found > epsilon)
        wrong += not good
        side = "at most" if below else "above"
        print(f"{name}, sigma {noise:.4g}: epsilon >= {found:.3f}; it should be {side} {epsilon:g}"
              f"{'' if good else '  WRONG'}")  # fmt: skip
    return int(wrong > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000, help="of each of the two originals")
    parser.add_argument("--epsilon", type=float, default=2.0, help="the claim, at delta = 1e-5")
    given = parser.parse_args()
    sys.exit(main(given.runs, given.epsilon))
