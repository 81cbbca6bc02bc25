"""Proportional prioritized replay against worked examples, cpprb and long runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay_helpers import filled, item, items, sample_many, sampler

from rljax import replay


def with_errors(errors, **options):
    """A prioritized buffer with one item of each TD error."""
    buffer = replay.prioritized(len(errors), min(4, len(errors)), **options)
    state = buffer.init(item(0))
    state = buffer.add(state, items(0, len(errors), 1))
    return buffer, buffer.reprioritize(state, jnp.arange(len(errors)), jnp.asarray(errors))


def leaves_of(state):
    return np.asarray(state.tree.leaves).ravel()


def test_priorities_of_a_worked_example():
    """`(|error| + 0.01) ** 0.6`; a negative error counts as a positive one."""
    buffer, state = with_errors([0.5, -2.0, 0.0, 1.5], exponent=0.6, epsilon=0.01)
    expected = [0.667640, 1.520259, 0.063096, 1.280519]
    np.testing.assert_allclose(leaves_of(state)[:4], expected, rtol=1e-5)
    sample = sample_many(buffer, state, 200)
    expected = np.array([0.189052, 0.430484, 0.017866, 0.362598])
    np.testing.assert_allclose(sample.probability, expected[sample.indices], rtol=1e-4)
    np.testing.assert_allclose(sample.min_probability, 0.017866, rtol=1e-4)
    counts = np.bincount(sample.indices.ravel(), minlength=4)
    assert (np.abs(counts / counts.sum() - expected) < 0.03).all()


def test_importance_weights_of_a_worked_example():
    """Priorities 3 10 12 4 1 2 8 2; the largest weight is that of the whole buffer."""
    leaves = np.array([3, 10, 12, 4, 1, 2, 8, 2], np.float32)
    buffer, state = with_errors(leaves, exponent=1.0, epsilon=1e-9)
    sample = sample_many(buffer, state, 100)
    for beta, expected in (
        (0.4, [0.6444, 0.3981, 0.3701, 0.5743, 1, 0.7579, 0.4353, 0.7579]),
        (1.0, [1 / 3, 0.1, 1 / 12, 0.25, 1, 0.5, 0.125, 0.5]),
    ):
        weights = (sample.probability / sample.min_probability[:, None]) ** -beta
        np.testing.assert_allclose(weights, np.array(expected)[sample.indices], atol=5e-5)
    # unbiased at beta 1: the sum of P_i f_i / (N P_i) is the mean of f
    probability = leaves_of(state)[:8] / leaves.sum()
    assert (probability / (8 * probability) * np.arange(8)).sum() == pytest.approx(3.5)


def test_empty_slots_do_not_change_the_weights():
    """In a half-full buffer, empty slots count neither in N nor in the smallest probability."""
    errors = np.array([3.0, 10, 12, 4], np.float32)
    small, full = with_errors(errors, exponent=1.0, epsilon=1e-9)
    large = replay.prioritized(8, 4, 1.0, 1e-9)
    half_full = large.add(large.init(item(0)), items(0, 4, 1))
    half_full = large.reprioritize(half_full, jnp.arange(4), jnp.asarray(errors))
    expected = sampler(small)(full, jax.random.key(3))
    sample = sampler(large)(half_full, jax.random.key(3))
    for x, y in zip(sample, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, x, y)
    np.testing.assert_allclose(expected.min_probability, 3 / 29, rtol=1e-6)


def test_new_items_get_the_largest_priority_since_the_start():
    """Also after the item with that priority has lost it."""
    buffer = replay.prioritized(8, 2, exponent=1.0, epsilon=1e-9)
    state = filled(buffer, 2)
    np.testing.assert_array_equal(leaves_of(state)[:3], [1, 1, 0])
    state = buffer.reprioritize(state, jnp.array([0]), jnp.array([5.0]))
    state = buffer.reprioritize(state, jnp.array([0]), jnp.array([0.1]))
    state = buffer.add(state, items(2, 1, 1))
    np.testing.assert_allclose(leaves_of(state)[:4], [0.1, 1, 5, 0], rtol=1e-6)


def test_weights_equal_those_of_cpprb():
    cpprb = pytest.importorskip("cpprb", reason="cpprb, an optional oracle, is not installed")
    errors = np.random.default_rng(0).exponential(size=10)
    other = cpprb.PrioritizedReplayBuffer(16, {"number": {}}, alpha=0.6, eps=1e-4)
    for number, error in enumerate(errors):
        other.add(number=number, priorities=error)
    buffer, state = with_errors(errors, exponent=0.6, epsilon=1e-4)
    sample = sample_many(buffer, state, 200)
    weights = (sample.probability / sample.min_probability[:, None]) ** -0.4
    ours = dict(zip(sample.indices.ravel().tolist(), weights.ravel().tolist(), strict=True))
    theirs = other.sample(500, beta=0.4)
    assert set(theirs["indexes"].tolist()) == set(range(10))
    np.testing.assert_allclose(
        theirs["weights"], [ours[index] for index in theirs["indexes"].tolist()], rtol=1e-5
    )


@pytest.mark.parametrize("exponent", [0.0, 0.6])
def test_exponent_0_is_uniform(exponent):
    """Equal probabilities and weights of 1 for any beta; with exponent 0.6 they differ."""
    buffer, state = with_errors(np.arange(1.0, 11.0), exponent=exponent)
    sample = sample_many(buffer, state, 50)
    weights = (sample.probability / sample.min_probability[:, None]) ** -0.7
    assert bool((weights == 1).all()) == (exponent == 0)


def test_batches_are_stratified():
    """With 64 equal priorities in 16 segments, each segment has four items."""
    buffer = replay.prioritized(64, 16, exponent=1.0)
    state = filled(buffer, 64)
    segments = sample_many(buffer, state, 50).indices // 4
    np.testing.assert_array_equal(segments, np.broadcast_to(np.arange(16), (50, 16)))


def test_only_stored_items_are_sampled():
    """10^7 samples while the ring fills and wraps around, with priorities of all sizes."""
    capacity, batch, width = 50, 1000, 7
    buffer = replay.prioritized(capacity, batch // 20, exponent=1.0)

    def step(carry, key):
        state, number = carry
        state = buffer.add(state, items(number, 1, width))
        keys = jax.random.split(key, 20)
        sample = jax.vmap(sampler(buffer), (None, 0))(state, keys)
        sampled = sample.transitions.reward
        oldest = jnp.maximum(0, number + width - capacity)
        wrong = (sampled < oldest) | (sampled >= number + width) | (sample.probability <= 0)
        error = jnp.exp(4 * jax.random.normal(key, (batch,)))
        state = buffer.reprioritize(state, sample.indices.ravel(), error)
        return (state, number + width), wrong.sum()

    @jax.jit
    def run(state, key):
        return jax.lax.scan(step, (state, jnp.int32(1)), jax.random.split(key, 10_000))[1]

    assert run(buffer.init(item(0)), jax.random.key(0)).sum() == 0


def test_a_weighted_mean_of_rewards_is_unbiased_at_beta_1():
    """A reward of 10 with probability 0.1: weighted by 1 / (N P), Q is 1.00 +- 0.03.

    Q starts at 5, because items with errors of exactly 0 would be sampled by epsilon alone.
    """
    buffer = replay.prioritized(2000, 32, exponent=0.6)
    rewards = 10.0 * (np.arange(2000) % 10 == 0)
    transitions = item(jnp.arange(2000)[:, None])._replace(reward=jnp.asarray(rewards)[:, None])

    def step(carry, key):
        state, value, weight = carry
        sample = sampler(buffer)(state, key)
        weights = 1 / (buffer.size(state) * sample.probability)
        error = sample.transitions.reward - value / weight
        state = buffer.reprioritize(state, sample.indices, error)
        value = value + (weights * sample.transitions.reward).sum()
        return (state, value, weight + weights.sum()), sample.transitions.reward.mean()

    state = buffer.add(buffer.init(item(0)), transitions)
    start, keys = (state, 5.0, 1.0), jax.random.split(jax.random.key(0), 10_000)
    (_, value, weight), means = jax.jit(lambda: jax.lax.scan(step, start, keys))()
    assert abs(value / weight - 1) < 0.03
    assert means[-5000:].mean() > 2  # an unweighted mean would be twice as large
