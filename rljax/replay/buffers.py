"""Uniform replay, and proportional prioritized replay, https://arxiv.org/abs/1511.05952.

Importance-sampling weights are left to the agent: `(P(i) / min_j P(j))^-beta`, with the minimum
over all items in the buffer, equals the paper's `(N P(i))^-beta` over its largest value, as N
cancels (see `ops.td.importance_weights`). It is exactly 1 in uniform replay.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.config import check_range
from rljax.ops import platform, random
from rljax.replay import ring, sum_tree
from rljax.replay.checks import check_sizes
from rljax.types import Array, Replay, Sample


def uniform(capacity: int, batch_size: int) -> Replay:
    """Makes a replay buffer that samples uniformly with replacement.

    Mnih et al. 2015, https://doi.org/10.1038/nature14236. A slot is the remainder of 32 random
    bits: its probability is 1 / size up to one part in 2^32 / size.

    Args:
      capacity: number of slots; when all are full, new items overwrite the oldest.
      batch_size: number of items in a sample.

    Returns:
      A `Replay`; `reprioritize` changes nothing.

    Raises:
      ValueError: the batch is larger than the capacity, or either is below 1; in `init`, if the
        items need more memory than the machine has; in `add`, if there are more items than slots.

    Example:
      >>> from rljax.types import sample_one
      >>> buffer = uniform(capacity=100, batch_size=2)
      >>> state = buffer.init(jnp.float32(0))
      >>> state = buffer.add(state, jnp.array([[5.0, 5.0], [5.0, 5.0]]))  # [T, B]
      >>> batch = buffer.sample(state, sample_one(buffer.sample_noise, jax.random.key(0)))
      >>> batch.transitions.tolist(), batch.probability.tolist()
      ([5.0, 5.0], [0.25, 0.25])
    """
    check_sizes(capacity, batch_size)

    def init(item):
        return ring.init(capacity, item)

    def add(state, items, skip=0):
        return ring.add(state, items, skip)[0]

    def sample_noise(key, num_samples):
        return random.bits(key, (num_samples, batch_size))

    def sample(state, noise):
        num_items = size(state)
        slots = jax.lax.rem(noise, num_items.astype(jnp.uint32)).astype(jnp.int32)
        probability = 1.0 / num_items.astype(jnp.float32)
        batch = ring.read(state, slots)
        return Sample(batch, slots, jnp.full((batch_size,), probability), probability)

    def reprioritize(state, slots, td_error):
        del slots, td_error
        return state

    def size(state):
        return state.size.value

    return Replay(init, add, sample, reprioritize, size, sample_noise)


class PrioritizedState(NamedTuple):
    """The state of prioritized replay.

    Attributes:
      ring: the items.
      tree: priorities of the slots, 0 for empty slots.
      max_priority: largest priority since the start, `[]`; new items get it.
    """

    ring: ring.Ring
    tree: sum_tree.SumTree
    max_priority: Array


def prioritized(
    capacity: int, batch_size: int, exponent: Any = 0.6, epsilon: Any = 1e-6
) -> Replay:  # fmt: skip
    """Makes a replay buffer with proportional prioritization.

        P(i) = p_i / sum_j p_j,  p_i = (|TD error| + epsilon)^alpha

    Schaul et al. 2016, https://arxiv.org/abs/1511.05952 (section 3.3, algorithm 1). A batch is
    stratified: `[0, sum_j p_j)` is cut into `batch_size` equal segments, and one item is sampled
    from each. New items get the largest priority of any item since the start, initially 1. Queries
    of the tree are float32: segments are exact to 2^-24 of the sum.

    Args:
      capacity: number of slots; when all are full, new items overwrite the oldest.
      batch_size: number of items in a sample.
      exponent: alpha in [0, 1]; 0 samples uniformly. May be a tracer.
      epsilon: positive, so that items with TD error 0 can be sampled. May be a tracer.

    Returns:
      A `Replay`.

    Raises:
      ValueError: as `uniform`; or `exponent` is not in [0, 1], or `epsilon` is not positive.

    Example:
      >>> from rljax.types import sample_one
      >>> buffer = prioritized(capacity=100, batch_size=4, exponent=1.0)
      >>> state = buffer.add(buffer.init(jnp.float32(0)), jnp.array([[10.0, 20.0]]))
      >>> state = buffer.reprioritize(state, jnp.array([0, 1]), jnp.array([0.5, -1.5]))
      >>> batch = buffer.sample(state, sample_one(buffer.sample_noise, jax.random.key(0)))
      >>> batch.transitions.tolist(), [round(p, 3) for p in batch.probability.tolist()]
      ([10.0, 20.0, 20.0, 20.0], [0.25, 0.75, 0.75, 0.75])
    """
    check_sizes(capacity, batch_size)
    check_range("exponent", exponent, low=0, high=1)
    check_range("epsilon", epsilon, above=0)

    def init(item):
        items = ring.init(capacity, item)
        return PrioritizedState(items, sum_tree.init(capacity), jnp.float32(1))

    def add(state, items, skip=0):
        items, slots = ring.add(state.ring, items, skip)
        priorities = jnp.full(slots.shape, state.max_priority)
        return state._replace(ring=items, tree=sum_tree.set(state.tree, slots, priorities))

    def sample_noise(key, num_samples):
        return random.uniform(key, (num_samples, batch_size))

    def sample(state, noise):
        total = sum_tree.total(state.tree)
        slots, priorities = sum_tree.find(state.tree, stratified(noise, total))
        batch = ring.read(state.ring, slots)
        return Sample(batch, slots, priorities / total, sum_tree.min_priority(state.tree) / total)

    def reprioritize(state, slots, td_error):
        priorities = (jnp.abs(td_error) + epsilon) ** exponent
        tree = sum_tree.set(state.tree, slots, priorities)
        max_priority = jnp.maximum(state.max_priority, priorities.max())
        return state._replace(tree=tree, max_priority=max_priority)

    def size(state):
        return state.ring.size.value

    return Replay(init, add, sample, reprioritize, size, sample_noise)


def stratified(uniform: Array, total: Array) -> Array:
    """Returns one point in each of N equal segments of `[0, total)`.

    Args:
      uniform: numbers in [0, 1), `[N]`.
      total: length of the interval, `[]`.

    Example:
      >>> stratified(jnp.array([0.0, 0.5]), jnp.float32(10)).tolist()
      [0.0, 7.5]
    """
    segments = jnp.arange(uniform.size, dtype=jnp.float32)
    points = (segments + uniform) * (total / uniform.size)
    # The points increase, so `cummax` changes none. Without it, XLA's programs for a CPU draw the
    # random numbers again in each level of a sum tree that reads the points.
    return points if platform.is_gpu() else jax.lax.cummax(points)
