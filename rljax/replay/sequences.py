"""Replay of sequences: consecutive steps of one environment, for recurrent and model-based agents.

Kapturowski et al. 2019 (R2D2), https://openreview.net/forum?id=r1lyTjAqYX (section 2.3). Differs
from the paper: any step may start a sequence, so that sequences overlap by all but one step, and a
sequence does not cross the end of an episode unless asked.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.config import check_range
from rljax.ops import random
from rljax.replay import ring, sum_tree
from rljax.replay.buffers import stratified
from rljax.replay.checks import check_sizes
from rljax.types import Array, Replay, Sample


class SequencesState(NamedTuple):
    """The state of `sequences`.

    Attributes:
      ring: the steps; those of one environment are `num_envs` slots apart.
      done: whether the step of a slot ended its episode, `[capacity]` bool.
      tree: priorities of the sequences that start at each slot; 0 where none may start.
      max_priority: largest priority since the start, `[]`; new sequences get it.
    """

    ring: ring.Ring
    done: Array
    tree: sum_tree.SumTree
    max_priority: Array


def sequences(
    capacity: int, batch_size: int, length: int, num_envs: int, *, across_episodes: bool = False,
    exponent: Any = 0.0, epsilon: Any = 1e-6,
) -> Replay:  # fmt: skip
    """Makes a replay buffer of single steps that samples sequences of them.

        P(i) = p_i / sum_j p_j,  p_i = (|TD error| + epsilon)^alpha

    Each step from which `length` consecutive steps of the same environment are in the buffer
    starts one sequence. By default all steps but the last belong to one episode: the episode may
    end with the last one. Sampling is stratified, as in `prioritized`.

    Args:
      capacity: number of slots for steps, rounded down to a multiple of `num_envs`; when all are
        full, new steps overwrite the oldest.
      batch_size: number of sequences in a sample, N.
      length: number of steps of a sequence, L.
      num_envs: number of parallel environments, B; steps are added as `[T, B]`.
      across_episodes: a sequence may continue with the next episode. The flags `terminated` and
        `truncated` of its steps tell where.
      exponent: alpha in [0, 1]; 0 samples all sequences with the same probability.
      epsilon: positive, so that sequences with TD error 0 can be sampled.

    Returns:
      A `Replay` of `Transition`s. `sample` returns transitions `[L, N, ...]`, with the extras that
      the items have, and the slots `[N]` of the first steps. `reprioritize` takes one TD error for
      each sequence, for example of `sequence_priority`. `size` is the number of steps.

    Raises:
      ValueError: a size is below 1, or the buffer has fewer slots than one sequence for each
        environment; in `add`, if a rollout and a sequence do not fit into it, or steps are skipped.

    Example:
      >>> from rljax.types import Transition, sample_one
      >>> buffer = sequences(capacity=20, batch_size=3, length=2, num_envs=2)
      >>> time = jnp.arange(4.0)[:, None] + jnp.array([[0.0, 10.0]])  # [T, B]
      >>> no, ends = jnp.zeros((4, 2), bool), (time == 1) | (time == 12)
      >>> steps = Transition(time, time, time, ends, no, time + 1)
      >>> state = buffer.add(buffer.init(jax.tree.map(lambda x: x[0, 0], steps)), steps)
      >>> batch = buffer.sample(state, sample_one(buffer.sample_noise, jax.random.key(0)))
      >>> batch.transitions.obs.T.tolist()  # 1, 2 and 12, 13 would cross the end of an episode
      [[10.0, 11.0], [11.0, 12.0], [2.0, 3.0]]
    """
    for name, value in (("length", length), ("num_envs", num_envs)):
        check_range(name, value, low=1)
    check_range("exponent", exponent, low=0, high=1)
    check_range("epsilon", epsilon, above=0)
    check_sizes(capacity, batch_size)
    capacity -= capacity % num_envs
    if capacity < length * num_envs:
        raise ValueError(
            f"`capacity` is {capacity}, but sequences of {length} steps of {num_envs} environments "
            f"need at least {length * num_envs} slots: make it larger."
        )
    offsets = num_envs * jnp.arange(length, dtype=jnp.int32)

    def init(item):
        flags = jnp.zeros(capacity, bool)
        tree = sum_tree.init(capacity)
        return SequencesState(ring.init(capacity, item), flags, tree, jnp.float32(1))

    def add(state, items, skip=0):
        if not (isinstance(skip, int) and skip == 0):
            raise ValueError(
                "replay of sequences cannot skip items, so it cannot be wrapped in n-step replay: "
                "compute n-step returns from the steps of a sequence."
            )
        num_items = items.reward.size
        if num_items + (length - 1) * num_envs > capacity:
            raise ValueError(
                f"{num_items // num_envs} steps are added at once to sequences of {length} steps, "
                f"but there are only {capacity // num_envs} slots for each environment: make the "
                "capacity larger, or the rollouts shorter."
            )
        num_before = state.ring.size.value
        steps, slots = ring.add(state.ring, items)
        done = state.done.at[slots].set((items.terminated | items.truncated).reshape(-1))
        # a new step completes the sequence that started length - 1 steps before it
        starts = (slots - offsets[-1]) % capacity
        is_stored = num_before + jnp.arange(num_items) >= offsets[-1]
        inner = done[(starts[:, None] + offsets[None, :-1]) % capacity]
        is_whole = jnp.bool_(True) if across_episodes else ~inner.any(axis=-1)
        complete = jnp.where(is_stored & is_whole, state.max_priority, 0.0)
        # the sequences that started at overwritten steps are gone, those of new steps incomplete
        tree = sum_tree.set(state.tree, slots, jnp.zeros(num_items))
        tree = sum_tree.set(tree, jnp.where(is_stored, starts, ring.NOWHERE), complete)
        return state._replace(ring=steps, done=done, tree=tree)

    def sample_noise(key, num_samples):
        return random.uniform(key, (num_samples, batch_size))

    def sample(state, noise):
        total = sum_tree.total(state.tree)
        starts, priorities = sum_tree.find(state.tree, stratified(noise, total))
        slots = (starts[None] + offsets[:, None]) % capacity  # [L, N]
        steps = ring.read(state.ring, slots.reshape(-1))
        steps = jax.tree.map(lambda x: x.reshape(*slots.shape, *x.shape[1:]), steps)
        lowest = sum_tree.min_priority(state.tree)
        return Sample(steps, starts, priorities / total, lowest / total)

    def reprioritize(state, starts, td_error):
        priorities = (jnp.abs(td_error) + epsilon) ** exponent
        is_complete = sum_tree.get(state.tree, starts) > 0  # a sequence may have been overwritten
        tree = sum_tree.set(state.tree, starts, jnp.where(is_complete, priorities, 0.0))
        max_priority = jnp.maximum(state.max_priority, priorities.max())
        return state._replace(tree=tree, max_priority=max_priority)

    def size(state):
        return state.ring.size.value

    return Replay(init, add, sample, reprioritize, size, sample_noise)


def sequence_priority(td_error: Array, eta: float = 0.9) -> Array:
    """Returns one TD error for each sequence, `[L, N] -> [N]`, for `reprioritize`.

        eta max_t |d_t| + (1 - eta) mean_t |d_t|

    Kapturowski et al. 2019 (section 2.3), who use 0.9.

    Example:
      >>> sequence_priority(jnp.array([[1.0], [-3.0]]), eta=0.5).tolist()
      [2.5]
    """
    size = jnp.abs(td_error)
    return eta * size.max(axis=0) + (1.0 - eta) * size.mean(axis=0)
