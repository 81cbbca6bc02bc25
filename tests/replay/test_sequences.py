"""Replay of sequences against a plain Python list of the steps of each environment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import replay
from rljax.types import Transition, sample_one

CAPACITY, LENGTH, NUM_ENVS, BATCH = 24, 4, 2, 64


class Reference:
    """The steps of each environment in lists; a step is its number and whether it ended."""

    def __init__(self, across_episodes):
        self.across_episodes, self.steps = across_episodes, [[] for _ in range(NUM_ENVS)]

    def add(self, number, done):
        for env in range(NUM_ENVS):
            self.steps[env] += list(
                zip(number[:, env].tolist(), done[:, env].tolist(), strict=True)
            )
            self.steps[env] = self.steps[env][-(CAPACITY // NUM_ENVS) :]

    def sequences(self):
        """All sequences of step numbers that may be sampled."""
        found = []
        for steps in self.steps:
            for i in range(len(steps) - LENGTH + 1):
                part = steps[i : i + LENGTH]
                if self.across_episodes or not any(done for _, done in part[:-1]):
                    found.append(tuple(number for number, _ in part))
        return sorted(found)


def rollout(start, num_steps, rng, end_fraction=0.2):
    """Steps `[T, B]` numbered from `start`; environment b counts from 1000 b."""
    number = np.arange(start, start + num_steps)[:, None] + 1000 * np.arange(NUM_ENVS)[None]
    kind = rng.random(number.shape)
    terminated, truncated = kind < end_fraction / 2, kind > 1 - end_fraction / 2
    number = jnp.asarray(number, jnp.float32)
    extras = {"log_prob": -number}
    return Transition(
        number, number.astype(jnp.int32), number, jnp.asarray(terminated), jnp.asarray(truncated),
        number + 0.5, extras,
    )  # fmt: skip


def filled(buffer, across_episodes=False, lengths=(3, 1, 5, 2, 4, 1, 1, 6, 3), seed=0):
    """Yields the state and the reference after each rollout."""
    rng, start, reference = np.random.default_rng(seed), 0, Reference(across_episodes)
    state = None
    add = jax.jit(buffer.add)
    for num_steps in lengths:
        steps = rollout(start, num_steps, rng)
        if state is None:
            state = buffer.init(jax.tree.map(lambda x: x[0, 0], steps))
        state = add(state, steps)
        reference.add(np.asarray(steps.obs), np.asarray(steps.terminated | steps.truncated))
        start += num_steps
        yield state, reference


def sampler(buffer):
    """Returns `(state, seed) -> Sample`, compiled."""

    @jax.jit
    def sample(state, key):
        return buffer.sample(state, sample_one(buffer.sample_noise, key))

    return lambda state, seed: jax.device_get(sample(state, jax.random.key(seed)))


@pytest.mark.parametrize("across_episodes", [False, True])
def test_exactly_the_sequences_of_one_environment_are_sampled(across_episodes):
    buffer = replay.sequences(CAPACITY, CAPACITY, LENGTH, NUM_ENVS, across_episodes=across_episodes)
    sample = sampler(buffer)
    count = 0
    for state, reference in filled(buffer, across_episodes):
        expected = reference.sequences()
        assert int(buffer.size(state)) == sum(map(len, reference.steps))
        if not expected:
            continue
        count += 1
        found = set()
        for seed in range(20):
            batch = sample(state, seed)
            steps = batch.transitions
            assert steps.obs.shape == (LENGTH, CAPACITY)
            np.testing.assert_array_equal(steps.next_obs, steps.obs + 0.5)
            np.testing.assert_array_equal(steps.extras["log_prob"], -steps.obs)
            np.testing.assert_allclose(batch.probability, 1 / len(expected), rtol=1e-5)
            found |= {tuple(sequence) for sequence in np.asarray(steps.obs).T.tolist()}
        assert sorted(found) == expected
    assert count >= 7


def test_sequences_are_sampled_by_priority():
    buffer = replay.sequences(CAPACITY, 16, LENGTH, NUM_ENVS, exponent=0.5, across_episodes=True)
    (state, reference), sample = list(filled(buffer, True))[-1], sampler(buffer)
    starts = all_starts(sample, state)
    assert len(starts) == len(reference.sequences())
    td_error = jnp.arange(1.0, len(starts) + 1)
    state = buffer.reprioritize(state, jnp.array(starts, jnp.int32), td_error)
    priority = np.sqrt(np.arange(1.0, len(starts) + 1))
    expected = dict(zip(starts, priority / priority.sum(), strict=True))
    counts = dict.fromkeys(starts, 0)
    for seed in range(100):
        batch = sample(state, seed)
        for index, probability in zip(batch.indices.tolist(), batch.probability, strict=True):
            counts[index] += 1
            np.testing.assert_allclose(probability, expected[index], rtol=1e-4)
        np.testing.assert_allclose(batch.min_probability, min(expected.values()), rtol=1e-4)
    frequency = np.array(list(counts.values())) / 1600
    np.testing.assert_allclose(frequency, list(expected.values()), atol=0.02)


def test_a_sequence_that_was_overwritten_gets_no_priority():
    buffer = replay.sequences(CAPACITY, 8, LENGTH, NUM_ENVS)
    (*_, (state, _)), sample = filled(buffer), sampler(buffer)
    empty = sorted(set(range(CAPACITY)) - set(all_starts(sample, state)))
    changed = buffer.reprioritize(state, jnp.array(empty, jnp.int32), jnp.ones(len(empty)) * 9)
    assert all_starts(sample, changed) == all_starts(sample, state)


def all_starts(sample, state):
    return sorted({int(i) for seed in range(30) for i in sample(state, seed).indices})


def test_priorities_of_sequences_mix_maximum_and_mean():
    td_error = np.array([[1.0, -2.0], [-3.0, 0.0], [2.0, 1.0]])
    expected = 0.9 * np.abs(td_error).max(axis=0) + 0.1 * np.abs(td_error).mean(axis=0)
    np.testing.assert_allclose(replay.sequence_priority(jnp.asarray(td_error)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (7, 1, 4, 2),
            "`capacity` is 6, but sequences of 4 steps of 2 environments need at least 8",
        ),
        ((8, 1, 0, 2), "`length` is 0"),
        ((8, 9, 1, 2), "`batch_size` is 9, but the replay buffer has only 8 slots"),
    ],
)
def test_wrong_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        replay.sequences(*arguments)


def test_long_rollouts_and_n_step_replay_are_refused():
    buffer = replay.sequences(CAPACITY, 1, LENGTH, NUM_ENVS)
    steps = rollout(0, 10, np.random.default_rng(0))
    state = buffer.init(jax.tree.map(lambda x: x[0, 0], steps))
    with pytest.raises(ValueError, match="10 steps are added at once to sequences of 4 steps, but"):
        buffer.add(state, steps)
    wrapped = replay.n_step(buffer, n=3, gamma=0.9, num_envs=NUM_ENVS)
    with pytest.raises(ValueError, match="compute n-step returns from the steps of a sequence"):
        wrapped.add(wrapped.init(jax.tree.map(lambda x: x[0, 0], steps)), steps)
