"""Batches from two replay buffers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.ops import td
from rljax.replay import mixed, prioritized, sum_tree, uniform
from rljax.types import sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")


def filled(buffer, second):
    """Returns a state with the items 1, 2, 3 in the first and 10, 20 in the second buffer."""
    state = buffer.add(buffer.init(jnp.float32(0)), jnp.array([[1.0], [2.0], [3.0]]))
    return state._replace(second=second.add(state.second, jnp.array([[10.0], [20.0]])))


def sampled(buffer, state, seed=0):
    return buffer.sample(state, sample_one(buffer.sample_noise, jax.random.key(seed)))


def test_a_batch_holds_a_part_of_each_buffer():
    first, second = uniform(8, batch_size=2), uniform(6, batch_size=6)
    buffer = mixed(first, second)
    state = filled(buffer, second)
    batches = np.array([sampled(buffer, state, seed).transitions for seed in range(20)])
    assert batches.shape == (20, 8)
    assert set(batches[:, :2].ravel()) == {1.0, 2.0, 3.0}
    assert set(batches[:, 2:].ravel()) == {10.0, 20.0}
    assert int(buffer.size(state)) == 3  # what the agent added


def test_uniform_buffers_of_different_sizes_need_no_importance_sampling():
    second = uniform(4, batch_size=2)
    buffer = mixed(uniform(8, batch_size=2), second)
    sample = sampled(buffer, filled(buffer, second))
    weight = td.importance_weights(sample.probability, sample.min_probability, 1.0)
    np.testing.assert_array_equal(weight, np.ones(4))


def test_priorities_go_to_the_buffer_of_each_item():
    first, second = prioritized(8, 2, exponent=1.0), prioritized(4, 3, exponent=1.0)
    buffer = mixed(first, second)
    state = filled(buffer, second)
    indices = jnp.array([0, 2, 1, 0, 1])  # slots 0 and 2 of the first, then of the second
    state = buffer.reprioritize(state, indices, jnp.array([5.0, 7.0, 1.0, 3.0, 1.0]))
    priorities = sum_tree.get(state.first.tree, jnp.arange(3))
    np.testing.assert_allclose(priorities, [5.0, 1.0, 7.0], rtol=1e-5)
    priorities = sum_tree.get(state.second.tree, jnp.arange(2))
    np.testing.assert_allclose(priorities, [3.0, 1.0], rtol=1e-5)
    for part, priority in ((slice(2), {1: 5, 2: 1, 3: 7}), (slice(2, None), {10: 3, 20: 1})):
        sample = sampled(buffer, state)
        ratio = sample.probability / sample.min_probability
        expected = [priority[int(x)] / min(priority.values()) for x in sample.transitions[part]]
        np.testing.assert_allclose(ratio[part], expected, rtol=1e-4)
