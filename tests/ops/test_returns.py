"""Returns against numbers worked by hand, a float64 loop, rlax, and identities."""

import warnings
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rljax.ops import returns

gae = jax.jit(returns.gae)
lambda_returns = jax.jit(returns.lambda_returns)
discounted_sums = jax.jit(returns.discounted_sums)


def bools(*values):
    return jnp.array(values, bool)


@pytest.fixture(scope="module")
def rlax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports use deprecated names
        rlax = pytest.importorskip("rlax")

    estimation = rlax.truncated_generalized_advantage_estimation
    return SimpleNamespace(
        gae=jax.jit(jax.vmap(estimation, (1, 1, None, 1), 1)),
        lambda_returns=jax.jit(jax.vmap(rlax.lambda_returns, (1, 1, 1, None), 1)),
    )


# Generalized advantage estimation: r = (1, 2, 3, 4), V = (.5, 1, 1.5, 2), V(last) = 2.5. Where the
# episode ends after t = 1, the observation reached has value 3, the one after the reset value 1.5.

REWARD = (1.0, 2.0, 3.0, 4.0)
VALUE = (0.5, 1.0, 1.5, 2.0)
CONTINUED, ENDED = (1.0, 1.5, 2.0, 2.5), (1.0, 3.0, 2.0, 2.5)
NEVER, AFTER_1 = (False,) * 4, (False, True, False, False)
CASES = {  # next_value, terminated, truncated, advantage
    "no end": (CONTINUED, NEVER, NEVER, (6.389024, 6.9292, 6.36, 4.25)),
    "terminated": (ENDED, AFTER_1, NEVER, (2.12, 1.00, 6.36, 4.25)),
    "truncated": (ENDED, NEVER, AFTER_1, (4.064, 3.70, 6.36, 4.25)),
}
TRUNCATION_BUGS = {
    "truncation treated as termination": (2.12, 1.0),
    "bootstrap from the observation after the reset": (3.092, 2.35),
    "trace not cut": (7.361024, 8.2792),
    "done off by one": (0.5, 6.9292),
}


@pytest.mark.parametrize("case", CASES)
def test_gae_by_hand(case):
    next_value, terminated, truncated, expected = CASES[case]
    arrays = jnp.array(REWARD), jnp.array(VALUE), jnp.array(next_value)
    advantage, target = gae(*arrays, bools(*terminated), bools(*truncated), 0.9, 0.8)
    np.testing.assert_allclose(advantage, expected, atol=1e-5)
    np.testing.assert_allclose(target, np.add(expected, VALUE), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_gae_by_hand_in_float64(case):
    next_value, terminated, truncated, expected = CASES[case]
    with jax.enable_x64(True):
        arrays = [jnp.array(x, jnp.float64) for x in (REWARD, VALUE, next_value)]
        advantage, _ = returns.gae(*arrays, bools(*terminated), bools(*truncated), 0.9, 0.8)
        assert advantage.dtype == jnp.float64
        np.testing.assert_allclose(advantage, expected, atol=1e-6)


def test_gae_of_parallel_environments():
    columns = [np.stack(x, axis=1) for x in zip(*CASES.values(), strict=True)]
    next_value, terminated, truncated, expected = columns
    reward, value = (jnp.tile(jnp.array(x)[:, None], (1, 3)) for x in (REWARD, VALUE))
    advantage, target = gae(
        reward, value, jnp.array(next_value), bools(*terminated), bools(*truncated), 0.9, 0.8
    )
    assert advantage.shape == target.shape == (4, 3)
    np.testing.assert_allclose(advantage, expected, atol=1e-5)


@pytest.mark.parametrize("bug", TRUNCATION_BUGS)
def test_gae_at_a_time_limit_has_none_of_the_usual_bugs(bug):
    arrays = jnp.array(REWARD), jnp.array(VALUE), jnp.array(ENDED)
    advantage, _ = gae(*arrays, bools(*NEVER), bools(*AFTER_1), 0.9, 0.8)
    assert (np.abs(np.asarray(advantage[:2]) - TRUNCATION_BUGS[bug]) > 0.1).all()


def test_gae_of_one_step():
    one = jnp.ones(1)
    for terminated, expected in ((False, 1 + 0.9 - 1), (True, 1 - 1)):
        advantage, _ = gae(one, one, one, bools(terminated), bools(False), 0.9, 0.8)
        np.testing.assert_allclose(advantage, [expected], atol=1e-6)


@pytest.mark.parametrize("arbitrary", [np.nan, np.inf])
def test_terminal_states_are_not_bootstrapped(arbitrary):
    reward, value = jnp.ones(3), jnp.zeros(3)
    next_value, terminated = jnp.array([1.0, arbitrary, 1.0]), bools(False, True, False)
    advantage, _ = gae(reward, value, next_value, terminated, bools(0, 0, 0), 0.9, 0.8)
    assert np.isfinite(advantage).all()
    targets = lambda_returns(reward, next_value, terminated, bools(0, 0, 0), 0.9, 0.8)
    assert np.isfinite(targets).all()


def test_shapes_that_would_broadcast_and_wrong_dtypes_are_refused():
    column, row, never = jnp.ones((4, 1)), jnp.ones(4), jnp.zeros(4, bool)
    with pytest.raises(AssertionError):
        returns.gae(row, column, row, never, never, 0.9, 0.8)
    with pytest.raises(AssertionError):
        returns.lambda_returns(row, column, never, never, 0.9, 0.8)
    with pytest.raises(AssertionError):
        returns.discounted_sums(row, column.astype(bool), 0.9, jnp.zeros(()))
    with pytest.raises(AssertionError, match="rank"):
        cube = jnp.ones((2, 2, 2))
        returns.lambda_returns(cube, cube, cube > 1, cube > 1, 0.9, 0.8)
    with pytest.raises(AssertionError, match="type"):
        returns.gae(row, row, row, row, never, 0.9, 0.8)
    with pytest.raises(AssertionError, match="type"):
        returns.gae(row.astype(int), row, row, never, never, 0.9, 0.8)
    with pytest.raises(AssertionError, match="type"):
        returns.episode_times(column > 1, jnp.zeros(1))


# Returns


def test_lambda_returns_by_hand():
    reward, next_value = jnp.array([1.0, 2.0, 3.0]), jnp.array([10.0, 20.0, 30.0])
    never, at_1 = bools(0, 0, 0), bools(0, 1, 0)
    got = lambda_returns(reward, next_value, never, never, 0.9, 0.65)
    np.testing.assert_allclose(got, [19.27225, 25.85, 30.0], rtol=1e-6)
    got = lambda_returns(reward, next_value, at_1, never, 0.9, 0.65)
    np.testing.assert_allclose(got, [5.32, 2.0, 30.0], rtol=1e-6)
    # truncated: G_1 = 2 + .9 20 = 20, G_0 = 1 + .9 (.35 10 + .65 20) = 15.85
    got = lambda_returns(reward, next_value, never, at_1, 0.9, 0.65)
    np.testing.assert_allclose(got, [15.85, 20.0, 30.0], rtol=1e-6)


def test_returns_of_an_episode():
    got = lambda_returns(jnp.ones(3), jnp.full(3, 7.0), bools(0, 0, 1), bools(0, 0, 0), 0.9, 1.0)
    np.testing.assert_allclose(got, [2.71, 1.9, 1.0], rtol=1e-6)


def test_returns_with_a_bootstrap():
    reward, next_value, never = jnp.array([1.0, 0.0, 2.0]), jnp.full(3, 10.0), bools(0, 0, 0)
    got = lambda_returns(reward, next_value, never, never, 0.99, 1.0)
    np.testing.assert_allclose(got, [12.66319, 11.781, 11.9], rtol=1e-6)


def test_n_step_returns_are_lambda_1_over_windows_of_n():
    next_value, terminated = jnp.arange(10.0, 60.0, 10.0), bools(0, 1, 0, 0, 0)
    steps = jnp.ones(5), next_value, terminated, bools(0, 0, 0, 0, 0)
    windows = [[x[t : t + 3] for x in steps] for t in range(5)]
    got = [lambda_returns(*window, 0.9, 1.0)[0] for window in windows]
    np.testing.assert_allclose(got, [1.9, 1.0, 39.16, 42.4, 46.0], rtol=1e-6)


# Oracles: the forward view, by loops in float64, which share no recursion with the code.


def forward_gae(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    delta = reward + gamma * (1 - terminated) * next_value - value
    advantage = np.zeros(reward.shape)
    for t in range(len(reward)):
        for b in range(reward.shape[1]):
            for k in range(t, len(reward)):
                advantage[t, b] += (gamma * gae_lambda) ** (k - t) * delta[k, b]
                if terminated[k, b] or truncated[k, b]:
                    break
    return advantage


def forward_lambda_returns(reward, next_value, terminated, truncated, gamma, trace_lambda):
    """Sutton and Barto (2018), eq. 12.3: (1 - lambda) sum_n lambda^(n-1) G_{t:t+n}."""
    out = np.zeros(reward.shape)
    for t in range(len(reward)):
        for b in range(reward.shape[1]):
            total, remaining = 0.0, 1.0
            for k in range(t, len(reward)):
                total += gamma ** (k - t) * reward[k, b]
                bootstrap = gamma ** (k - t + 1) * (1 - terminated[k, b]) * next_value[k, b]
                last = terminated[k, b] or truncated[k, b] or k == len(reward) - 1
                weight = remaining if last else remaining * (1 - trace_lambda)
                out[t, b] += weight * (total + bootstrap)
                remaining -= weight
                if last:
                    break
    return out


fractions = st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0])
seeds = st.integers(0, 2**32 - 1)
lengths = st.sampled_from([1, 2, 9])


def trajectory(seed, length, truncating=True):
    """Random rewards, values and ends, `[length, 3]`, as float64."""
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, length, 3))
    end = rng.random((length, 3))
    terminated, truncated = end < 0.2, (end > 0.8) & truncating
    return reward, value, next_value, terminated, truncated


def on_device(*arrays):
    return [jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else x.dtype) for x in arrays]


@given(seeds, lengths, fractions, fractions)
def test_gae_equals_the_forward_view(seed, length, gamma, gae_lambda):
    steps = trajectory(seed, length)
    expected = forward_gae(*steps, gamma, gae_lambda)
    advantage, target = gae(*on_device(*steps), gamma, gae_lambda)
    np.testing.assert_allclose(advantage, expected, atol=1e-5)
    np.testing.assert_allclose(target, expected + steps[1], atol=1e-5)


@given(seeds, lengths, fractions, fractions)
def test_lambda_returns_equal_the_forward_view(seed, length, gamma, trace_lambda):
    reward, _, next_value, terminated, truncated = trajectory(seed, length)
    steps = reward, next_value, terminated, truncated
    expected = forward_lambda_returns(*steps, gamma, trace_lambda)
    got = lambda_returns(*on_device(*steps), gamma, trace_lambda)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@given(seeds, lengths, fractions)
def test_lambda_0_gives_the_td_error(seed, length, gamma):
    steps = trajectory(seed, length)
    reward, value, next_value, terminated, truncated = steps
    target = reward + gamma * np.where(terminated, 0, next_value)
    advantage, _ = gae(*on_device(*steps), gamma, 0.0)
    np.testing.assert_allclose(advantage, target - value, atol=1e-5)
    got = lambda_returns(*on_device(reward, next_value, terminated, truncated), gamma, 0.0)
    np.testing.assert_allclose(got, target, atol=1e-5)


@given(seeds, lengths, fractions, fractions)
def test_gae_targets_equal_lambda_returns(seed, length, gamma, gae_lambda):
    """For consistent values of obs and next_obs; so lambda 1 gives the return minus the value."""
    reward, value, next_value, terminated, truncated = trajectory(seed, length)
    inside = ~(terminated | truncated)[:-1]
    next_value[:-1] = np.where(inside, value[1:], next_value[:-1])
    steps = on_device(reward, value, next_value, terminated, truncated)
    for trace_lambda in (gae_lambda, 1.0):
        advantage, target = gae(*steps, gamma, trace_lambda)
        got = lambda_returns(steps[0], *steps[2:], gamma, trace_lambda)
        np.testing.assert_allclose(target, got, atol=1e-5)
        np.testing.assert_allclose(advantage, got - steps[1], atol=1e-5)


# rlax has single sequences and no truncation; its episodes end by a discount of 0.


@given(seed=seeds, gamma=fractions, gae_lambda=fractions)
def test_gae_equals_that_of_rlax(rlax, seed, gamma, gae_lambda):
    reward, _, _, terminated, truncated = trajectory(seed, 9, truncating=False)
    values = np.random.default_rng(seed).normal(size=(10, 3))
    steps = on_device(reward, values[:-1], values[1:], terminated, truncated)
    advantage, _ = gae(*steps, gamma, gae_lambda)
    discount, values = on_device(gamma * (1.0 - terminated), values)
    expected = rlax.gae(steps[0], discount, gae_lambda, values)
    np.testing.assert_allclose(advantage, expected, atol=1e-5)


@given(seed=seeds, gamma=fractions, trace_lambda=fractions)
def test_lambda_returns_equal_those_of_rlax(rlax, seed, gamma, trace_lambda):
    reward, _, next_value, terminated, truncated = trajectory(seed, 9, truncating=False)
    steps = on_device(reward, next_value, terminated, truncated)
    (discount,) = on_device(gamma * (1.0 - terminated))
    got = lambda_returns(*steps, gamma, trace_lambda)
    expected = rlax.lambda_returns(steps[0], discount, steps[1], trace_lambda)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_gamma_and_lambda_may_be_batched():
    steps = on_device(*trajectory(0, 9))
    gammas, lambdas = jnp.array([0.0, 0.9, 1.0]), jnp.array([0.5, 0.0, 1.0])
    many, _ = jax.vmap(partial(returns.gae, *steps))(gammas, lambdas)
    for i in range(3):
        one, _ = gae(*steps, gammas[i], lambdas[i])
        np.testing.assert_allclose(many[i], one, atol=1e-6)


# Discounted sums of the past


def test_discounted_sums_by_hand():
    reward, done = jnp.array([1.0, 2.0, 3.0, 4.0])[:, None], bools(0, 1, 0, 0)[:, None]
    sums, last = discounted_sums(reward, done, 0.5, jnp.array([8.0]))
    np.testing.assert_allclose(sums[:, 0], [5.0, 4.5, 3.0, 5.5])
    np.testing.assert_allclose(last, [5.5])


def test_discounted_sums_are_reset_at_the_end_of_an_episode():
    sums, last = discounted_sums(jnp.ones((2, 1)), bools(0, 1)[:, None], 0.5, jnp.zeros(1))
    np.testing.assert_allclose(sums[:, 0], [1.0, 1.5])
    np.testing.assert_array_equal(last, [0.0])


@given(seeds, fractions, st.sampled_from([1, 5, 8]))
def test_discounted_sums_continue_from_one_trajectory_to_the_next(seed, gamma, cut):
    reward, _, _, terminated, truncated = trajectory(seed, 9)
    done = terminated | truncated
    expected, total = np.zeros((9, 3)), np.zeros(3)
    for t in range(9):
        expected[t] = total = reward[t] + gamma * total
        total = np.where(done[t], 0, total)
    reward, done = on_device(reward, done)
    first, carried = discounted_sums(reward[:cut], done[:cut], gamma, jnp.zeros(3))
    second, last = discounted_sums(reward[cut:], done[cut:], gamma, carried)
    np.testing.assert_allclose(jnp.concatenate([first, second]), expected, atol=1e-5)
    np.testing.assert_allclose(last, total, atol=1e-5)


def test_episode_times_count_from_the_start_of_each_episode():
    done = jnp.array([[0, 1], [1, 0], [0, 0], [0, 1]], bool)
    times, last = returns.episode_times(done, jnp.array([3, 0]))
    np.testing.assert_array_equal(times, [[3, 0], [4, 0], [0, 1], [1, 2]])
    np.testing.assert_array_equal(last, [2, 0])
    again, _ = returns.episode_times(done[:1], last)
    np.testing.assert_array_equal(again, [[2, 0]])
