"""Normalization, with an agent that records its inputs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import bits
from recorder import KEY, RECORDER, SIZE, SPEC, B, T, make_trajectory

from rljax.agents.normalize import CLIP, init_obs_moments, normalized, standardize_obs
from rljax.agents.policy_gradient import normalized_advantage
from rljax.ops import moments
from rljax.ops.returns import discounted_sums
from rljax.types import EnvSpec, RecurrentObs

GAMMA = 0.9


def standardized(x, samples):
    """Standardized by the moments of `samples`, in float64 by numpy."""
    x, samples = np.asarray(x), np.concatenate(samples).reshape(-1, SIZE).astype(np.float64)
    return ((x - samples.mean(0)) / np.sqrt(samples.var(0) + 1e-8)).clip(-CLIP, CLIP)


def make(**options):
    agent = normalized(RECORDER, SPEC, gamma=GAMMA, **options)
    return agent, agent.init(KEY), jax.jit(agent.update)


def test_with_both_options_off_the_agent_is_returned():
    assert normalized(RECORDER, SPEC, obs=False, reward=False) is RECORDER


def test_noise_is_passed_on_unchanged():
    agent, state, _ = make()
    assert agent.sample_noise is RECORDER.sample_noise
    obs = jnp.ones((B, SIZE))
    assert agent.act(state, obs, "noise")[1]["noise"] == "noise"


def test_before_the_first_update_observations_are_unchanged():
    agent, state, _ = make()
    obs = jnp.linspace(-3.0, 3.0, B * SIZE).reshape(B, SIZE)
    np.testing.assert_allclose(agent.act(state, obs, KEY)[0], obs, rtol=1e-6)


def test_observations_are_standardized_by_all_previous_trajectories():
    agent, state, update = make()
    trajectories = [make_trajectory(seed, offset=5.0 + seed) for seed in range(4)]
    probe_obs = np.random.default_rng(9).normal(6.0, 2.0, (B, SIZE)).astype(np.float32)
    for i, trajectory in enumerate(trajectories):
        if i:
            before = [t.obs for t in trajectories[:i]]
            expected = standardized(probe_obs, before)
            action, extras = agent.act(state, jnp.asarray(probe_obs), KEY)
            np.testing.assert_allclose(action, expected, atol=1e-4)
            np.testing.assert_allclose(extras["obs"], expected, atol=1e-4)
            np.testing.assert_allclose(agent.greedy(state, probe_obs, KEY), expected, atol=1e-4)
        state, metrics = update(state, trajectory, KEY)
        inputs = state.agent
        if i:
            # an update has the statistics of its rollout, also at time limits: they change after it
            np.testing.assert_allclose(inputs.obs, standardized(trajectory.obs, before), atol=1e-4)
            next_obs = standardized(trajectory.next_obs, before)
            np.testing.assert_allclose(inputs.next_obs, next_obs, atol=1e-4)
            assert trajectory.truncated.any()
        np.testing.assert_allclose(metrics["losses/reward"], inputs.reward.mean(), rtol=1e-5)
    everything = np.concatenate([t.obs for t in trajectories]).reshape(-1, SIZE)
    np.testing.assert_allclose(state.obs.mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state.obs.variance, everything.var(0), rtol=1e-4)


def test_the_rest_of_a_trajectory_is_unchanged():
    _, state, update = make()
    trajectory = make_trajectory(0)._replace(extras={"value": jnp.ones((T, B))})
    state, _ = update(state, trajectory, KEY)
    for name in ("action", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(state.agent, name), getattr(trajectory, name))
    np.testing.assert_array_equal(state.agent.extras["value"], trajectory.extras["value"])


def test_observations_are_clipped():
    agent, state, update = make()
    state, _ = update(state, make_trajectory(0), KEY)
    for sign in (-1.0, 1.0):
        outlier = jnp.full((B, SIZE), sign * 1e6)
        np.testing.assert_array_equal(
            agent.greedy(state, outlier, KEY), np.full((B, SIZE), sign * CLIP)
        )


def test_acting_does_not_change_the_statistics():
    agent, state, update = make()
    state, _ = update(state, make_trajectory(0), KEY)
    before = jax.tree.map(np.array, state)
    first = agent.greedy(state, jnp.ones((B, SIZE)), KEY)
    for x in (1e3, -1e3):
        agent.greedy(state, jnp.full((B, SIZE), x), KEY)
        agent.act(state, jnp.full((B, SIZE), x), KEY)
    np.testing.assert_array_equal(agent.greedy(state, jnp.ones((B, SIZE)), KEY), first)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, state), before)


def scaled_rewards(trajectories):
    """Rewards over the standard deviation of all discounted sums so far, in float64."""
    total, sums, out = np.zeros(B), [], []
    for trajectory in trajectories:
        reward = np.asarray(trajectory.reward, np.float64)
        done = np.asarray(trajectory.terminated | trajectory.truncated)
        for t in range(T):
            total = reward[t] + GAMMA * total
            sums.append(total)
            total = np.where(done[t], 0.0, total)
        out.append((reward / np.sqrt(np.var(sums) + 1e-8)).clip(-CLIP, CLIP))
    return out, total


def test_rewards_are_divided_by_the_std_of_their_discounted_sum():
    _, state, update = make()
    trajectories = [make_trajectory(seed) for seed in range(4)]
    expected, running = scaled_rewards(trajectories)
    for trajectory, rewards in zip(trajectories, expected, strict=True):
        state, _ = update(state, trajectory, KEY)
        np.testing.assert_allclose(state.agent.reward, rewards, rtol=1e-4)
    np.testing.assert_allclose(state.running_return, running, rtol=1e-4)


def test_rewards_are_clipped_and_zero_rewards_stay_zero():
    _, state, update = make()
    outlier = make_trajectory(0)
    outlier = outlier._replace(reward=jnp.zeros((T, B)).at[0, 0].set(1e-3))
    state, _ = update(state, outlier._replace(reward=jnp.zeros((T, B))), KEY)
    np.testing.assert_array_equal(state.agent.reward, np.zeros((T, B)))
    state, _ = update(state, outlier, KEY)
    assert np.isfinite(state.agent.reward).all()
    np.testing.assert_array_equal(state.agent.reward[1:], np.zeros((T - 1, B)))
    assert 0 < state.agent.reward[0, 0] <= CLIP


def test_observations_and_rewards_are_normalized_independently():
    trajectory = make_trajectory(0)
    _, state, update = make(reward=False)
    state, _ = update(state, trajectory, KEY)
    state, _ = update(state, trajectory, KEY)
    np.testing.assert_array_equal(state.agent.reward, trajectory.reward)
    np.testing.assert_allclose(
        state.agent.obs, standardized(trajectory.obs, [trajectory.obs]), atol=1e-4
    )

    agent, state, update = make(obs=False)
    state, _ = update(state, trajectory, KEY)
    np.testing.assert_array_equal(state.agent.obs, trajectory.obs)
    np.testing.assert_array_equal(state.agent.next_obs, trajectory.next_obs)
    np.testing.assert_allclose(state.agent.reward, scaled_rewards([trajectory])[0][0], rtol=1e-4)
    outlier = jnp.full((B, SIZE), 1e6)
    np.testing.assert_array_equal(agent.act(state, outlier, KEY)[0], outlier)


def test_workers_share_the_statistics_of_all_workers():
    average = partial(jax.lax.pmean, axis_name="workers")
    agent = normalized(RECORDER, SPEC, gamma=GAMMA, average=average)
    workers = [make_trajectory(seed, offset=10.0 * seed) for seed in range(3)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *workers)
    state = jax.vmap(lambda _: agent.init(KEY))(jnp.arange(3))
    update = jax.jit(jax.vmap(agent.update, (0, 0, None), axis_name="workers"))
    state, _ = update(state, together, KEY)
    everything = np.asarray(together.obs).reshape(-1, SIZE)
    sums, _ = jax.vmap(sums_of)(together)
    for worker in range(3):
        np.testing.assert_allclose(state.obs.mean[worker], everything.mean(0), rtol=1e-5)
        np.testing.assert_allclose(state.obs.variance[worker], everything.var(0), rtol=1e-4)
        np.testing.assert_allclose(state.reward.variance[worker], sums.var(), rtol=1e-4)


def sums_of(trajectory):
    done = trajectory.terminated | trajectory.truncated
    return discounted_sums(trajectory.reward, done, GAMMA, jnp.zeros(B))


@pytest.mark.parametrize("options", [{}, {"obs": False}, {"reward": False}])
def test_an_update_keeps_shapes_and_dtypes(options):
    _, state, update = make(**options)
    state = state._replace(agent=())
    new, _ = update(state, make_trajectory(0), KEY)

    def kind(x):
        return x.shape, x.dtype

    assert jax.tree.map(kind, new._replace(agent=())) == jax.tree.map(kind, state)


def test_observations_may_be_bytes():
    agent, state, update = make()
    trajectory = make_trajectory(0)
    as_bytes = trajectory.obs.astype(jnp.uint8)
    trajectory = trajectory._replace(obs=as_bytes, next_obs=as_bytes)
    state, _ = update(state, trajectory, KEY)
    expected = standardized(np.asarray(as_bytes[0], np.float64), [np.asarray(as_bytes)])
    np.testing.assert_allclose(agent.greedy(state, as_bytes[0], KEY), expected, atol=1e-4)
    assert moments.standardize(as_bytes, state.obs).dtype == jnp.float32


def test_numbered_states_are_unchanged():
    spec = EnvSpec(num_states=4, num_actions=2, num_envs=B)
    assert normalized(RECORDER, spec, reward=False) is RECORDER
    agent = normalized(RECORDER, spec, gamma=GAMMA)
    states = jnp.arange(T * B).reshape(T, B) % 4
    trajectory = make_trajectory(0)._replace(obs=states, next_obs=states)
    state, _ = jax.jit(agent.update)(agent.init(KEY), trajectory, KEY)
    assert bits(state.agent.obs) == bits(states)
    assert bits(agent.greedy(state, states[0], KEY)) == bits(states[0])
    np.testing.assert_allclose(state.agent.reward, scaled_rewards([trajectory])[0][0], rtol=1e-4)


def test_the_hidden_state_of_a_recurrent_agent_is_unchanged():
    agent, state, update = make()
    trajectory, memory = make_trajectory(0), 100 * jnp.ones((T, B, 4))
    recurrent = trajectory._replace(
        obs=RecurrentObs(trajectory.obs, memory), next_obs=RecurrentObs(trajectory.next_obs, memory)
    )
    state, _ = update(update(state, recurrent, KEY)[0], recurrent, KEY)
    expected = standardized(trajectory.obs, [trajectory.obs])
    np.testing.assert_allclose(state.agent.obs.obs, expected, atol=1e-4)
    assert bits(state.agent.obs.memory) == bits(memory)
    expected = standardized(trajectory.obs[0], [trajectory.obs])
    action = agent.act(state, RecurrentObs(trajectory.obs[0], memory[0]), KEY)[0]
    np.testing.assert_allclose(action.obs, expected, atol=1e-4)
    assert bits(action.memory) == bits(memory[0])


# Advantages


def test_advantages_are_divided_by_the_population_std():
    got = normalized_advantage(jnp.array([1.0, 2.0, 3.0, 4.0]))
    expected = [-1.341641, -0.447214, 0.447214, 1.341641]  # with N - 1: 1.161895, .387298
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("same", [(5.0,), (3.0, 3.0, 3.0)])
def test_equal_advantages_become_zero(same):
    np.testing.assert_array_equal(normalized_advantage(jnp.array(same)), np.zeros(len(same)))


def test_advantages_of_workers_are_normalized_together():
    advantage = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    advantage += 10 * np.arange(3, dtype=np.float32)[:, None]
    average = partial(jax.lax.pmean, axis_name="workers")
    of_worker = partial(normalized_advantage, average=average)
    got = jax.vmap(of_worker, axis_name="workers")(jnp.asarray(advantage))
    np.testing.assert_allclose(got, (advantage - advantage.mean()) / advantage.std(), atol=1e-5)


def test_bytes_are_divided_by_255_before_there_are_statistics():
    spec = EnvSpec(obs_shape=(4, 4, 1), num_actions=2, obs_dtype="uint8")
    of_bytes = init_obs_moments(spec)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 4, 4, 1)
    np.testing.assert_allclose(standardize_obs(pixels, of_bytes), pixels / 255.0, rtol=1e-6)
    floats = init_obs_moments(spec._replace(obs_dtype="float32"))
    np.testing.assert_allclose(standardize_obs(pixels / 300.0, floats), pixels / 300.0, rtol=1e-6)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(of_bytes)} == {"float32"}
