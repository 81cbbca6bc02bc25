"""A sum tree as arrays: priorities at the leaves, in every parent the sum and the least below it.

Draws an index in proportion to its priority in O(log capacity), https://arxiv.org/abs/1511.05952,
appendix B.2.1. Differs: nodes have 8 children, where 2 would need thrice the levels, each of which
is a gather and a scatter; parents are computed from their children, never moved by differences.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Array


class SumTree(NamedTuple):
    """Levels from the leaves up to the children of the root, one node of their parents a row.

    Sums and minima share an array, because then `find` reads all that the next `set` writes, and
    XLA need not copy a level lest it be read too late.
    """

    leaves: Array  # [rows, branching] filled up with zeros
    above: tuple[Array, ...]  # [2, rows, branching]: the sum, and the least positive leaf or inf


def init(capacity: int, branching: int = 8) -> SumTree:
    """A tree of `capacity` leaves, all zero.

    Raises:
      ValueError: `capacity` is below 1, or `branching` below 2.
    """
    if capacity < 1:
        raise ValueError(f"`capacity` is {capacity}, but a sum tree must have at least 1 leaf.")
    if branching < 2:
        raise ValueError(f"`branching` is {branching}, but a node must have at least 2 children.")
    rows = [-(-capacity // branching)]
    while rows[-1] > 1:
        rows.append(-(-rows[-1] // branching))
    leaves, *above = (jnp.zeros((count, branching)) for count in rows)
    return SumTree(leaves, tuple(jnp.stack([x, jnp.full_like(x, jnp.inf)]) for x in above))


def get(tree: SumTree, indices: Array) -> Array:
    """The priorities of leaves, `[N] -> [N]`."""
    branching = tree.leaves.shape[1]
    at = jax.lax.div(indices, branching), jax.lax.rem(indices, branching)
    return tree.leaves.at[at].get(mode="promise_in_bounds")


def total(tree: SumTree) -> Array:
    """The sum of all priorities, `[]`."""
    return _root(tree)[0]


def min_priority(tree: SumTree) -> Array:
    """The smallest positive priority, `[]`; inf where there is none."""
    return _root(tree)[1]


def set(tree: SumTree, indices: Array, priorities: Array) -> SumTree:
    """Gives the leaves `indices[N]` the priorities `[N]`, not negative: O(N log capacity).

    Of the priorities of an index that repeats the last one stands, on every device. An index
    beyond the leaves is left out. N is at most 2^24.
    """
    chex.assert_equal_shape([indices, priorities])
    num_rows, branching = tree.leaves.shape
    at = jax.lax.div(indices, branching), jax.lax.rem(indices, branching)
    # A scatter may write repeated indices in any order, so the last place of each is found first:
    # by a minimum, which knows no order, among the leaves, which are not negative.
    places = jnp.arange(indices.size, dtype=tree.leaves.dtype)
    marked = tree.leaves.at[at].min(-1 - places, mode="drop")
    last = (-1 - marked.at[at].get(mode="clip")).astype(jnp.int32)
    leaves = marked.at[at].set(priorities.at[last].get(mode="clip"), mode="drop")
    rows, below, above = jnp.minimum(at[0], num_rows - 1), leaves, []
    for level in tree.above:  # what stands above those leaves is computed afresh
        below = _parents(below, level, rows)
        above.append(below)
        rows = jax.lax.div(rows, branching)
    return SumTree(leaves, tuple(above))


def find(tree: SumTree, queries: Array) -> tuple[Array, Array]:
    """The smallest index whose prefix sum exceeds the query, and its priority.

    A query of `total` or more, by rounding or otherwise, finds the last leaf that is positive, one
    below zero the first: no leaf of priority zero is ever found, unless all are.

    Returns: indices `[N]` int32 and priorities `[N]`. They need no second look at the leaves,
      which could come too late for a `set` that follows.
    """
    branching = tree.leaves.shape[1]
    children = jnp.arange(branching)[:, None]
    before = jnp.asarray(np.tril(np.ones((branching, branching), np.float32), -1))
    node, rest = jnp.zeros(queries.shape, jnp.int32), jnp.maximum(queries, 0.0)
    priorities = rest
    for level in (*reversed(tree.above), tree.leaves):
        at = (0, node) if level.ndim == 3 else node
        row = level.at[at].get(mode="promise_in_bounds").T  # [branching, N]
        # where each child begins; zeros add nothing, so children of zero begin where the next does
        begin = jnp.matmul(before, row, precision=jax.lax.Precision.HIGHEST)
        eligible = (row > 0) & (begin <= rest[None])
        child = jnp.where(eligible, children, 0).max(0)
        rest = rest - jnp.where(eligible, begin, 0.0).max(0)
        node = node * branching + child
        priorities = jnp.where(children == child[None], row, 0.0).max(0)
    return node, priorities


def _root(tree: SumTree) -> Array:
    """The sum and the least of all leaves, `[2]`."""
    return _summary((tree.leaves, *tree.above)[-1])[:, 0]


def _summary(rows: Array) -> Array:
    """The sum and the least positive leaf of each row: of leaves or `[2, N, branching]`."""
    sums, minima = (rows, rows) if rows.ndim == 2 else rows
    minima = jnp.where(minima > 0, minima, jnp.inf)
    return jnp.stack([sums.sum(1), minima.min(1)])


def _parents(below: Array, level: Array, rows: Array) -> Array:
    """`level` with what stands above `rows[N]` of the level below it computed afresh."""
    _, num_rows, branching = level.shape
    if below.shape[-2] <= 2 * rows.size:  # the whole level is less work
        whole = _summary(below)
        missing = num_rows * branching - whole.shape[1]
        sums = jnp.pad(whole[0], (0, missing))
        minima = jnp.pad(whole[1], (0, missing), constant_values=jnp.inf)
        return jnp.stack([sums, minima]).reshape(level.shape)
    some = below.at[rows] if below.ndim == 2 else below.at[:, rows]
    values = _summary(some.get(mode="promise_in_bounds"))
    at = slice(None), jax.lax.div(rows, branching), jax.lax.rem(rows, branching)
    return level.at[at].set(values, mode="promise_in_bounds")
