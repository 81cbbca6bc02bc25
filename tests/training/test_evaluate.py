"""Evaluation counts the first episodes of each environment and changes no state."""

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


def run_evaluation(env, num_envs, agent=None, state=(), **options):
    env = wrappers.batched(env, num_envs)
    agent = agent or drift(DriftConfig(), env.spec)
    return jax.jit(lambda state, key: evaluate(agent, env, state, key, **options))(state, KEY)


def test_short_episodes_are_not_counted_more_often():
    """The mean length is 5.5; among the first episodes to finish, most would be short."""
    episodes = run_evaluation(coin(SHORT, LONG), 200, episodes_per_env=3)
    assert episodes.returns.shape == (200, 3) and episodes.finished.all()
    assert set(np.unique(episodes.lengths)) == {SHORT, LONG}
    np.testing.assert_array_equal(episodes.returns, episodes.lengths)
    assert abs(float(episodes.returns.mean()) - 5.5) < 0.75  # 4 standard errors
    for k in range(3):  # also of the first, second and third episodes alone
        assert abs(float(episodes.returns[:, k].mean()) - 5.5) < 1.3
    ends = np.cumsum(episodes.lengths, axis=1).reshape(-1)
    first_to_finish = np.asarray(episodes.returns).reshape(-1)[np.argsort(ends)[:200]]
    assert first_to_finish.mean() < 3.0  # the biased estimate


def test_unfinished_episodes_are_marked_and_have_the_return_so_far():
    episodes = run_evaluation(coin(SHORT, LONG), 50, episodes_per_env=2, max_steps=LONG)
    lengths, finished = np.asarray(episodes.lengths), np.asarray(episodes.finished)
    first_is_long = lengths[:, 0] == LONG
    assert 10 < first_is_long.sum() < 40
    assert finished[:, 0].all()
    np.testing.assert_array_equal(finished[first_is_long, 1], False)
    np.testing.assert_array_equal(lengths[first_is_long, 1], 0)
    late = ~first_is_long & ~finished[:, 1]
    assert late.any()
    np.testing.assert_array_equal(lengths[late, 1], LONG - SHORT)
    np.testing.assert_array_equal(episodes.returns, episodes.lengths)


def test_the_default_limit_is_long_enough_for_every_episode():
    """It is the number of episodes times the time limit of the environment."""
    episodes = run_evaluation(coin(LONG, LONG), 3, episodes_per_env=4)
    assert episodes.finished.all()
    np.testing.assert_array_equal(episodes.lengths, np.full((3, 4), LONG))


def test_an_endless_episode_is_stopped_after_max_steps():
    spec = EnvSpec(obs_shape=(1,), num_actions=2)
    obs, no = jnp.zeros(1), jnp.bool_(False)
    env = Env(
        spec, lambda key: (jnp.int32(0), obs),
        lambda state, action, key: (state, Step(obs, jnp.float32(0.5), no, no, obs)),
    )  # fmt: skip
    episodes = run_evaluation(restarting(env), 2, max_steps=7)
    np.testing.assert_array_equal(episodes.lengths, [[7], [7]])
    np.testing.assert_array_equal(episodes.returns, [[3.5], [3.5]])
    assert not episodes.finished.any()


def test_termination_and_truncation_both_end_an_episode():
    for terminates in (True, False):
        episodes = run_evaluation(probe(ARM, 3, terminates), 2, episodes_per_env=2, max_steps=20)
        np.testing.assert_array_equal(episodes.lengths, np.full((2, 2), 3))
        assert episodes.finished.all()


def test_greedy_and_exploring_actions():
    """The greedy action 0 has reward -1; exploring takes both actions."""
    greedy = run_evaluation(probe(ARM, 1), 64, max_steps=5)
    np.testing.assert_array_equal(greedy.returns, np.full((64, 1), -1.0))
    exploring = run_evaluation(probe(ARM, 1), 64, greedy=False, max_steps=5)
    assert set(np.unique(exploring.returns)) == {-1.0, 1.0}


def test_a_vmap_over_states_equals_single_evaluations():
    """The agent's state is the threshold above which it takes action 1."""
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


def test_observation_statistics_are_used_and_do_not_change():
    env = wrappers.batched(coin(3, 3), 2)
    inner = drift(DriftConfig(), env.spec)

    def greedy(state, obs, key):  # with variance 0.01, the observation 1 becomes 10
        return (obs[:, 0] > 5).astype(jnp.int32)

    agent = normalized(inner._replace(greedy=greedy), env.spec, obs=True, reward=True)
    state = agent.init(KEY)
    other = state._replace(obs=state.obs._replace(variance=jnp.full(1, 0.01)))

    rewarding = env._replace(
        step=lambda state, action, key: (
            lambda pair: (pair[0], pair[1]._replace(reward=1.0 * action))
        )(env.step(state, action, key))
    )
    for agent_state, expected in ((state, 0.0), (other, 2.0)):
        before = bits(agent_state)
        episodes = jax.jit(lambda state: evaluate(agent, rewarding, state, KEY))(agent_state)
        np.testing.assert_array_equal(episodes.returns, np.full((2, 1), expected))
        assert bits(agent_state) == before
