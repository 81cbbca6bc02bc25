"""Acting by a deterministic policy with added noise, and the memory of correlated noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax.agents import AGENTS, off_policy
from rljax.agents.acting import (
    Acting,
    gaussian,
    noisy_policy,
    ornstein_uhlenbeck,
    with_warmup,
)
from rljax.agents.off_policy import off_policy_loop
from rljax.agents.replay_schedule import ReplayConfig
from rljax.envs import wrappers
from rljax.envs.memory import carry_memory
from rljax.replay import ring
from rljax.training.learner import make_learner
from rljax.types import Agent, Env, EnvSpec, RecurrentObs, Shared, Step, sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

LOW, HIGH = np.array([-1.0, 0.0]), np.array([3.0, 10.0])
NUM_ENVS = 20_000
SPEC = EnvSpec(
    obs_shape=(1,), action_shape=(2,), action_low=LOW, action_high=HIGH, num_envs=NUM_ENVS
)
OBS = jnp.zeros((NUM_ENVS, 1))


class State(NamedTuple):
    """The part of an agent's state that `noisy_policy` reads, and the action of its policy."""

    env_steps: Shared
    action: Any


def state_of(env_steps, action=(0.0, 0.0)):
    return State(Shared(jnp.int32(env_steps)), jnp.array(action))


def constant_policy(state, obs):
    return jnp.broadcast_to(state.action, (obs.shape[0], 2))


def in_box(action):
    """Actions in [-1, 1] in the units of the environment."""
    return LOW + (np.asarray(action) + 1) / 2 * (HIGH - LOW)


def actions_of(acting, state, seed=0):
    noise = sample_one(acting.sample_noise, jax.random.key(seed))
    action, extras = jax.jit(acting.act)(state, OBS, noise)
    assert action.shape == (NUM_ENVS, 2) and extras == ()
    return np.asarray(action)


def test_actions_are_uniform_over_the_box_during_warmup():
    acting = noisy_policy(SPEC, constant_policy, gaussian(0.1), warmup_steps=100)
    for env_steps in (0, 99):
        action = actions_of(acting, state_of(env_steps, (0.5, 0.5)), seed=env_steps)
        for i in range(2):
            uniform = stats.uniform(LOW[i], HIGH[i] - LOW[i])
            assert stats.kstest(action[:, i], uniform.cdf).pvalue > 1e-3
        assert abs(np.corrcoef(action.T)[0, 1]) < 0.03
    after = actions_of(acting, state_of(100, (0.5, 0.5)))
    assert np.abs(after - in_box([0.5, 0.5])).max() < 0.1 * 5.5 * (HIGH - LOW).max() / 2


def test_gaussian_noise_has_the_given_standard_deviation_in_units_of_half_the_range():
    std = 0.2
    acting = noisy_policy(SPEC, constant_policy, gaussian(std), warmup_steps=0)
    action = actions_of(acting, state_of(0, (0.1, -0.1)))
    normalized = (action - in_box([0.1, -0.1])) / ((HIGH - LOW) / 2)
    np.testing.assert_allclose(normalized.mean(axis=0), 0.0, atol=5 * std / np.sqrt(NUM_ENVS))
    np.testing.assert_allclose(normalized.std(axis=0), std, rtol=0.03)
    for i in range(2):
        assert stats.kstest(normalized[:, i], stats.norm(0, std).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(normalized.T)[0, 1]) < 0.03


def test_noisy_actions_are_clipped_to_the_box():
    acting = noisy_policy(SPEC, constant_policy, gaussian(2.0), warmup_steps=0)
    action = actions_of(acting, state_of(0, (0.9, -0.9)))
    np.testing.assert_allclose(action.min(axis=0), LOW, atol=1e-6)
    np.testing.assert_allclose(action.max(axis=0), HIGH, atol=1e-6)
    clipped = np.abs(action[:, 0] - HIGH[0]) < 1e-6
    expected = stats.norm(0.9, 2.0).sf(1.0)
    np.testing.assert_allclose(clipped.mean(), expected, atol=4 * 0.5 / np.sqrt(NUM_ENVS))


def test_greedy_actions_have_no_noise_even_during_warmup():
    acting = noisy_policy(SPEC, constant_policy, gaussian(0.5), warmup_steps=100)
    for env_steps in (0, 1000):
        action = acting.greedy(state_of(env_steps, (0.25, -0.5)), OBS, jax.random.key(0))
        expected = np.broadcast_to(in_box([0.25, -0.5]), (NUM_ENVS, 2))
        np.testing.assert_allclose(action, expected, rtol=1e-6)


def test_noise_rows_are_independent():
    acting = noisy_policy(SPEC._replace(num_envs=3), constant_policy, gaussian(0.5), 0)
    normal, uniform = acting.sample_noise(jax.random.key(0), 5)
    assert normal.shape == uniform.shape == (5, 3, 2)
    assert np.unique(normal).size == np.unique(uniform).size == 30
    assert np.abs(uniform).max() < 1


def test_ornstein_uhlenbeck_noise_is_an_ar1_process():
    """Against a numpy recursion, and its stationary variance `sigma^2 / (1 - (1 - theta)^2)`."""
    sigma, theta, num_steps = 0.3, 0.25, 40
    noise = ornstein_uhlenbeck(sigma, theta)
    assert noise.has_memory and not gaussian(0.1).has_memory
    normal = jax.random.normal(jax.random.key(0), (num_steps, NUM_ENVS, 2))

    def step(memory, normal):
        value, memory = noise.step(memory, normal)
        return memory, value

    _, values = jax.jit(lambda x: jax.lax.scan(step, jnp.zeros((NUM_ENVS, 2)), x))(normal)
    expected = np.zeros((NUM_ENVS, 2))
    for t in range(num_steps):
        expected = (1 - theta) * expected + sigma * np.asarray(normal[t], np.float64)
        np.testing.assert_allclose(values[t], expected, rtol=1e-4, atol=1e-5)
    last = np.asarray(values[-1])
    np.testing.assert_allclose(last.var(), sigma**2 / (1 - (1 - theta) ** 2), rtol=0.03)
    np.testing.assert_allclose(np.asarray(values[0]).var(), sigma**2, rtol=0.03)
    correlation = np.corrcoef(values[-1].ravel(), values[-2].ravel())[0, 1]
    np.testing.assert_allclose(correlation, 1 - theta, atol=0.02)


def test_a_smaller_time_step_scales_drift_and_diffusion():
    memory, normal = jnp.array([[2.0]]), jnp.array([[1.0]])
    value, memory = ornstein_uhlenbeck(sigma=0.3, theta=0.2, dt=0.25).step(memory, normal)
    np.testing.assert_allclose(value, (1 - 0.2 * 0.25) * 2 + 0.3 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(value, memory)


EPISODE_LENGTH = 4


def timer() -> Env:
    """Episodes of `EPISODE_LENGTH` steps with continuous actions; the time is observed."""
    spec = EnvSpec(obs_shape=(1,), action_shape=(2,), action_low=LOW, action_high=HIGH)

    def obs_of(time):
        return time.astype(jnp.float32)[None]

    def reset(key):
        return jnp.int32(0), obs_of(jnp.int32(0))

    def step(time, action, key):
        next_time = time + 1
        done = next_time >= EPISODE_LENGTH
        start = jnp.where(done, 0, next_time)
        truncated = jnp.bool_(False)
        reward = action.sum().astype(jnp.float32)
        return start, Step(obs_of(start), reward, done, truncated, obs_of(next_time))

    return Env(spec, reset, step)


def test_noise_restarts_at_0_where_an_episode_ends():
    """The environment carries the noise; it is compared with the recursion in each episode."""
    sigma, theta, num_steps = 0.05, 0.15, 3 * EPISODE_LENGTH
    env = wrappers.batched(carry_memory(timer(), jnp.zeros(2)), 2)
    acting = noisy_policy(env.spec, constant_policy, ornstein_uhlenbeck(sigma, theta), 0)
    normal, uniform = acting.sample_noise(jax.random.key(0), num_steps)
    env_noise = env.sample_noise(jax.random.key(1), num_steps)
    state, (env_state, obs) = state_of(0, (0.1, -0.2)), env.reset(jax.random.key(2))
    noise = np.zeros((2, 2))
    for t in range(num_steps):
        np.testing.assert_allclose(obs.memory, noise, rtol=1e-5)
        (action, memory), _ = acting.act(state, obs, (normal[t], uniform[t]))
        noise = (1 - theta) * noise + sigma * np.asarray(normal[t], np.float64)
        np.testing.assert_allclose(memory, noise, rtol=1e-4)
        np.testing.assert_allclose(action, in_box(noise + [0.1, -0.2]), rtol=1e-4)
        env_state, step = env.step(env_state, (action, memory), env_noise[t])
        assert step.terminated.all() == ((t + 1) % EPISODE_LENGTH == 0)
        np.testing.assert_allclose(step.next_obs.memory, noise, rtol=1e-4)
        noise, obs = np.where(step.terminated[:, None], 0.0, noise), step.obs


class Learned(NamedTuple):
    params: Any


def constant_agent(spec, noise):
    """An agent with replay that acts by a constant policy with noise and learns nothing."""
    config = ReplayConfig(
        num_envs=2, num_steps=6, total_timesteps=48, buffer_size=48, batch_size=2,
        learning_starts=4,
    )  # fmt: skip
    loop = off_policy_loop(config, spec)
    acting = noisy_policy(
        spec, lambda state, obs: jnp.broadcast_to(state.params, (obs.shape[0], 2)), noise, 0
    )

    def gradient_step(learned, batch):
        return learned, jnp.zeros(2), {"losses/reward": batch.transitions.reward.mean()}

    def init(key):
        return loop.init(Learned(jnp.array([0.1, -0.2])))

    def update(state, trajectory, key):
        return loop.learn(state, trajectory, key, gradient_step)

    return Agent(init, acting.act, acting.greedy, update, acting.sample_noise)


@pytest.mark.parametrize("noise", [ornstein_uhlenbeck(0.05), gaussian(0.05)])
def test_replay_stores_plain_observations_and_actions(noise):
    """Neither the memory of the noise nor the tuple of an action and a memory."""
    env = wrappers.batched(carry_memory(timer(), jnp.zeros(2)), 2)
    learner = make_learner(constant_agent(env.spec, noise), env, 6)
    state = jax.jit(learner.init)(jax.random.key(0))
    step = jax.jit(learner.step)
    for _ in range(4):
        state, metrics = step(state)
    assert isinstance(state.obs, RecurrentObs) and np.isfinite(metrics["losses/reward"].total)
    assert metrics["losses/reward"].weight > 0

    items = ring.contents(state.agent.replay)
    item = off_policy.example_transition(env.spec)
    assert jax.tree.structure(items) == jax.tree.structure(item)
    time = np.arange(24).repeat(2)[:, None] % EPISODE_LENGTH
    np.testing.assert_array_equal(items.obs, time)
    np.testing.assert_array_equal(items.next_obs, time + 1)
    np.testing.assert_array_equal(items.terminated, time[:, 0] == EPISODE_LENGTH - 1)
    assert items.action.shape == (48, 2) and np.unique(items.action).size == 96
    np.testing.assert_allclose(items.action, np.tile(in_box([0.1, -0.2]), (48, 1)), atol=1.5)
    np.testing.assert_allclose(items.reward, items.action.sum(axis=-1), rtol=1e-5)


def act_once(noise, memory):
    spec = EnvSpec(obs_shape=(1,), action_shape=(2,), num_envs=3)
    acting = noisy_policy(spec, constant_policy, noise, warmup_steps=0)
    assert isinstance(acting, Acting)
    obs = RecurrentObs(jnp.zeros((3, 1)), memory) if memory is not None else jnp.zeros((3, 1))
    row = sample_one(acting.sample_noise, jax.random.key(0))
    return acting, row, obs


def test_the_memory_of_an_action_is_the_noise_of_its_step():
    memory = jnp.full((3, 2), 0.5)
    acting, (normal, uniform), obs = act_once(ornstein_uhlenbeck(0.1, 0.2), memory)
    (action, next_memory), extras = acting.act(state_of(0), obs, (normal, uniform))
    np.testing.assert_allclose(next_memory, 0.8 * 0.5 + 0.1 * normal, rtol=1e-5)
    np.testing.assert_allclose(action, next_memory, rtol=1e-5)  # the policy is 0, the box [-1, 1]
    assert extras == ()
    action, same = acting.greedy(state_of(0), obs, jax.random.key(0))
    np.testing.assert_array_equal(action, np.zeros((3, 2)))
    np.testing.assert_array_equal(same, memory)


def test_noise_with_a_memory_needs_an_environment_that_carries_it():
    acting, row, obs = act_once(ornstein_uhlenbeck(), None)
    with pytest.raises(ValueError, match="noise has a memory, but Env does not carry it: wrap"):
        acting.act(state_of(0), obs, row)
    acting, row, obs = act_once(gaussian(0.1), jnp.zeros((3, 2)))  # an unused memory is kept
    (_, memory), _ = acting.act(state_of(0), obs, row)
    np.testing.assert_array_equal(memory, np.zeros((3, 2)))


def test_a_stochastic_policy_gets_its_normals_and_its_memory_also_during_warmup():
    """And `explore` maps both; actions are uniform until the end of the warm-up."""
    spec = EnvSpec((1,), action_shape=(2,), action_low=LOW, action_high=HIGH, num_envs=3)

    def explore(state, obs, memory, normal):
        return jnp.tanh(state.action[None] + 0.5 * memory), memory + normal

    acting = with_warmup(spec, explore, constant_policy, warmup_steps=10, has_memory=True)
    normal, uniform = row = sample_one(acting.sample_noise, jax.random.key(0))
    memory = jnp.full((3, 2), 0.4)
    obs = RecurrentObs(jnp.zeros((3, 1)), memory)
    for env_steps, expected in ((9, uniform), (10, np.tanh([[0.5, 0.0]] * 3))):
        (action, next_memory), extras = acting.act(state_of(env_steps, (0.3, -0.2)), obs, row)
        np.testing.assert_allclose(action, in_box(expected), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(next_memory, memory + normal, rtol=1e-6)
        assert extras == ()
    with pytest.raises(ValueError, match="noise has a memory, but Env does not carry it: wrap"):
        acting.greedy(state_of(0), obs.obs, jax.random.key(0))


@pytest.mark.parametrize("name", ["ddpg", "td3", "sac"])
def test_noise_with_a_memory_is_not_repeated(name):
    """Repeated normals would raise the variance of Ornstein-Uhlenbeck noise."""
    row, spec = AGENTS[name], EnvSpec(
        obs_shape=(3,), action_shape=(1,), action_low=-1.0, action_high=1.0
    )  # fmt: skip
    options = {"exploration_repeat": 8, "buffer_size": 1000}
    assert row.make(row.config(**options, noise="gaussian"), spec).noise_repeat == 8
    assert row.make(row.config(**options, noise="ornstein_uhlenbeck"), spec).noise_repeat == 1
