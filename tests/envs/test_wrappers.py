"""Resetting, time limits, episode statistics and batches, on environments that can be counted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax import envs
from rljax.envs import wrappers
from rljax.types import Env, EnvSpec, Step

KEY = jax.random.key(0)


def counting(last: int | None = None) -> Env:
    """`obs` is the time; ends at `last`, or never. Does not reset."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def step(state, action, key):
        time = state + 1
        end = jnp.bool(False) if last is None else time >= last
        obs = time[None].astype(jnp.float32)
        return time, Step(obs, jnp.float32(time), end, jnp.bool(False), obs)

    spec = EnvSpec(obs_shape=(1,), num_actions=2, env_id="Counting")
    return Env(spec, reset, step, render=lambda state: f"time {state}")


class Walk(NamedTuple):
    """The state of `walking`."""

    start: jax.Array
    x: jax.Array


def walking() -> Env:
    """Starts at a uniform number `obs[0]`; action 1 ends the episode; rewards are random."""

    def reset(key):
        start = jax.random.uniform(key)
        return Walk(start, jnp.float32(0)), jnp.stack([start, 0.0])

    def step(state, action, key):
        state = state._replace(x=state.x + 1)
        obs = jnp.stack([state.start, state.x])
        return state, Step(obs, jax.random.uniform(key), action == 1, jnp.bool(False), obs)

    return Env(EnvSpec(obs_shape=(2,), num_actions=2, env_id="Walking"), reset, step)


def player(env):
    """`(key, actions [T, ...]) -> (obs [T, ...], Step [T, ...])`."""

    def run(key, actions):
        reset_key, key = jax.random.split(key)
        state, obs = env.reset(reset_key)

        def once(carry, inputs):
            state, obs = carry
            state, step = env.step(state, *inputs)
            return (state, step.obs), (obs, step)

        return jax.lax.scan(once, (state, obs), (actions, env.sample_noise(key, len(actions))))[1]

    return run


def compiled(run):
    """Compiled in a hurry, which is where the time of these tests goes."""
    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})


def play(env, key, actions):
    return jax.device_get(compiled(player(env))(key, actions))


def random_actions(num_steps, num_envs, seed=1, share=0.4):
    return jax.random.bernoulli(jax.random.key(seed), share, (num_steps, num_envs)).astype(int)


@pytest.fixture(scope="module")
def walked():
    """400 random steps of 32 walks."""
    env = wrappers.batched(wrappers.auto_reset(walking()), 32)
    return play(env, KEY, random_actions(400, 32))


def test_transitions_hold_the_last_observation_and_not_the_first_of_the_next_episode():
    env = envs.build(envs.auto_reset(envs.time_limit(counting(), 3)), 2)
    obs, step = play(env, KEY, jnp.zeros((4, 2), int))
    assert obs[:, 0, 0].tolist() == [0, 1, 2, 0]
    assert step.next_obs[:, 0, 0].tolist() == [1, 2, 3, 1]
    assert step.obs[:, 0, 0].tolist() == [1, 2, 0, 1]
    assert step.terminated[:, 0].tolist() == [False] * 4
    assert step.truncated[:, 0].tolist() == [False, False, True, False]


def test_next_obs_is_never_a_reset(walked):
    obs, step = walked
    np.testing.assert_array_equal(step.next_obs[..., 1], obs[..., 1] + 1)
    np.testing.assert_array_equal(step.next_obs[..., 0], obs[..., 0])  # still of this episode
    np.testing.assert_array_equal(step.obs[step.terminated][:, 1], 0)
    np.testing.assert_array_equal(step.obs[~step.terminated], step.next_obs[~step.terminated])


def test_every_episode_begins_in_a_state_of_its_own_from_the_right_distribution(walked):
    obs, step = walked
    starts = np.concatenate([obs[0, :, 0], step.obs[step.terminated][:, 0]])
    assert len(starts) > 4000
    assert len(np.unique(starts)) > len(starts) - 12  # chance alone makes two equal in float32
    assert stats.kstest(starts, "uniform").pvalue > 0.01
    by_env = [step.obs[step.terminated[:, b], b, 0] for b in range(32)]
    assert stats.f_oneway(*by_env).pvalue > 0.01
    following = np.concatenate([np.stack([x[:-1], x[1:]]) for x in by_env], axis=1)
    assert abs(stats.pearsonr(*following).statistic) < 0.06


def test_a_key_and_what_is_drawn_of_it_are_the_same_step():
    env = wrappers.batched(wrappers.auto_reset(walking()), 3)
    state, _ = compiled(env.reset)(KEY)
    noise = jax.tree.map(lambda x: x[0], env.sample_noise(KEY, 1))
    action = jnp.array([0, 1, 0])
    step = compiled(env.step)
    for _ in range(2):
        one, other = step(state, action, KEY), step(state, action, noise)
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(_bits(x), _bits(y)), one, other)
        state = one[0]


def _bits(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def test_noise_that_an_environment_draws_itself_reaches_it_row_by_row():
    def step(state, action, noise):
        return state, Step(jnp.zeros(1), noise, jnp.bool(False), jnp.bool(False), jnp.zeros(1))

    noisy = counting()._replace(
        step=step, sample_noise=lambda key, T: jax.random.uniform(key, (T,))
    )
    env = wrappers.batched(wrappers.auto_reset(noisy), 3)
    _, steps = play(env, KEY, jnp.zeros((5, 3), int))
    expected = env.sample_noise(jax.random.split(KEY)[1], 5)
    assert expected.shape == (5, 3)
    np.testing.assert_array_equal(steps.reward, expected)


def test_copies_do_not_see_each_other():
    env = wrappers.batched(wrappers.auto_reset(walking()), 4)
    actions = random_actions(60, 4)
    run = compiled(player(env))
    before = run(KEY, actions)
    after = run(KEY, actions.at[:, 0].set(1).at[:, 2].set(0))
    for b in (1, 3):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, b], y[:, b]), before, after)
    assert (before[1].obs[:, 0] != after[1].obs[:, 0]).any()


def test_runs_side_by_side_are_the_runs_alone():
    env = wrappers.batched(wrappers.auto_reset(walking()), 4)
    actions = random_actions(40, 4)
    keys = jax.random.split(KEY, 3)

    run = player(env)
    together = compiled(jax.vmap(run, (0, None)))(keys, actions)
    single = compiled(run)
    for i, key in enumerate(keys):
        alone = single(key, actions)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), together, alone)


def test_one_environment_resets_like_a_batch_of_one():
    one = wrappers.auto_reset(walking())
    actions = random_actions(30, 1)
    env = wrappers.batched(one, 1)
    alone = one._replace(
        reset=lambda key: one.reset(jax.random.split(key, 1)[0]),
        sample_noise=lambda key, T: one.sample_noise(jax.random.split(key, 1)[0], T),
    )
    batch, single = play(env, KEY, actions), play(alone, KEY, actions[:, 0])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, 0], y), batch, single)


def test_a_step_draws_a_reset_only_where_none_is_in_reserve():
    draws = []

    def reset(key):
        jax.debug.callback(lambda: draws.append(1))  # once for all copies
        return walking().reset(key)

    env = wrappers.batched(wrappers.auto_reset(walking()._replace(reset=reset)), 4)
    reset, step = compiled(env.reset), compiled(env.step)
    state, _ = reset(KEY)
    jax.effects_barrier()
    assert len(draws) == 1  # of a state to begin in and one in reserve
    for action, expected in ((0, 0), (1, 0), (0, 0), (1, 1)):
        draws.clear()
        state, _ = step(state, jnp.full(4, action), KEY)
        jax.effects_barrier()
        assert len(draws) == expected


def test_gradients_pass_through_a_reset():
    def step(state, action, key):
        x = state + action
        return x, Step(x, -jnp.square(x).sum(), jnp.bool(False), x[0] > 9, x)

    spec = EnvSpec(obs_shape=(1,), action_shape=(1,))
    env = Env(spec, lambda key: (jnp.ones(1), jnp.ones(1)), step)
    env = wrappers.batched(wrappers.auto_reset(env), 2)
    state, _ = compiled(env.reset)(KEY)

    def cost(action):
        after, first = env.step(state, action, KEY)
        return first.reward.sum() + env.step(after, action, KEY)[1].reward.sum()

    gradient = compiled(jax.grad(cost))(
        jnp.array([[1.0], [10.0]])
    )  # the second ends at once, and restarts
    np.testing.assert_allclose(gradient, [[-4 - 12], [-22 - 22]])


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_time_limit_cuts_at_exactly_its_step(limit):
    env = envs.auto_reset(envs.time_limit(counting(), limit))
    assert env.spec.max_episode_steps == limit
    _, step = play(env, KEY, jnp.zeros(11, int))
    assert np.flatnonzero(step.truncated).tolist() == list(range(limit - 1, 11, limit))
    assert not step.terminated.any()


def test_an_episode_that_ends_at_the_limit_is_not_cut():
    _, step = play(envs.auto_reset(envs.time_limit(counting(last=3), 3)), KEY, jnp.zeros(6, int))
    assert np.flatnonzero(step.terminated).tolist() == [2, 5]
    assert not step.truncated.any()


@pytest.mark.parametrize("num_envs", [None, 1, 3])
def test_returns_and_lengths_of_episodes(num_envs):
    env = wrappers.auto_reset(walking())
    env = wrappers.record_episodes(env if num_envs is None else wrappers.batched(env, num_envs))
    actions = random_actions(80, num_envs or 1, share=0.2)
    _, step = play(env, KEY, actions if num_envs else actions[:, 0])
    columns = [np.reshape(x, (80, -1)) for x in (step.reward, step.terminated)]
    returns = np.reshape(step.info["episode_return"], (80, -1))
    lengths = np.reshape(step.info["episode_length"], (80, -1))
    for b in range(num_envs or 1):
        reward, done = (x[:, b] for x in columns)
        begin = 0
        for end in np.flatnonzero(done):
            part = reward[begin : end + 1].astype(np.float64)
            np.testing.assert_allclose(returns[end, b], part.sum(), rtol=1e-6)
            assert lengths[end, b] == len(part)
            begin = end + 1
        assert begin > 0


def test_wrappers_keep_the_picture_and_give_back_the_state():
    env = envs.record_episodes(envs.auto_reset(envs.time_limit(counting(), 9)))
    state, _ = env.reset(KEY)
    state, _ = env.step(state, jnp.int32(0), KEY)
    assert env.render(state) == "time 1"
    assert wrappers.innermost(state) == 1


def test_wrong_numbers_and_batches_of_batches_are_refused():
    with pytest.raises(ValueError, match="`max_episode_steps` is 0, but it must be at least 1"):
        wrappers.time_limit(counting(), 0)
    with pytest.raises(ValueError, match="`num_envs` is 0, but it must be at least 1"):
        wrappers.batched(counting(), 0)
    with pytest.raises(ValueError, match="Counting is a batch of 2 environments already"):
        wrappers.batched(wrappers.batched(counting(), 2), 2)
    with pytest.raises(ValueError, match="Counting is a batch of 2 environments already"):
        wrappers.auto_reset(wrappers.batched(counting(), 2))
