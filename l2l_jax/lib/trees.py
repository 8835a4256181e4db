"""Plain nested dicts of arrays: flat names, layouts, differences, digests.

A stack of blocks has two layouts: a list ("encoder/blocks/3/norm1/scale"), which is the canonical
layout of files and digests, and one stacked array for each parameter, with the block as first axis
("encoder/blocks/norm1/scale"), for jax.lax.scan.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Tree = dict[Any, Any]  # nested; keys are str, or int for the blocks of a list
T = TypeVar("T")
MIN_SQUARED_NORM = 1e-20  # replaces smaller values of dot(a, a) in denominators


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}; every name begins with `prefix`."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}/") if isinstance(value, Mapping) else {name: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """The inverse of flatten; names that are numbers become integer keys."""
    tree: Tree = {}
    for name, value in flat.items():
        *path, leaf = (int(part) if part.isdigit() else part for part in name.split("/"))
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def is_list(node: Any) -> bool:
    """Whether a node is a list of blocks: integer keys 0 .. n-1."""
    return isinstance(node, Mapping) and bool(node) and set(node) == set(range(len(node)))


def unstack(tree: Tree, template: Tree) -> Tree:
    """The tree in the canonical list layout, which `template` has."""
    if not isinstance(template, Mapping):
        return tree
    if is_list(template) and not is_list(tree):
        return {i: jax.tree.map(lambda x, i=i: x[i], tree) for i in range(len(template))}
    return {key: unstack(tree[key], template[key]) for key in template}


def stack(tree: Tree, template: Tree) -> Tree:
    """The canonical tree in the layout of `template`: lists of blocks may become stacked arrays."""
    if not isinstance(template, Mapping):
        return tree
    if is_list(tree) and not is_list(template):
        blocks = [tree[i] for i in range(len(tree))]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
    return {key: stack(tree[key], template[key]) for key in template}


def difference(got: Tree, want: Tree, got_name: str, want_name: str) -> str:
    """The differences of two trees in names and shapes, as text; "" if there are none."""
    a = {k: tuple(np.shape(v)) for k, v in flatten(got).items()}
    b = {k: tuple(np.shape(v)) for k, v in flatten(want).items()}
    lines = [f"  only in {got_name}: {k} {a[k]}" for k in sorted(set(a) - set(b))]
    lines += [f"  only in {want_name}: {k} {b[k]}" for k in sorted(set(b) - set(a))]
    both = sorted(k for k in set(a) & set(b) if a[k] != b[k])
    lines += [f"  {k}: {a[k]} in {got_name}, {b[k]} in {want_name}" for k in both]
    more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
    return "\n".join(["The parameters differ:", *lines[:20]]) + more if lines else ""


def digest(tree: Tree) -> str:
    """sha256 over names, dtypes, shapes and bytes, by name. Leaves are arrays on the host."""
    total = hashlib.sha256()
    for name, leaf in sorted(flatten(tree).items()):
        array = np.ascontiguousarray(leaf)
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def count(tree: Tree) -> int:
    """Number of values in all leaves."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Tree) -> int:
    """Bytes of all leaves, which may be arrays or jax.ShapeDtypeStruct."""
    leaves = jax.tree.leaves(tree)
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def dot(a: Tree, b: Tree) -> jax.Array:
    """Inner product <a, b> over all values of two trees of the same structure, scalar."""
    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(inner, a, b))))


def inner(a: jax.Array | np.ndarray, b: jax.Array | np.ndarray) -> jax.Array:
    """Inner product <a, b> of two arrays, scalar.

    In full precision. Sharded arrays stay sharded; jnp.vdot would gather them.
    """
    return jnp.sum(a * b)


def weighted_sum(s: jax.Array | int | float, a: T, t: jax.Array | int | float, b: T) -> T:
    """s a + t b, for trees of the same structure or for arrays."""
    return jax.tree.map(lambda x, y: s * x + t * y, a, b)
