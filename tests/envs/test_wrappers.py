"""Wrappers: automatic resets, time limits, episode statistics and batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import bits
from scipy import stats

from rljax import envs
from rljax.envs import resets, wrapped, wrappers
from rljax.types import Env, EnvSpec, Step, sample_one

KEY = jax.random.key(0)


def counting(last: int | None = None) -> Env:
    """Observes the time; ends at step `last`, or never. Does not reset."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def step(state, action, key):
        time = state + 1
        terminated = jnp.bool(False) if last is None else time >= last
        obs = time[None].astype(jnp.float32)
        return time, Step(obs, jnp.float32(time), terminated, jnp.bool(False), obs)

    spec = EnvSpec(obs_shape=(1,), num_actions=2, env_id="Counting")
    return Env(spec, reset, step, render=lambda state: f"time {state}")


class Walk(NamedTuple):
    """The state of `walking`."""

    start: jax.Array
    x: jax.Array


def walking() -> Env:
    """Observes (its random start, the time); action 1 ends the episode; rewards are random."""

    def reset(key):
        start = jax.random.uniform(key)
        return Walk(start, jnp.float32(0)), jnp.stack([start, 0.0])

    def step(state, action, key):
        state = state._replace(x=state.x + 1)
        obs = jnp.stack([state.start, state.x])
        return state, Step(obs, jax.random.uniform(key), action == 1, jnp.bool(False), obs)

    return Env(EnvSpec(obs_shape=(2,), num_actions=2, env_id="Walking"), reset, step)


def simulator(env):
    """Returns `(key, actions [T, ...]) -> (obs [T, ...], Step [T, ...])`."""

    def run(key, actions):
        reset_key, key = jax.random.split(key)
        state, obs = env.reset(reset_key)

        def env_step(carry, inputs):
            state, obs = carry
            state, step = env.step(state, *inputs)
            return (state, step.obs), (obs, step)

        inputs = actions, env.sample_noise(key, len(actions))
        return jax.lax.scan(env_step, (state, obs), inputs)[1]

    return run


def compiled(run):
    """Compiles without optimization, since compiling takes most of the time of these tests."""
    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})


def simulate(env, key, actions):
    return jax.device_get(compiled(simulator(env))(key, actions))


def random_actions(num_steps, num_envs, seed=1, probability=0.4):
    ones = jax.random.bernoulli(jax.random.key(seed), probability, (num_steps, num_envs))
    return ones.astype(int)


@pytest.fixture(scope="module")
def walks():
    """Observations and steps of 400 random steps in 32 copies of `walking`."""
    env = wrappers.batched(resets.auto_reset(walking()), 32)
    return simulate(env, KEY, random_actions(400, 32))


def test_next_obs_is_the_last_observation_of_the_episode_and_obs_the_first_of_the_next():
    env = envs.build(envs.auto_reset(envs.time_limit(counting(), 3)), 2)
    obs, step = simulate(env, KEY, jnp.zeros((4, 2), int))
    assert obs[:, 0, 0].tolist() == [0, 1, 2, 0]
    assert step.next_obs[:, 0, 0].tolist() == [1, 2, 3, 1]
    assert step.obs[:, 0, 0].tolist() == [1, 2, 0, 1]
    assert step.terminated[:, 0].tolist() == [False] * 4
    assert step.truncated[:, 0].tolist() == [False, False, True, False]


def test_next_obs_is_never_an_initial_observation(walks):
    obs, step = walks
    np.testing.assert_array_equal(step.next_obs[..., 1], obs[..., 1] + 1)
    np.testing.assert_array_equal(step.next_obs[..., 0], obs[..., 0])  # the same episode
    np.testing.assert_array_equal(step.obs[step.terminated][:, 1], 0)
    np.testing.assert_array_equal(step.obs[~step.terminated], step.next_obs[~step.terminated])


def test_initial_states_are_independent_samples_of_the_right_distribution(walks):
    obs, step = walks
    starts = np.concatenate([obs[0, :, 0], step.obs[step.terminated][:, 0]])
    assert len(starts) > 4000
    assert len(np.unique(starts)) > len(starts) - 12  # a few pairs coincide in float32
    assert stats.kstest(starts, "uniform").pvalue > 0.01
    by_env = [step.obs[step.terminated[:, b], b, 0] for b in range(32)]
    assert stats.f_oneway(*by_env).pvalue > 0.01
    following = np.concatenate([np.stack([x[:-1], x[1:]]) for x in by_env], axis=1)
    assert abs(stats.pearsonr(*following).statistic) < 0.06


def test_a_batched_step_takes_the_noise_of_each_copy():
    single = resets.auto_reset(walking())
    env = wrappers.batched(single, 3)
    state, _ = compiled(env.reset)(KEY)
    step, single_step = compiled(env.step), compiled(single.step)
    action = jnp.array([0, 1, 0])
    for noise in env.sample_noise(KEY, 2):
        batch = step(state, action, noise)
        for b in range(3):
            alone = single_step(jax.tree.map(lambda x, b=b: x[b], state), action[b], noise[b])
            assert bits(alone) == bits(jax.tree.map(lambda x, b=b: x[b], batch))
        state = batch[0]


def test_custom_noise_reaches_the_environment_row_by_row():
    def step(state, action, noise):
        return state, Step(jnp.zeros(1), noise, jnp.bool(False), jnp.bool(False), jnp.zeros(1))

    noisy = counting()._replace(
        step=step, sample_noise=lambda key, T: jax.random.uniform(key, (T,))
    )
    env = wrappers.batched(resets.auto_reset(noisy), 3)
    _, steps = simulate(env, KEY, jnp.zeros((5, 3), int))
    expected = env.sample_noise(jax.random.split(KEY)[1], 5)
    assert expected.shape == (5, 3)
    np.testing.assert_array_equal(steps.reward, expected)


def test_copies_are_independent():
    env = wrappers.batched(resets.auto_reset(walking()), 4)
    actions = random_actions(60, 4)
    run = compiled(simulator(env))
    before = run(KEY, actions)
    after = run(KEY, actions.at[:, 0].set(1).at[:, 2].set(0))
    for b in (1, 3):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, b], y[:, b]), before, after)
    assert (before[1].obs[:, 0] != after[1].obs[:, 0]).any()


def test_vmap_over_keys_equals_separate_runs():
    env = wrappers.batched(resets.auto_reset(walking()), 4)
    actions = random_actions(40, 4)
    keys = jax.random.split(KEY, 3)

    run = simulator(env)
    batch = compiled(jax.vmap(run, (0, None)))(keys, actions)
    run = compiled(run)
    for i, key in enumerate(keys):
        single = run(key, actions)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), batch, single)


def test_a_state_may_hold_an_array_of_size_zero():
    """As the states of MuJoCo do for bodies without contacts."""
    plain = walking()

    def reset(key):
        state, obs = plain.reset(key)
        return (state, jnp.zeros((0, 3))), obs

    def step(state, action, key):
        inner, step = plain.step(state[0], action, key)
        return (inner, state[1]), step

    keys, actions = jax.random.split(KEY, 3), random_actions(40, 4)
    envs_of = [wrappers.batched(resets.auto_reset(env), 4)
               for env in (plain._replace(reset=reset, step=step), plain)]  # fmt: skip
    given, expected = (jax.vmap(simulator(env), (0, None))(keys, actions) for env in envs_of)
    jax.tree.map(np.testing.assert_array_equal, given, expected)


def test_a_single_environment_equals_a_batch_of_one():
    env = resets.auto_reset(walking())
    actions = random_actions(30, 1)
    same_keys = env._replace(
        reset=lambda key: env.reset(jax.random.split(key, 1)[0]),
        sample_noise=lambda key, T: env.sample_noise(jax.random.split(key, 1)[0], T),
    )
    batch = simulate(wrappers.batched(env, 1), KEY, actions)
    single = simulate(same_keys, KEY, actions[:, 0])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, 0], y), batch, single)


def test_steps_call_reset_only_when_a_used_reserve_is_needed():
    calls, noise = [], jax.random.split(KEY, 4)

    def reset(key):
        jax.debug.callback(lambda: calls.append(1))  # once for all copies
        return walking().reset(key)

    env = wrappers.batched(resets.auto_reset(walking()._replace(reset=reset)), 4)
    reset, step = compiled(env.reset), compiled(env.step)
    state, _ = reset(KEY)
    jax.effects_barrier()
    assert len(calls) == 1  # draws the first state and the reserve in one batch
    for action, expected in ((0, 0), (1, 0), (0, 0), (1, 1)):
        calls.clear()
        state, _ = step(state, jnp.full(4, action), noise)
        jax.effects_barrier()
        assert len(calls) == expected


def test_gradients_pass_through_a_reset():
    def step(state, action, key):
        x = state + action
        return x, Step(x, -jnp.square(x).sum(), jnp.bool(False), x[0] > 9, x)

    spec = EnvSpec(obs_shape=(1,), action_shape=(1,))
    env = Env(spec, lambda key: (jnp.ones(1), jnp.ones(1)), step)
    env = wrappers.batched(resets.auto_reset(env), 2)
    state, _ = compiled(env.reset)(KEY)

    noise = sample_one(env.sample_noise, KEY)

    def two_steps(action):
        next_state, first = env.step(state, action, noise)
        return first.reward.sum() + env.step(next_state, action, noise)[1].reward.sum()

    gradient = compiled(jax.grad(two_steps))(jnp.array([[1.0], [10.0]]))  # 10 ends the episode
    np.testing.assert_allclose(gradient, [[-4 - 12], [-22 - 22]])


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_time_limit_truncates_at_exactly_its_step(limit):
    env = envs.auto_reset(envs.time_limit(counting(), limit))
    assert env.spec.max_episode_steps == limit
    _, step = simulate(env, KEY, jnp.zeros(11, int))
    assert np.flatnonzero(step.truncated).tolist() == list(range(limit - 1, 11, limit))
    assert not step.terminated.any()


def test_an_episode_that_terminates_at_the_limit_is_not_truncated():
    _, step = simulate(
        envs.auto_reset(envs.time_limit(counting(last=3), 3)), KEY, jnp.zeros(6, int)
    )
    assert np.flatnonzero(step.terminated).tolist() == [2, 5]
    assert not step.truncated.any()


@pytest.mark.parametrize("num_envs", [None, 1, 3])
def test_returns_and_lengths_of_episodes(num_envs):
    env = resets.auto_reset(walking())
    env = wrappers.record_episodes(env if num_envs is None else wrappers.batched(env, num_envs))
    actions = random_actions(80, num_envs or 1, probability=0.2)
    _, step = simulate(env, KEY, actions if num_envs else actions[:, 0])
    columns = [np.reshape(x, (80, -1)) for x in (step.reward, step.terminated)]
    returns = np.reshape(step.info["episode_return"], (80, -1))
    lengths = np.reshape(step.info["episode_length"], (80, -1))
    for b in range(num_envs or 1):
        reward, done = (x[:, b] for x in columns)
        start = 0
        for end in np.flatnonzero(done):
            rewards = reward[start : end + 1].astype(np.float64)
            np.testing.assert_allclose(returns[end, b], rewards.sum(), rtol=1e-6)
            assert lengths[end, b] == len(rewards)
            start = end + 1
        assert start > 0


def test_wrappers_keep_render_and_the_inner_state():
    env = envs.record_episodes(envs.auto_reset(envs.time_limit(counting(), 9)))
    state, _ = env.reset(KEY)
    state, _ = env.step(state, jnp.int32(0), KEY)
    assert env.render(state) == "time 1"
    assert wrapped.innermost(state) == 1
    assert wrapped.innermost(wrapped.replace_innermost(state, 7)) == 7


def test_wrong_limits_and_batches_of_batches_are_refused():
    with pytest.raises(ValueError, match="`max_episode_steps` is 0, but it must be at least 1"):
        wrappers.time_limit(counting(), 0)
    with pytest.raises(ValueError, match="`num_envs` is 0, but it must be at least 1"):
        wrappers.batched(counting(), 0)
    with pytest.raises(ValueError, match="Counting is already a batch of 2 environments"):
        wrappers.batched(wrappers.batched(counting(), 2), 2)
    with pytest.raises(ValueError, match="Counting is already a batch of 2 environments"):
        resets.auto_reset(wrappers.batched(counting(), 2))
