"""Objectives whose best solutions are known, to test solvers on."""

import jax
import jax.numpy as jnp
import numpy as np

A, B = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)


class Bowls:
    """retain = |x - A|^2, forget = |x - B|^2: the Pareto front is the line from A to B."""

    def gradients(self, student, *weights):
        def both(x):
            return jnp.stack([jnp.sum((x["x"] - A) ** 2), jnp.sum((x["x"] - B) ** 2)])

        values, pullback = jax.vjp(both, student)
        metrics = {"retain": values[0], "forget": values[1]}
        return [pullback(jnp.array(w, jnp.float32))[0] for w in weights], metrics


class Quadratics:
    """retain = |A x - a|^2 / 2, forget = |B x - b|^2 / 2 of {"x": [3]}, with general A and B."""

    def __init__(self, seed=0):
        draws = np.random.default_rng(seed).normal(size=(2, 3, 4)).astype(np.float32)
        self.pairs = [(jnp.asarray(each[:, :3]), jnp.asarray(each[:, 3])) for each in draws]

    def values(self, student):
        return jnp.stack([jnp.sum((m @ student["x"] - c) ** 2) / 2 for m, c in self.pairs])

    def gradients(self, student, *weights):
        values, pullback = jax.vjp(self.values, student)
        metrics = {"retain": values[0], "forget": values[1]}
        return [pullback(jnp.array(w, jnp.float32))[0] for w in weights], metrics


class Given:
    """Objectives with two fixed gradients, of parameters "a" and "b"."""

    def __init__(self, retain, forget, /, **values):
        self.pair, self.values = (retain, forget), {"retain": 1.0, "forget": 1.0} | values

    def gradients(self, student, *weights):
        assert weights == ((1.0, 0.0), (0.0, 1.0))
        return list(self.pair), {name: jnp.float32(value) for name, value in self.values.items()}


def descend(solver, start, steps=2000, rate=0.02, **args):
    """Where plain gradient descent along the solver's direction ends."""

    def one(x, step):
        gradient, _ = solver.update(Bowls(), x, step, **args)
        return jax.tree.map(lambda a, g: a - rate * g, x, gradient), None

    student = {"x": jnp.asarray(start, jnp.float32)}
    return np.asarray(jax.lax.scan(one, student, jnp.arange(steps))[0]["x"])


def trees(*vectors):
    return [
        {"a": jnp.array(v[:2], jnp.float32), "b": jnp.array(v[2:], jnp.float32)} for v in vectors
    ]


def flat(tree):
    return np.concatenate([tree["a"], tree["b"]])
