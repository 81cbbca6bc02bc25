"""Planning against brute force in numpy, and the exact values of the worlds."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.envs import worlds
from rljax.ops import planning
from rljax.ops.planning import Model

pytestmark = pytest.mark.usefixtures("quick_compiles", "double")


@pytest.fixture(scope="module")
def double():
    with jax.enable_x64(True):
        yield


def some_model(seed=0, num_states=4, num_actions=3):
    """A dense random model; some steps into the last two states end the episode."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(num_states), (num_states, num_actions))
    reward = rng.normal(size=(num_states, num_actions))
    terminated = np.zeros(transition.shape)
    terminated[..., -2:] = [0.5, 1.0]
    return Model(transition, reward, terminated, np.full(num_states, 1 / num_states))


def value_of(model, policy, gamma, sweeps=3000):
    """The value of a policy as a sum of rewards, step by step."""
    going = model.transition * (1 - model.terminated)
    moves, reward = np.einsum("sa,sat->st", policy, going), (policy * model.reward).sum(axis=1)
    value = np.zeros(len(reward))
    for _ in range(sweeps):
        value = reward + gamma * moves @ value
    return value


def deterministic(num_states, num_actions):
    for actions in itertools.product(range(num_actions), repeat=num_states):
        yield np.eye(num_actions)[list(actions)]


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_a_policy_is_worth_what_it_wins(gamma):
    model = some_model()
    policy = np.random.default_rng(1).dirichlet(np.ones(3), 4)
    expected = value_of(model, policy, gamma)
    value = planning.policy_evaluation(model, jnp.asarray(policy), gamma)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    value, count = planning.iterative_policy_evaluation(model, jnp.asarray(policy), gamma)
    np.testing.assert_allclose(value, expected, atol=1e-8)
    assert 1 <= count < 1000
    once = planning.sweep_policy(model, policy, jnp.asarray(expected), gamma)
    np.testing.assert_allclose(once, expected, rtol=1e-10)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("gamma", [0.8, 1.0])
def test_the_best_policy_is_the_best_of_all(gamma, epsilon):
    model = some_model(2)
    kinds = [(1 - epsilon) * one + epsilon / 3 for one in deterministic(4, 3)]
    values = np.stack([value_of(model, kind, gamma, 500) for kind in kinds])
    best = values.max(axis=0)
    winner = kinds[int(values.sum(axis=1).argmax())]
    for solve in (planning.value_iteration, planning.policy_iteration):
        found = jax.jit(solve)(model, gamma, epsilon)
        np.testing.assert_allclose(found.value, best, atol=1e-8)
        np.testing.assert_allclose(found.policy, winner, atol=1e-12)
        going = model.transition * (1 - model.terminated)
        q = model.reward + gamma * np.einsum("sat,t->sa", going, best)
        np.testing.assert_allclose(found.q, q, atol=1e-8)
    assert found.num_iterations <= 6


def test_within_a_limit_the_best_policy_knows_the_time():
    model = some_model(3)
    going = model.transition * (1 - model.terminated)

    def best(state, left):
        if not left:
            return 0.0
        ahead = [
            model.reward[state, action]
            + 0.9 * sum(going[state, action, there] * best(there, left - 1) for there in range(4))
            for action in range(3)
        ]
        return max(ahead)

    value = planning.finite_horizon(model, 3, 0.9)
    expected = [[best(state, left) for state in range(4)] for left in range(4)]
    np.testing.assert_allclose(value, expected, atol=1e-12)
    policy = jnp.full((4, 3), 1 / 3)
    value = planning.finite_horizon(model, 5, 0.9, policy)
    np.testing.assert_allclose(value[-1], value_of(model, np.asarray(policy), 0.9, 5), atol=1e-12)


def test_ties_are_shared():
    q = jnp.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [3.0, 2.9, 1.0]])
    third = 1 / 3
    np.testing.assert_allclose(
        planning.greedy(q), [[0, 0.5, 0.5], [third, third, third], [1, 0, 0]]
    )
    np.testing.assert_allclose(planning.greedy(q, 0.2)[2], [0.5, 0.5, 0])
    np.testing.assert_allclose(planning.soft(planning.greedy(q), 0.3)[2], [0.8, 0.1, 0.1])
    np.testing.assert_allclose(planning.best_soft(q, 0.3)[0], 0.7 * 2 + 0.1 * 5)
    kept = planning.improve(jnp.eye(3), q)
    np.testing.assert_allclose(kept, [[0, 1, 0], [0, 1, 0], [1, 0, 0]])


def corridor():
    """1 is left to 0 (an end) by action 0; action 1 stays. From 2 both stay; 3 leads to 1 or 2."""
    transition = np.zeros((4, 2, 4))
    for state, action, there in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1), (2, 0, 2), (2, 1, 2)]:
        transition[state, action, there] = 1
    transition[3, :, 1:3] = 0.5
    terminated = np.zeros_like(transition)
    terminated[..., 0] = 1
    reward = np.full((4, 2), -1.0)
    return Model(transition, reward, terminated, np.eye(4)[3])


def test_a_policy_that_may_never_end_has_no_value_without_discount():
    model, random = corridor(), jnp.full((4, 2), 0.5)
    value = planning.policy_evaluation(model, random, 1.0)
    np.testing.assert_allclose(value, [-1, -2, np.nan, np.nan])
    np.testing.assert_allclose(planning.expected_steps(model, random), [1, 2, np.inf, np.inf])
    discounted = planning.policy_evaluation(model, random, 0.5)
    np.testing.assert_allclose(discounted, value_of(model, np.asarray(random), 0.5))
    found = planning.policy_iteration(model, 1.0)
    np.testing.assert_allclose(found.value, [-1, -1, np.nan, np.nan])
    np.testing.assert_allclose(found.policy[1], [1, 0])
    target = np.array([True, False, False, False])
    reached = planning.reach_probability(model, random, target)
    np.testing.assert_allclose(reached, [1, 1, 0, 0.5])
    assert not planning.reach_probability(model, random, target & False).any()


def test_in_single_precision_it_ends_as_well():
    with jax.enable_x64(False):
        for name, gamma in (("FrozenLake8x8", 0.99), ("WindyGridworld", 1.0), ("Maze", 0.9)):
            model = worlds.model(name)
            swept, improved = (
                jax.jit(solve)(model, gamma)
                for solve in (planning.value_iteration, planning.policy_iteration)
            )
            assert swept.value.dtype == jnp.float32
            np.testing.assert_allclose(swept.value, improved.value, rtol=1e-3, atol=1e-4)
            assert improved.num_iterations < 100


# The exact values of the worlds, to six places.

EXACT = partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
BEST = jax.jit(planning.policy_iteration)
SWEPT = jax.jit(planning.value_iteration)
EVALUATE = jax.jit(planning.policy_evaluation)
STEPS = jax.jit(planning.expected_steps)
REACH = jax.jit(planning.reach_probability)
HORIZON = jax.jit(planning.finite_horizon, static_argnums=1)


def at_start(model, value):
    return float(model.start @ np.asarray(value))


def random_policy(model):
    return np.full(model.reward.shape, 1 / model.reward.shape[1])


def test_treasure():
    model = worlds.model("Treasure")
    for solve in (BEST, SWEPT):
        q = solve(model, 0.9).q[:5]
        EXACT(q[:, 1], [0.6561, 0.729, 0.81, 0.9, 1])
        EXACT(q[:, 0], [0.59049, 0.59049, 0.6561, 0.729, 0.81])
    EXACT(at_start(model, STEPS(model, random_policy(model))), 30)
    policy = planning.soft(BEST(model, 0.9).policy, 0.1)
    EXACT(at_start(model, STEPS(model, policy)), 5.493827)


def test_maze():
    model = worlds.model("Maze")
    best = SWEPT(model, 0.9)
    expected = [
        [0.59049, 0.6561, 0.729, 0.81], [0.6561, 0.59049, 0, 0.9], [0.729, 0, 0, 1],
        [0.81, 0.9, 1, 0.9],
    ]  # fmt: skip
    EXACT(best.value.reshape(4, 4), expected)
    EXACT(at_start(model, STEPS(model, best.policy)), 6)
    goal = np.arange(16) == 10
    EXACT(at_start(model, REACH(model, random_policy(model), goal)), 0.0487805)
    EXACT(at_start(model, STEPS(model, random_policy(model))), 11.707317)
    policy = planning.soft(best.policy, 0.1)
    np.testing.assert_allclose(at_start(model, REACH(model, policy, goal)), 0.94538, atol=5e-6)
    np.testing.assert_allclose(at_start(model, STEPS(model, policy)), 6.475, atol=5e-4)


def test_the_other_maze_tells_sarsa_from_q_learning():
    """The best soft policy goes down first; the best of all does not care."""
    model, goal = worlds.model("MazeDQN"), np.arange(16) == 10
    best, soft = SWEPT(model, 0.9), BEST(model, 0.9, 0.1)
    EXACT(at_start(model, best.value), 0.729)
    EXACT(at_start(model, STEPS(model, best.policy)), 4)
    EXACT(best.q[0], [0.6561, 0.729, 0.729, 0.6561])
    np.testing.assert_allclose(at_start(model, soft.value), 0.69629, atol=5e-6)
    np.testing.assert_allclose(soft.q[0, 1:3], [0.70099, 0.66155], atol=5e-6)
    np.testing.assert_allclose(at_start(model, REACH(model, soft.policy, goal)), 0.99797, atol=5e-6)
    policy = planning.soft(best.policy, 0.1)
    np.testing.assert_allclose(at_start(model, EVALUATE(model, policy, 0.9)), 0.66817, atol=5e-6)
    np.testing.assert_allclose(at_start(model, REACH(model, policy, goal)), 0.97939, atol=5e-6)


def along_row(row):
    """The policy of the cliff that walks right along a row, and goes back to it from elsewhere."""
    actions = np.zeros((4, 12), int)
    actions[:row] = 1
    actions[row] = 2
    actions[:, 11] = 1
    return np.eye(4)[actions.ravel()]


def test_cliff_walking():
    model = worlds.model("CliffWalking")
    for solve in (BEST, SWEPT):
        EXACT(at_start(model, solve(model, 1.0).value), -13)
    for row, steps, expected in ((2, 13, -51.81), (1, 15, -21.05), (0, 17, -22.27)):
        policy = along_row(row)
        EXACT(at_start(model, EVALUATE(model, policy, 1.0)), -steps)
        value = at_start(model, EVALUATE(model, planning.soft(jnp.asarray(policy), 0.1), 1.0))
        np.testing.assert_allclose(value, expected, atol=5e-3)
    for solve in (BEST, SWEPT):
        value = at_start(model, solve(model, 1.0, 0.1).value)
        np.testing.assert_allclose(value, -20.708, atol=5e-4)


def test_windy_gridworld():
    model = worlds.model("WindyGridworld")
    EXACT(at_start(model, BEST(model, 1.0).value), -15)
    np.testing.assert_allclose(at_start(model, BEST(model, 1.0, 0.1).value), -17.048, atol=5e-4)
    for moves in (8, 9):  # exercise 6.9: staying is no use
        EXACT(at_start(model, BEST(worlds.model("WindyGridworld", moves=moves), 1.0).value), -7)


def test_dyna_maze():
    model = worlds.model("DynaMaze")
    best = SWEPT(model, 0.95)
    EXACT(at_start(model, best.value), 0.95**13)
    EXACT(at_start(model, best.value), 0.513342)
    EXACT(at_start(model, STEPS(model, best.policy)), 14)
    steps = at_start(model, STEPS(model, planning.soft(best.policy, 0.1)))
    np.testing.assert_allclose(steps, 15.878, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "before", "after"), [("BlockingMaze", 10, 16), ("ShortcutMaze", 16, 10)]
)
def test_mazes_that_change(name, before, after):
    for change_at, expected in ((1, before), (0, after)):
        model = worlds.model(name, change_at=change_at)
        EXACT(at_start(model, STEPS(model, BEST(model, 0.95).policy)), expected)


def test_short_corridor():
    model = worlds.model("ShortCorridor")

    def value(right):
        policy = np.tile([1 - right, right], (4, 1))
        return at_start(model, EVALUATE(model, policy, 1.0))

    best = 2 - np.sqrt(2)
    np.testing.assert_allclose(value(best), -11.65685, atol=5e-6)
    np.testing.assert_allclose([value(0.05), value(0.95)], [-82.105, -44.211], atol=5e-4)
    grid = np.linspace(0.5, 0.7, 201)
    assert abs(grid[np.argmax([value(right) for right in grid])] - best) < 1e-3
    assert value(best) > max(value(best - 1e-4), value(best + 1e-4))


@pytest.mark.parametrize(
    ("name", "limit", "free", "within", "stationary", "discounted", "sure"),
    [
        ("FrozenLake", 100, 0.8235294, 0.74419, 0.74016, 0.542026, 0.950990),
        ("FrozenLake8x8", 200, 1.0, 0.91322, 0.86296, 0.41464, 0.877521),
    ],
)
def test_frozen_lake(name, limit, free, within, stationary, discounted, sure):
    model = worlds.model(name)
    EXACT(at_start(model, BEST(model, 1.0).value), free)
    best = BEST(model, 0.99)
    near = partial(np.testing.assert_allclose, atol=5e-6)
    near(at_start(model, HORIZON(model, limit)[-1]), within)
    near(at_start(model, HORIZON(model, limit, policy=best.policy)[-1]), stationary)
    near(at_start(model, best.value), discounted)
    near(at_start(model, SWEPT(model, 0.99).value), discounted)
    if name == "FrozenLake":
        near(at_start(model, HORIZON(model, limit, policy=random_policy(model))[-1]), 0.01394)
    model = worlds.model(name, slip=0)
    EXACT(at_start(model, BEST(model, 0.99).value), sure)
    EXACT(at_start(model, HORIZON(model, limit)[-1]), 1)


def test_random_walk():
    model = worlds.model("RandomWalk")
    value = np.asarray(EVALUATE(model, random_policy(model), 1.0))
    EXACT(value[1:20], np.linspace(-0.9, 0.9, 19))
    EXACT(np.sqrt(np.mean(value[1:20] ** 2)), 0.5477226)
    assert value[0] == value[20] == 0
    five = worlds.model("RandomWalk", length=5, left=0, right=1)
    EXACT(EVALUATE(five, random_policy(five), 1.0)[1:6], np.arange(1, 6) / 6)
