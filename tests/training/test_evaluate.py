"""Evaluation counts the first episodes of each environment, and moves nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import ARM, DriftConfig, bits, coin, drift, probe, restarting

from rljax.agents.normalize import normalized
from rljax.envs import wrappers
from rljax.training.evaluate import evaluate
from rljax.types import Agent, Env, EnvSpec, Step

pytestmark = pytest.mark.usefixtures("quick_compiles")

KEY = jax.random.key(0)
SHORT, LONG = 1, 10


def play(env, num_envs, agent=None, state=(), **options):
    env = wrappers.batched(env, num_envs)
    agent = agent or drift(DriftConfig(), env.spec)
    return jax.jit(lambda state, key: evaluate(agent, env, state, key, **options))(state, KEY)


def test_short_episodes_are_not_counted_more_often():
    """K58: the mean length is 5.5; of the first to finish, most would be the short ones."""
    seen = play(coin(SHORT, LONG), 200, episodes_per_env=3)
    assert seen.returns.shape == (200, 3) and seen.finished.all()
    assert set(np.unique(seen.lengths)) == {SHORT, LONG}
    np.testing.assert_array_equal(seen.returns, seen.lengths)
    assert abs(float(seen.returns.mean()) - 5.5) < 0.75  # 4 standard errors
    for k in range(3):  # the second and the third are like the first
        assert abs(float(seen.returns[:, k].mean()) - 5.5) < 1.3
    ends = np.cumsum(seen.lengths, axis=1).reshape(-1)
    first_to_finish = np.asarray(seen.returns).reshape(-1)[np.argsort(ends)[:200]]
    assert first_to_finish.mean() < 3.0  # what this test would see


def test_what_does_not_finish_is_marked_and_counted_as_far_as_it_went():
    seen = play(coin(SHORT, LONG), 50, episodes_per_env=2, max_steps=LONG)
    lengths, finished = np.asarray(seen.lengths), np.asarray(seen.finished)
    first_is_long = lengths[:, 0] == LONG
    assert 10 < first_is_long.sum() < 40
    assert finished[:, 0].all()
    np.testing.assert_array_equal(finished[first_is_long, 1], False)
    np.testing.assert_array_equal(lengths[first_is_long, 1], 0)
    late = ~first_is_long & ~finished[:, 1]
    assert late.any()
    np.testing.assert_array_equal(lengths[late, 1], LONG - SHORT)
    np.testing.assert_array_equal(seen.returns, seen.lengths)


def test_the_limit_is_long_enough_for_every_episode():
    """By default: so many times the environment's own limit."""
    seen = play(coin(LONG, LONG), 3, episodes_per_env=4)
    assert seen.finished.all()
    np.testing.assert_array_equal(seen.lengths, np.full((3, 4), LONG))


def test_an_environment_without_end_is_left_after_max_steps():
    spec = EnvSpec(obs_shape=(1,), num_actions=2)
    obs, no = jnp.zeros(1), jnp.bool_(False)
    env = Env(
        spec, lambda key: (jnp.int32(0), obs),
        lambda state, action, key: (state, Step(obs, jnp.float32(0.5), no, no, obs)),
    )  # fmt: skip
    seen = play(restarting(env), 2, max_steps=7)
    np.testing.assert_array_equal(seen.lengths, [[7], [7]])
    np.testing.assert_array_equal(seen.returns, [[3.5], [3.5]])
    assert not seen.finished.any()


def test_termination_and_truncation_both_end_an_episode():
    for terminates in (True, False):
        seen = play(probe(ARM, 3, terminates), 2, episodes_per_env=2, max_steps=20)
        np.testing.assert_array_equal(seen.lengths, np.full((2, 2), 3))
        assert seen.finished.all()


def test_greedy_or_exploring():
    """Action 0 of the arms pays -1; both are taken by one who explores."""
    greedy = play(probe(ARM, 1), 64, max_steps=5)
    np.testing.assert_array_equal(greedy.returns, np.full((64, 1), -1.0))
    exploring = play(probe(ARM, 1), 64, greedy=False, max_steps=5)
    assert set(np.unique(exploring.returns)) == {-1.0, 1.0}


def test_many_states_at_once_are_each_as_alone():
    """A policy that takes action 1 from a threshold on: its state is the threshold."""
    env = wrappers.batched(probe(ARM, 1), 16)

    def greedy(state, obs, key):
        return (jax.random.uniform(key, (16,)) > state).astype(jnp.int32)

    agent = Agent(None, None, greedy, None)

    def run(state, key):
        return evaluate(agent, env, state, key, episodes_per_env=3)

    states, keys = jnp.array([0.0, 0.5, 1.0]), jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(run))(states, keys)
    for i in range(3):
        alone = jax.jit(run)(states[i], keys[i])
        assert bits(jax.tree.map(lambda x, i=i: x[i], together)) == bits(alone)
    means = together.returns.mean(axis=(1, 2))
    assert means[0] == 1 and means[2] == -1 and -0.6 < means[1] < 0.6


def test_statistics_of_normalisation_are_used_and_stand_still():
    env = wrappers.batched(coin(3, 3), 2)
    inner = drift(DriftConfig(), env.spec)

    def greedy(state, obs, key):  # it sees 0, then 10: the second is beyond the threshold
        return (obs[:, 0] > 5).astype(jnp.int32)

    agent = normalized(inner._replace(greedy=greedy), env.spec, obs=True, reward=True)
    state = agent.init(KEY)
    moved = state._replace(obs=state.obs._replace(variance=jnp.full(1, 0.01)))

    paid = env._replace(
        step=lambda state, action, key: (
            lambda pair: (pair[0], pair[1]._replace(reward=1.0 * action))
        )(env.step(state, action, key))
    )
    for agent_state, expected in ((state, 0.0), (moved, 2.0)):
        before = bits(agent_state)
        seen = jax.jit(lambda state: evaluate(agent, paid, state, KEY))(agent_state)
        np.testing.assert_array_equal(seen.returns, np.full((2, 1), expected))
        assert bits(agent_state) == before
