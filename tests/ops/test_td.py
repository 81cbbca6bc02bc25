"""Targets, losses and epsilon-greedy against numbers worked by hand, rlax, and float64 loops."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.ops import td

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def rlax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports use deprecated names
        return pytest.importorskip("rlax")


ONLINE, TARGET = jnp.array([1.0, 3.0, 2.0]), jnp.array([5.0, 1.5, 4.0])


def target_of(bootstrap, online=ONLINE, target=TARGET):
    value = td.chosen(target, bootstrap(online, target))
    return td.td_target(jnp.float32(0.5), jnp.bool_(False), 0.9, value)


def test_the_roles_of_the_two_networks():
    """K15, with the figures of the usual mistakes: swapped 1.4, both online 3.2."""
    np.testing.assert_allclose(target_of(td.select_max_action), 5.0)
    np.testing.assert_allclose(target_of(td.select_double_action), 1.85)
    np.testing.assert_allclose(target_of(td.select_double_action, TARGET, ONLINE), 1.4, rtol=1e-6)
    np.testing.assert_allclose(target_of(td.select_double_action, ONLINE, ONLINE), 3.2, rtol=1e-6)


def test_targets_are_those_of_rlax(rlax):
    rng = np.random.default_rng(0)
    q, online, target = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(3, 16, 5)))
    action, reward = jnp.asarray(rng.integers(5, size=16)), jnp.asarray(rng.normal(size=16), "f4")
    terminated = jnp.asarray(rng.random(16) < 0.4)
    discount = 0.9 * (1.0 - terminated)
    for bootstrap, expected in (
        (td.select_max_action, jax.vmap(rlax.q_learning)(q, action, reward, discount, target)),
        (
            td.select_double_action,
            jax.vmap(rlax.double_q_learning)(q, action, reward, discount, target, online),
        ),
    ):
        goal = td.td_target(reward, terminated, 0.9, td.chosen(target, bootstrap(online, target)))
        np.testing.assert_allclose(goal - td.chosen(q, action), expected, rtol=1e-5, atol=1e-6)


def test_only_death_ends_the_value():
    """K1, K24: a time limit is no argument at all; a boolean becomes 0.0, not an integer."""
    alive, dead = jnp.bool_(False), jnp.bool_(True)
    one, ten = jnp.float32(1), jnp.float32(10)
    assert td.td_target(one, alive, 0.9, ten) == 10.0
    assert td.td_target(one, dead, 0.9, ten) == 1.0
    assert td.td_target(one, dead, 0.9, jnp.float32(jnp.inf)) == 1.0
    assert td.td_target(one, dead, 0.9, ten).dtype == jnp.float32


@pytest.mark.parametrize("trailing", [(), (3,)])
def test_chosen_gathers(trailing):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4, 2, 5, *trailing)).astype(np.float32)
    values[0, 0, 4] = np.inf  # what is not chosen does not matter
    action = rng.integers(4, size=(4, 2))
    expected = np.stack([[values[i, j, action[i, j]] for j in range(2)] for i in range(4)])
    np.testing.assert_array_equal(td.chosen(jnp.asarray(values), jnp.asarray(action)), expected)
    slope = jax.grad(lambda x: td.chosen(x, jnp.asarray(action)).sum())(jnp.ones_like(values))
    assert slope.sum() == expected.size


def test_losses():
    """K17: at an error of 3 the Huber loss is 2.5 and its slope 1, not 0."""
    error = jnp.array([3.0, -3.0, 0.5, 0.0, 1.0])
    np.testing.assert_allclose(td.huber(error), [2.5, 2.5, 0.125, 0.0, 0.5])
    np.testing.assert_allclose(jax.vmap(jax.grad(td.huber))(error), [1.0, -1.0, 0.5, 0.0, 1.0])
    np.testing.assert_allclose(td.squared(error), [4.5, 4.5, 0.125, 0.0, 0.5])


def test_importance_weights_by_hand():
    """TARGETS 1.1, row 14: the leaves of the sum tree's picture, and two of its batches."""
    leaves = jnp.array([3.0, 10.0, 12.0, 4.0, 1.0, 2.0, 8.0, 2.0])
    probability = leaves / 42
    least = probability.min()
    expected = [0.6444, 0.3981, 0.3701, 0.5743, 1.0, 0.7579, 0.4353, 0.7579]
    weights = td.importance_weights(probability, least, 0.4)
    np.testing.assert_allclose(weights, expected, atol=5e-5)
    full = td.importance_weights(probability, least, 1.0)
    np.testing.assert_allclose(full, [1 / 3, 0.1, 1 / 12, 0.25, 1, 0.5, 0.125, 0.5], rtol=1e-6)
    f = jnp.arange(8.0)
    unbiased = (probability * full * f).sum() / (8 * least)  # K25h: the mean of f
    np.testing.assert_allclose(unbiased, 3.5, rtol=1e-6)
    assert (td.importance_weights(probability, least, 0.0) == 1.0).all()
    third = jnp.full(4, jnp.float32(1) / 3)
    assert (td.importance_weights(third, third[0], 0.4) == 1.0).all()  # uniform: exactly


def test_epsilon_schedule():
    """K21."""
    steps = jnp.array([0, 500, 1000, 2000])
    np.testing.assert_allclose(
        td.epsilon_schedule(steps, 1.0, 0.05, 1000.0), [1.0, 0.525, 0.05, 0.05], rtol=1e-6
    )
    np.testing.assert_allclose(td.epsilon_schedule(jnp.int32(1), 1.0, 0.05, 0.0), 0.05, rtol=1e-6)


def test_epsilon_greedy_is_greedy_with_the_chance_that_it_should():
    """K14e: 1 - epsilon + epsilon / A = .925 for epsilon .1 and four actions."""
    n = 40_000
    values = jnp.tile(jnp.array([0.0, 2.0, 1.0, -1.0]), (n, 1))
    explore_key, order_key = jax.random.split(jax.random.key(0))
    action = td.epsilon_greedy(
        values, 0.1, jax.random.uniform(explore_key, (n,)), jax.random.uniform(order_key, (n, 4))
    )
    share = np.bincount(action, minlength=4) / n
    error = 4 * np.sqrt(0.925 * 0.075 / n)
    np.testing.assert_allclose(share, [0.025, 0.925, 0.025, 0.025], atol=error)


def test_ties_go_to_each_alike():
    """K14d: 10,000 draws at epsilon 0 among four equal values; and between two of three."""
    n = 10_000
    order = jax.random.uniform(jax.random.key(0), (n, 4))
    never = jnp.ones(n)
    action = td.epsilon_greedy(jnp.zeros((n, 4)), 0.0, never, order)
    np.testing.assert_allclose(np.bincount(action) / n, 0.25, atol=0.02)
    values = jnp.tile(jnp.array([1.0, 0.0, 1.0]), (n, 1))
    action = td.epsilon_greedy(values, 0.0, never, order[:, :3])
    np.testing.assert_allclose(np.bincount(action) / n, [0.5, 0.0, 0.5], atol=0.02)


def test_munchausen_by_hand():
    """K53: q = (1, 1.1), tau .03: log pi, and alpha times the bonus of action 0."""
    values, tau = jnp.array([1.0, 1.1]), 0.03
    log_policy = (values - td.soft_value(values, tau)) / tau
    np.testing.assert_allclose(log_policy, [-3.368386, -0.035052], rtol=1e-4)
    bonus = td.munchausen_bonus(values, jnp.int32(0), tau, -1.0)
    np.testing.assert_allclose(0.9 * bonus, -0.0909464, rtol=1e-5)
    far = jnp.array([0.0, 50.0])  # a log-policy times tau of -50 counts for -1
    assert td.munchausen_bonus(far, jnp.int32(0), tau, -1.0) == -1.0
    q, tau = np.array([0.3, -0.2, 0.5]), 0.7
    policy = np.exp(q / tau) / np.exp(q / tau).sum()
    expected = (policy * (q - tau * np.log(policy))).sum()
    np.testing.assert_allclose(td.soft_value(jnp.asarray(q, "f4"), tau), expected, rtol=1e-6)
