"""A sum tree over priorities, https://arxiv.org/abs/1511.05952 (appendix B.2.1).

Priorities are at the leaves; each parent holds the sum and the smallest positive priority of its
leaves. An index is sampled in proportion to its priority in O(log capacity). Differs from the
paper: nodes have 8 children, as 2 would need three times as many levels, each a gather and a
scatter; parents are recomputed from their children, so rounding errors do not accumulate.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Array


class SumTree(NamedTuple):
    """The levels of a tree, from the leaves to the children of the root, which is not stored.

    A row of a level holds the children of one node in the next level. Sums and minima share an
    array, so that XLA can update a level in place: `find` then reads all that `set` writes.

    Attributes:
      leaves: priorities, `[rows, branching]`, padded with zeros.
      parents: levels of sums and minima, `[2, rows, branching]` each; the minimum of a node
        without positive priorities is inf.
    """

    leaves: Array
    parents: tuple[Array, ...]


def init(capacity: int, branching: int = 8) -> SumTree:
    """Returns a tree of `capacity` leaves with priority 0.

    Args:
      capacity: number of leaves.
      branching: number of children of a node.

    Raises:
      ValueError: `capacity` is below 1, or `branching` below 2.

    Example:
      >>> tree = init(capacity=1000)
      >>> tree.leaves.shape, [level.shape for level in tree.parents]
      ((125, 8), [(2, 16, 8), (2, 2, 8), (2, 1, 8)])
    """
    if capacity < 1:
        raise ValueError(f"`capacity` is {capacity}, but a sum tree must have at least 1 leaf.")
    if branching < 2:
        raise ValueError(f"`branching` is {branching}, but a node must have at least 2 children.")
    rows = [-(-capacity // branching)]
    while rows[-1] > 1:
        rows.append(-(-rows[-1] // branching))
    leaves, *parents = (jnp.zeros((count, branching)) for count in rows)
    return SumTree(leaves, tuple(jnp.stack([x, jnp.full_like(x, jnp.inf)]) for x in parents))


def get(tree: SumTree, indices: Array) -> Array:
    """Returns the priorities of leaves, `[N] -> [N]`."""
    branching = tree.leaves.shape[1]
    at = jax.lax.div(indices, branching), jax.lax.rem(indices, branching)
    return tree.leaves.at[at].get(mode="promise_in_bounds")


def total(tree: SumTree) -> Array:
    """Returns the sum of all priorities, `[]`."""
    return _root(tree)[0]


def min_priority(tree: SumTree) -> Array:
    """Returns the smallest positive priority, `[]`; inf if all are 0."""
    return _root(tree)[1]


def set(tree: SumTree, indices: Array, priorities: Array) -> SumTree:
    """Sets the priorities of leaves, in O(N log capacity).

    Args:
      tree: the tree.
      indices: leaves, `[N]` int32, N at most 2^24. Of a repeated index the last priority counts,
        on every device. Indices outside the tree are ignored.
      priorities: new priorities, `[N]`, not negative.

    Returns:
      The new tree.

    Example:
      >>> tree = set(init(8), jnp.arange(8), jnp.array([3.0, 10, 12, 4, 1, 2, 8, 2]))
      >>> float(total(tree)), float(min_priority(tree))
      (42.0, 1.0)
    """
    chex.assert_rank([indices, priorities], 1)
    chex.assert_equal_shape([indices, priorities])
    chex.assert_type([indices, priorities], [int, float])
    num_rows, branching = tree.leaves.shape
    at = jax.lax.div(indices, branching), jax.lax.rem(indices, branching)
    # A scatter may write repeated indices in any order, so the last place of each is found first:
    # by a minimum, which does not depend on the order, among the leaves, which are not negative.
    places = jnp.arange(indices.size, dtype=tree.leaves.dtype)
    marked = tree.leaves.at[at].min(-1 - places, mode="drop")
    last = (-1 - marked.at[at].get(mode="clip")).astype(jnp.int32)
    leaves = marked.at[at].set(priorities.at[last].get(mode="clip"), mode="drop")
    rows, children, parents = jnp.minimum(at[0], num_rows - 1), leaves, []
    for level in tree.parents:
        children = _recomputed(level, children, rows)
        parents.append(children)
        rows = jax.lax.div(rows, branching)
    return SumTree(leaves, tuple(parents))


def find(tree: SumTree, queries: Array) -> tuple[Array, Array]:
    """Finds the leaves whose intervals of the prefix sum contain the queries.

    Leaf i has the interval `[p_0 + ... + p_{i-1}, p_0 + ... + p_i)`. A query of `total` or more
    finds the last leaf with a positive priority, a negative query the first. A leaf of priority 0
    is found only if all priorities are 0.

    Args:
      tree: the tree.
      queries: `[N]`, for example uniform in `[0, total)`.

    Returns:
      Indices `[N]` int32, and their priorities `[N]`.

    Example:
      >>> tree = set(init(8), jnp.arange(8), jnp.array([3.0, 10, 12, 4, 1, 2, 8, 2]))
      >>> indices, priorities = find(tree, jnp.array([24.0]))
      >>> indices.tolist(), priorities.tolist()
      ([2], [12.0])
    """
    chex.assert_rank(queries, 1)
    chex.assert_type(queries, float)
    branching = tree.leaves.shape[1]
    children = jnp.arange(branching)[:, None]
    before = jnp.asarray(np.tril(np.ones((branching, branching), np.float32), -1))
    node, remainder = jnp.zeros(queries.shape, jnp.int32), jnp.maximum(queries, 0.0)
    priorities = remainder
    for level in (*reversed(tree.parents), tree.leaves):
        at = (0, node) if level.ndim == 3 else node
        row = level.at[at].get(mode="promise_in_bounds").T  # [branching, N]
        # start of each child's interval; a child of 0 has the start of the next, and is excluded
        start = jnp.matmul(before, row, precision=jax.lax.Precision.HIGHEST)
        eligible = (row > 0) & (start <= remainder[None])
        child = jnp.where(eligible, children, 0).max(0)
        remainder = remainder - jnp.where(eligible, start, 0.0).max(0)
        node = node * branching + child
        # reading the leaves again after the loop would keep a later `set` from working in place
        priorities = jnp.where(children == child[None], row, 0.0).max(0)
    return node, priorities


def _root(tree: SumTree) -> Array:
    """The sum and the minimum of the root, `[2]`."""
    return _summary((tree.leaves, *tree.parents)[-1])[:, 0]


def _summary(rows: Array) -> Array:
    """The sum and the smallest positive priority of each row: `[N, K]` or `[2, N, K] -> [2, N]`."""
    sums, minima = (rows, rows) if rows.ndim == 2 else rows
    minima = jnp.where(minima > 0, minima, jnp.inf)
    return jnp.stack([sums.sum(1), minima.min(1)])


def _recomputed(level: Array, children: Array, rows: Array) -> Array:
    """Returns `level` with the parents of `rows[N]` of `children` recomputed."""
    _, num_rows, branching = level.shape
    if children.shape[-2] <= 2 * rows.size:  # the whole level is less work
        summary = _summary(children)
        missing = num_rows * branching - summary.shape[1]
        sums = jnp.pad(summary[0], (0, missing))
        minima = jnp.pad(summary[1], (0, missing), constant_values=jnp.inf)
        return jnp.stack([sums, minima]).reshape(level.shape)
    changed = children.at[rows] if children.ndim == 2 else children.at[:, rows]
    values = _summary(changed.get(mode="promise_in_bounds"))
    at = slice(None), jax.lax.div(rows, branching), jax.lax.rem(rows, branching)
    return level.at[at].set(values, mode="promise_in_bounds")
