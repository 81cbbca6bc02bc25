"""The training loop: trajectories, episode metrics and reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import DriftConfig, bits, coin, drift, restarting, walk

from rljax.envs import wrappers
from rljax.training import learner as loop
from rljax.training.learner import make_learner, train
from rljax.types import Agent, Env, EnvSpec, Learner, Step, TrainState, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

B, T = 3, 5
ENV = wrappers.batched(walk(), B)
LEARNER = make_learner(drift(DriftConfig(), ENV.spec), ENV, T)
KEY = jax.random.key(0)


def counting(limit=3) -> Env:
    """Returns an environment that observes the time and is truncated by a time limit."""
    spec = EnvSpec(obs_shape=(1,), num_actions=2)

    def step(time, action, key):
        del action, key
        time = time + 1
        obs = time.astype(jnp.float32)[None]
        return time, Step(obs, obs[0], jnp.bool_(False), time >= limit, obs)

    return restarting(Env(spec, lambda key: (jnp.int32(0), jnp.zeros(1)), step))


@pytest.fixture(scope="module")
def advance():
    return jax.jit(lambda state, report, n: loop.advance(LEARNER, state, report, n))


@pytest.fixture(scope="module")
def start():
    state = jax.jit(LEARNER.init)(KEY)
    return state, loop.empty_report(LEARNER, state)


def test_next_obs_is_before_the_reset_and_obs_after_it():
    env = wrappers.batched(counting(), 1)
    agent = drift(DriftConfig(), env.spec)
    env_state, obs = env.reset(KEY)
    _, obs, trajectory, _ = loop.rollout(env, agent, agent.init(KEY), env_state, obs, KEY, 4)
    np.testing.assert_array_equal(trajectory.obs[:, 0, 0], [0, 1, 2, 0])
    np.testing.assert_array_equal(trajectory.next_obs[:, 0, 0], [1, 2, 3, 1])
    np.testing.assert_array_equal(trajectory.reward[:, 0], [1, 2, 3, 1])
    np.testing.assert_array_equal(trajectory.truncated[:, 0], [0, 0, 1, 0])
    assert not trajectory.terminated.any()
    np.testing.assert_array_equal(obs, [[1]])


def test_every_step_of_a_rollout_gets_its_own_row_of_noise():
    """`act` and `step` receive the rows of `sample_noise`; by default these are keys."""
    env = ENV._replace(
        sample_noise=lambda key, T: jnp.arange(10, 10 + T),
        step=lambda state, action, row: (state, Step(obs, 1.0 * action, no, no, obs, {})),
    )
    obs, no = jnp.zeros((B, 3)), jnp.zeros(B, bool)
    agent = Agent(
        None, lambda state, obs, row: (jnp.full(B, row), {"row": row}), None, None,
        sample_noise=lambda key, T: jnp.arange(20, 20 + T),
    )  # fmt: skip
    _, _, trajectory, _ = loop.rollout(env, agent, (), (), obs, KEY, 4)
    np.testing.assert_array_equal(trajectory.extras["row"], [20, 21, 22, 23])
    np.testing.assert_array_equal(trajectory.reward[:, 0], [20, 21, 22, 23])


@pytest.mark.parametrize(
    ("repeat", "T", "expected"),
    [
        (3, 8, [[0, 0, 0, 1, 1, 1, 2, 2], [3, 3, 3, 4, 4, 4, 5, 5]]),
        (4, 1, [[0], [0], [0], [0], [1], [1]]),
        (5, 2, [[0, 0], [0, 0], [1, 1]]),  # two whole rollouts
        (1, 2, [[0, 1], [2, 3]]),
    ],
)
def test_the_noise_of_an_agent_is_repeated_within_and_across_rollouts(repeat, T, expected):
    """Equal numbers in `expected` stand for equal noise; that of the environment never repeats."""
    agent = drift(DriftConfig(), ENV.spec)._replace(
        act=lambda state, obs, row: (jnp.zeros(B, int), row),
        update=lambda state, trajectory, key: (
            state, {"noise": trajectory.extras, "env": trajectory.next_obs[..., 0]}
        ),
        sample_noise=lambda key, num: jax.random.bits(key, (num,)), noise_repeat=repeat,
    )  # fmt: skip
    env = ENV._replace(
        sample_noise=lambda key, num: jax.random.uniform(key, (num, B)),
        step=lambda state, action, row: (
            state, Step(jnp.zeros((B, 3)), row, *jnp.zeros((2, B), bool), jnp.stack([row] * 3, -1))
        ),
    )  # fmt: skip
    learner = make_learner(agent, env, T)
    states = [jax.jit(learner.init)(jax.random.key(3), worker) for worker in range(2)]
    noise, env_noise = np.zeros((2, len(expected), T)), []
    for update in range(len(expected)):
        for worker, state in enumerate(states):
            states[worker], metrics = learner.step(state)
            noise[worker, update] = metrics["noise"]
            env_noise += np.asarray(metrics["env"]).ravel().tolist()
    for mine, other in (noise, noise[::-1]):
        _, numbers = np.unique(np.array(expected), return_inverse=True)
        for number in set(numbers.ravel()):
            assert len(np.unique(mine.ravel()[numbers.ravel() == number])) == 1
        assert len(np.unique(mine)) == len(set(numbers.ravel()))
        assert not np.isin(mine, other).any()  # workers explore differently
    assert len(np.unique(env_noise)) == len(env_noise)


def test_the_noise_of_a_step_is_a_key_by_default():
    keyed = drift(DriftConfig(), ENV.spec)._replace(
        act=lambda state, obs, key: (jax.random.randint(key, (B,), 0, 3), jax.random.bits(key))
    )
    env_state, obs = ENV.reset(KEY)
    _, _, trajectory, _ = loop.rollout(ENV, keyed, keyed.init(KEY), env_state, obs, KEY, 50)
    assert len(set(np.asarray(trajectory.extras).tolist())) == 50
    assert len(np.unique(np.asarray(trajectory.next_obs), axis=0)) == 50


def test_workers_share_the_agent_but_not_environments_and_keys():
    states = [LEARNER.init(KEY, worker) for worker in range(3)]
    for other in states[1:]:
        assert bits(other.agent) == bits(states[0].agent)
        assert not np.array_equal(other.obs, states[0].obs)
        assert bits(other.key) != bits(states[0].key)
    assert bits(states[0]) == bits(LEARNER.init(KEY))
    assert bits(LEARNER.init(jax.random.key(1)).agent) != bits(states[0].agent)


def test_episode_metrics_across_trajectories_equal_a_loop_over_steps():
    rng = np.random.default_rng(0)
    carry = jnp.zeros(B), jnp.zeros(B, jnp.int32)
    running = np.zeros((2, B))
    zeros = jnp.zeros((T, B))
    nothing_ended = 0
    for probability in (0.3, 0.0, 0.0, 0.5, 1.0, 0.1):
        reward = rng.normal(size=(T, B)).astype(np.float32)
        end = rng.random((T, B))
        terminated, done = end < probability / 2, end < probability
        truncated = done & ~terminated
        arrays = map(jnp.asarray, (reward, terminated, truncated))
        trajectory = Transition(zeros, zeros, *arrays, zeros)
        carry, metrics = loop.episode_metrics(trajectory, carry)
        returns, lengths = [], []
        for t, b in np.ndindex(T, B):
            running[:, b] += reward[t, b], 1
            if terminated[t, b] or truncated[t, b]:
                returns.append(running[0, b])
                lengths.append(running[1, b])
                running[:, b] = 0
        nothing_ended += not returns
        for name, values in (("return", returns), ("length", lengths)):
            mean = metrics[f"charts/episodic_{name}"]
            np.testing.assert_allclose(mean.total, np.sum(values), rtol=1e-5, atol=1e-5)
            assert mean.weight == len(values)
        np.testing.assert_allclose(metrics["charts/reward"], reward.mean(), rtol=1e-5, atol=1e-6)
    assert 2 <= nothing_ended < 6


def test_a_report_is_the_mean_over_its_updates(start, advance):
    """Metrics of episodes are weighted by episodes, the others by updates."""
    state, report = start
    step = jax.jit(LEARNER.step)
    alone = []
    for _ in range(6):
        state, metrics = step(state)
        alone.append(jax.device_get(metrics))
    end, report = advance(*start, 6)
    assert bits(end) == bits(state)
    got = loop.summary(report)
    assert got.keys() == alone[0].keys()
    for name, value in got.items():
        values = [metrics[name] for metrics in alone]
        if isinstance(values[0], loop.Mean):
            expected = sum(v.total for v in values) / sum(v.weight for v in values)
        else:
            expected = np.mean(values)
        np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=name)
    assert (np.array(list(report.nonfinite.values())) == loop.NEVER).all()


def test_a_run_does_not_depend_on_the_sizes_of_chunks(start, advance):
    whole = advance(*start, 7)
    state, report = start
    for size in (1, 4, 0, 2):
        state, report = advance(state, report, size)
    assert bits(state) == bits(whole[0])
    for x, y in zip(jax.tree.leaves(report), jax.tree.leaves(whole[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    assert advance._cache_size() == 1


def test_the_summary_is_nan_without_episodes():
    mean = loop.Mean(jnp.float32(0), jnp.float32(0))
    report = loop.Report({"charts/episodic_return": mean}, {})
    assert np.isnan(loop.summary(report)["charts/episodic_return"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_update_with_a_nonfinite_metric_is_recorded(bad):
    report = loop.Report(
        {name: loop.Mean(jnp.float32(0), jnp.float32(0)) for name in "ab"},
        {name: jnp.int32(loop.NEVER) for name in "ab"},
    )
    values = jnp.array([1.0, 2.0, bad, 3.0, bad])

    def step(state):
        update = state.num_updates
        metrics = {"a": values[update], "b": loop.Mean(jnp.float32(1.0), jnp.float32(2.0))}
        return state._replace(num_updates=update + 1), metrics

    state = TrainState((), (), (), (), (), jnp.int32(0))
    _, report = loop.advance(Learner(lambda key, worker=0: state, step), state, report, 5)
    assert report.nonfinite == {"a": 2, "b": loop.NEVER}
    assert report.totals["b"] == (5.0, 10.0) and report.totals["a"].weight == 5.0


def test_train_equals_single_advances(start, advance):
    run = jax.jit(lambda key: train(LEARNER, key, 6, num_reports=3))
    state, metrics = run(KEY)
    expected, rows = start[0], []
    for _ in range(3):
        expected, report = advance(expected, start[1], 2)
        rows.append(loop.summary(report))
    assert bits(state.agent) == bits(expected.agent)
    for name, values in metrics.items():
        assert values.shape == (3,)
        np.testing.assert_allclose(values, [row[name] for row in rows], rtol=1e-5)


def test_reports_must_divide_the_updates():
    with pytest.raises(ValueError, match=r"`num_reports` is 4, .* divide the 6 updates"):
        train(LEARNER, KEY, 6, num_reports=4)


def test_memory_does_not_depend_on_the_number_of_updates():
    def program(num_updates):
        lowered = jax.jit(lambda key: train(LEARNER, key, num_updates, 2)).lower(KEY)
        memory = lowered.compile().memory_analysis()
        return memory.temp_size_in_bytes, memory.output_size_in_bytes

    assert program(4) == program(4_000_000)


def test_an_episode_longer_than_a_rollout_is_counted_when_it_ends():
    env = wrappers.batched(coin(short=12, long=12), 2)
    learner = make_learner(drift(DriftConfig(), env.spec), env, T)
    _, metrics = jax.jit(lambda key: train(learner, key, 8, 8))(KEY)
    lengths = np.asarray(metrics["charts/episodic_length"])
    np.testing.assert_array_equal(lengths, [np.nan, np.nan, 12, np.nan, 12, np.nan, np.nan, 12])
    np.testing.assert_array_equal(metrics["charts/episodic_return"], lengths)
