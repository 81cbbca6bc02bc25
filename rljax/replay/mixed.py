"""Batches from two replay buffers, such as real and imagined transitions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.ops import random
from rljax.types import PyTree, Replay, Sample, sample_one


class MixedState(NamedTuple):
    """The states of the two buffers of `mixed`."""

    first: PyTree
    second: PyTree


def mixed(first: Replay, second: Replay) -> Replay:
    """Makes a replay that joins a sample of each of two buffers.

    Janner et al. 2019 (MBPO), https://arxiv.org/abs/1906.08253 (appendix C) learn from 5 % real
    and 95 % imagined transitions. The batch sizes of the two buffers set the proportion.

    Args:
      first: buffer of the transitions that the agent adds; `size` is its size.
      second: buffer that is filled by other means, through the state's field `second`. It must
        hold an item before the first sample.

    Returns:
      A `Replay` with state `MixedState`. The items of `first` come first in a sample, with their
      indices, and `reprioritize` takes the TD errors in the same order.

    Example:
      >>> from rljax.replay import uniform
      >>> from rljax.types import sample_one
      >>> buffer = mixed(uniform(10, batch_size=1), uniform(10, batch_size=3))
      >>> state = buffer.add(buffer.init(jnp.float32(0)), jnp.array([[1.0]]))
      >>> imagined = uniform(10, batch_size=3).add(state.second, jnp.array([[2.0]]))
      >>> state = state._replace(second=imagined)
      >>> noise = sample_one(buffer.sample_noise, jax.random.key(0))
      >>> buffer.sample(state, noise).transitions.tolist()
      [1.0, 2.0, 2.0, 2.0]
    """
    buffers = first, second

    def init(item):
        return MixedState(first.init(item), second.init(item))

    def add(state, items, skip=0):
        return state._replace(first=first.add(state.first, items, skip))

    def sample_noise(key, num_samples):
        keys = random.split(key)
        return tuple(b.sample_noise(keys[i], num_samples) for i, b in enumerate(buffers))

    def sample(state, noise):
        a, b = (x.sample(s, n) for x, s, n in zip(buffers, state, noise, strict=True))
        # relative to the least probable item of its own buffer, so that importance-sampling
        # weights correct for priorities and not for the proportion of the buffers
        a, b = (x._replace(probability=x.probability / x.min_probability) for x in (a, b))
        items, indices, probability = jax.tree.map(
            lambda x, y: jnp.concatenate([x, y]), tuple(a[:3]), tuple(b[:3])
        )
        return Sample(items, indices, probability, jnp.float32(1))

    def reprioritize(state, indices, td_error):
        noise = jax.eval_shape(lambda: sample_one(first.sample_noise, jax.random.key(0)))
        num_first = jax.eval_shape(first.sample, state.first, noise).indices.shape[0]
        parts = slice(num_first), slice(num_first, None)
        return MixedState(*(
            buffer.reprioritize(inner, indices[part], td_error[part])
            for buffer, inner, part in zip(buffers, state, parts, strict=True)
        ))  # fmt: skip

    def size(state):
        return first.size(state.first)

    return Replay(init, add, sample, reprioritize, size, sample_noise)
