"""TD targets, losses and epsilon-greedy against worked examples, rlax and numpy."""

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


def test_the_target_network_evaluates_and_the_online_network_selects_in_double_dqn():
    """Also the values of the usual mistakes: networks swapped 1.4, online network twice 3.2."""
    np.testing.assert_allclose(target_of(td.select_max_action), 5.0)
    np.testing.assert_allclose(target_of(td.select_double_action), 1.85)
    np.testing.assert_allclose(target_of(td.select_double_action, TARGET, ONLINE), 1.4, rtol=1e-6)
    np.testing.assert_allclose(target_of(td.select_double_action, ONLINE, ONLINE), 3.2, rtol=1e-6)


def test_td_errors_equal_those_of_rlax(rlax):
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
        next_q = td.chosen(target, bootstrap(online, target))
        td_error = td.td_target(reward, terminated, 0.9, next_q) - td.chosen(q, action)
        np.testing.assert_allclose(td_error, expected, rtol=1e-5, atol=1e-6)


def test_terminal_states_are_not_bootstrapped():
    """Whatever their value; the target is float32."""
    ongoing, terminated = jnp.bool_(False), jnp.bool_(True)
    one, ten = jnp.float32(1), jnp.float32(10)
    assert td.td_target(one, ongoing, 0.9, ten) == 10.0
    assert td.td_target(one, terminated, 0.9, ten) == 1.0
    assert td.td_target(one, terminated, 0.9, jnp.float32(jnp.inf)) == 1.0
    assert td.td_target(one, terminated, 0.9, ten).dtype == jnp.float32


@pytest.mark.parametrize("trailing", [(), (3,)])
def test_chosen_is_a_gather(trailing):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4, 2, 5, *trailing)).astype(np.float32)
    values[0, 0, 4] = np.inf  # the value of an action that is not taken
    action = rng.integers(4, size=(4, 2))
    expected = np.stack([[values[i, j, action[i, j]] for j in range(2)] for i in range(4)])
    np.testing.assert_array_equal(td.chosen(jnp.asarray(values), jnp.asarray(action)), expected)
    gradient = jax.grad(lambda x: td.chosen(x, jnp.asarray(action)).sum())(jnp.ones_like(values))
    assert gradient.sum() == expected.size


def test_losses_and_their_gradients():
    """At an error of 3 the Huber loss is 2.5 and its gradient 1, not 0."""
    error = jnp.array([3.0, -3.0, 0.5, 0.0, 1.0])
    np.testing.assert_allclose(td.huber(error), [2.5, 2.5, 0.125, 0.0, 0.5])
    np.testing.assert_allclose(jax.vmap(jax.grad(td.huber))(error), [1.0, -1.0, 0.5, 0.0, 1.0])
    np.testing.assert_allclose(td.squared(error), [4.5, 4.5, 0.125, 0.0, 0.5])


def test_importance_weights_of_a_worked_example():
    """Priorities 3 10 12 4 1 2 8 2 with beta 0.4 and 1."""
    leaves = jnp.array([3.0, 10.0, 12.0, 4.0, 1.0, 2.0, 8.0, 2.0])
    probability = leaves / 42
    smallest = probability.min()
    expected = [0.6444, 0.3981, 0.3701, 0.5743, 1.0, 0.7579, 0.4353, 0.7579]
    weights = td.importance_weights(probability, smallest, 0.4)
    np.testing.assert_allclose(weights, expected, atol=5e-5)
    full = td.importance_weights(probability, smallest, 1.0)
    np.testing.assert_allclose(full, [1 / 3, 0.1, 1 / 12, 0.25, 1, 0.5, 0.125, 0.5], rtol=1e-6)
    f = jnp.arange(8.0)
    unbiased = (probability * full * f).sum() / (8 * smallest)  # the mean of f
    np.testing.assert_allclose(unbiased, 3.5, rtol=1e-6)
    assert (td.importance_weights(probability, smallest, 0.0) == 1.0).all()
    third = jnp.full(4, jnp.float32(1) / 3)
    assert (td.importance_weights(third, third[0], 0.4) == 1.0).all()  # uniform: exactly


def test_epsilon_is_annealed_linearly_and_then_constant():
    steps = jnp.array([0, 500, 1000, 2000])
    np.testing.assert_allclose(
        td.epsilon_schedule(steps, 1.0, 0.05, 1000.0), [1.0, 0.525, 0.05, 0.05], rtol=1e-6
    )
    np.testing.assert_allclose(td.epsilon_schedule(jnp.int32(1), 1.0, 0.05, 0.0), 0.05, rtol=1e-6)


def test_epsilon_greedy_takes_the_greedy_action_with_the_right_probability():
    """1 - epsilon + epsilon / A = 0.925 for epsilon 0.1 and four actions."""
    n = 40_000
    values = jnp.tile(jnp.array([0.0, 2.0, 1.0, -1.0]), (n, 1))
    explore_key, order_key = jax.random.split(jax.random.key(0))
    action = td.epsilon_greedy(
        values, 0.1, jax.random.uniform(explore_key, (n,)), jax.random.uniform(order_key, (n, 4))
    )
    frequency = np.bincount(action, minlength=4) / n
    error = 4 * np.sqrt(0.925 * 0.075 / n)
    np.testing.assert_allclose(frequency, [0.025, 0.925, 0.025, 0.025], atol=error)


def test_ties_are_broken_uniformly():
    """10,000 actions at epsilon 0 with four equal values, and with two of three."""
    n = 10_000
    order = jax.random.uniform(jax.random.key(0), (n, 4))
    no_exploration = jnp.ones(n)
    action = td.epsilon_greedy(jnp.zeros((n, 4)), 0.0, no_exploration, order)
    np.testing.assert_allclose(np.bincount(action) / n, 0.25, atol=0.02)
    values = jnp.tile(jnp.array([1.0, 0.0, 1.0]), (n, 1))
    action = td.epsilon_greedy(values, 0.0, no_exploration, order[:, :3])
    np.testing.assert_allclose(np.bincount(action) / n, [0.5, 0.0, 0.5], atol=0.02)


def test_munchausen_bonus_and_soft_value_of_worked_examples():
    """q = (1, 1.1), tau 0.03: log pi, and alpha times the bonus of action 0."""
    values, tau = jnp.array([1.0, 1.1]), 0.03
    log_policy = (values - td.soft_value(values, tau)) / tau
    np.testing.assert_allclose(log_policy, [-3.368386, -0.035052], rtol=1e-4)
    bonus = td.munchausen_bonus(values, jnp.int32(0), tau, -1.0)
    np.testing.assert_allclose(0.9 * bonus, -0.0909464, rtol=1e-5)
    apart = jnp.array([0.0, 50.0])  # a scaled log-policy of -50 is clipped to -1
    assert td.munchausen_bonus(apart, jnp.int32(0), tau, -1.0) == -1.0
    q, tau = np.array([0.3, -0.2, 0.5]), 0.7
    policy = np.exp(q / tau) / np.exp(q / tau).sum()
    expected = (policy * (q - tau * np.log(policy))).sum()
    np.testing.assert_allclose(td.soft_value(jnp.asarray(q, "f4"), tau), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: td.chosen(jnp.zeros((2, 3)), jnp.zeros((4,), jnp.int32)),
        lambda: td.chosen(jnp.zeros((2, 3)), jnp.zeros(2)),
        lambda: td.chosen(jnp.zeros(2), jnp.zeros(2, jnp.int32)),
        lambda: td.td_target(jnp.zeros(2), jnp.zeros(2, bool), 0.9, jnp.zeros((2, 1))),
        lambda: td.td_target(jnp.zeros(2), jnp.zeros(2), 0.9, jnp.zeros(2)),
        lambda: td.select_max_action(jnp.zeros((2, 3)), jnp.zeros((2, 4))),
        lambda: td.importance_weights(jnp.ones(2), jnp.ones(2), 0.4),
        lambda: td.epsilon_greedy(jnp.zeros((2, 3)), 0.1, jnp.zeros(3), jnp.zeros((2, 3))),
        lambda: td.huber(jnp.zeros(2, jnp.int32)),
    ],
)
def test_wrong_shapes_and_dtypes_are_rejected(call):
    with pytest.raises((AssertionError, ValueError)):
        call()
