"""Replay that draws uniformly, or in proportion to priorities, https://arxiv.org/abs/1511.05952.

Proportional prioritization is section 3.3 with algorithm 1: P(i) = p_i^exponent / sum. Importance
weights are the caller's: `(probability / least) ** -beta` is (N P(i))^-beta over the largest such
weight of all items held, as N cancels; it is exactly 1 where replay is uniform.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.replay import ring, sum_tree
from rljax.types import Array, Replay, Sample


def uniform(capacity: int, batch_size: int) -> Replay:
    """Replay that draws every item it holds with the same probability, with replacement.

    The remainder of 32 random bits: right to one part in 2^32 / (items held).

    `add` takes a third argument, `skip`: how many of its first items are not to be stored.

    Raises:
      ValueError: the batch is larger than the capacity, or either is below 1; in `init`: the
        items need more memory than there is; in `add`: there are more items than slots.
    """
    ring.check_sizes(capacity, batch_size)

    def init(item):
        return ring.init(capacity, item)

    def add(state, items, skip=0):
        return ring.add(state, items, skip)[0]

    def sample_noise(key, num_samples):
        return jax.random.bits(key, (num_samples, batch_size))

    def sample(state, noise):
        held = size(state)
        indices = jax.lax.rem(noise, held.astype(jnp.uint32)).astype(jnp.int32)
        probability = 1.0 / held.astype(jnp.float32)
        batch = ring.read(state, indices)
        return Sample(batch, indices, jnp.full((batch_size,), probability), probability)

    def reprioritize(state, indices, td_error):
        del indices, td_error
        return state

    def size(state):
        return state.size.value

    return Replay(init, add, sample, reprioritize, size, sample_noise)


class PrioritizedState(NamedTuple):
    ring: ring.Ring
    tree: sum_tree.SumTree
    highest: Array  # [] the largest priority there ever was: new items get it


def prioritized(
    capacity: int, batch_size: int, exponent: Any = 0.6, epsilon: Any = 1e-6
) -> Replay:  # fmt: skip
    """Replay that draws items in proportion to `(|TD error| + epsilon) ** exponent`.

    A batch is stratified: one item from each of `batch_size` equal shares of the total. New items
    have the largest priority that any item ever had, at first 1. Queries are float32, so the
    shares of the items are right to 2^-24 of the total.

    Args:
      exponent: 0 draws uniformly, 1 in full proportion; may be a tracer.
      epsilon: keeps items of no error in reach; may be a tracer.
    Raises:
      ValueError: as `uniform`, or `exponent` is not in [0, 1], or `epsilon` not above 0.
    """
    ring.check_sizes(capacity, batch_size)
    ring.check_option("exponent", exponent, 0, 1)
    ring.check_option("epsilon", epsilon, 0, float("inf"), above=True)

    def init(item):
        items = ring.init(capacity, item)
        return PrioritizedState(items, sum_tree.init(capacity), jnp.float32(1))

    def add(state, items, skip=0):
        items, slots = ring.add(state.ring, items, skip)
        priorities = jnp.full(slots.shape, state.highest)
        return state._replace(ring=items, tree=sum_tree.set(state.tree, slots, priorities))

    def sample_noise(key, num_samples):
        return jax.random.uniform(key, (num_samples, batch_size))

    def sample(state, noise):
        total = sum_tree.total(state.tree)
        queries = stratified(noise, total)
        indices, priorities = sum_tree.find(state.tree, queries)
        batch = ring.read(state.ring, indices)
        return Sample(batch, indices, priorities / total, sum_tree.min_priority(state.tree) / total)

    def reprioritize(state, indices, td_error):
        priorities = (jnp.abs(td_error) + epsilon) ** exponent
        tree = sum_tree.set(state.tree, indices, priorities)
        return state._replace(tree=tree, highest=jnp.maximum(state.highest, priorities.max()))

    def size(state):
        return state.ring.size.value

    return Replay(init, add, sample, reprioritize, size, sample_noise)


def stratified(uniform: Array, total: Array) -> Array:
    """Places in each of N equal parts of `[0, total)`, from uniform numbers: `[N] -> [N]`."""
    parts = jnp.arange(uniform.size, dtype=jnp.float32)
    return (parts + uniform) * (total / uniform.size)
