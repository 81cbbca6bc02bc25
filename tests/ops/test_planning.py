"""Planning against brute force in numpy, and the exact values of all environments."""

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


def random_model(seed=0, num_states=4, num_actions=3):
    """Returns a dense random model; steps into the last two states may terminate."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(num_states), (num_states, num_actions))
    reward = rng.normal(size=(num_states, num_actions))
    terminated = np.zeros(transition.shape)
    terminated[..., -2:] = [0.5, 1.0]
    return Model(transition, reward, terminated, np.full(num_states, 1 / num_states))


def value_of(model, policy, gamma, sweeps=3000):
    """Returns the value of a policy by sweeps in numpy."""
    continuing = model.transition * (1 - model.terminated)
    transition = np.einsum("sa,sat->st", policy, continuing)
    reward = (policy * model.reward).sum(axis=1)
    value = np.zeros(len(reward))
    for _ in range(sweeps):
        value = reward + gamma * transition @ value
    return value


def deterministic_policies(num_states, num_actions):
    for actions in itertools.product(range(num_actions), repeat=num_states):
        yield np.eye(num_actions)[list(actions)]


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_policy_evaluation(gamma):
    model = random_model()
    policy = np.random.default_rng(1).dirichlet(np.ones(3), 4)
    expected = value_of(model, policy, gamma)
    value = planning.policy_evaluation(model, jnp.asarray(policy), gamma)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    value, count = planning.iterative_policy_evaluation(model, jnp.asarray(policy), gamma)
    np.testing.assert_allclose(value, expected, atol=1e-8)
    assert 1 <= count < 1000
    value = planning.evaluation_sweep(model, policy, jnp.asarray(expected), gamma)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("gamma", [0.8, 1.0])
def test_solutions_are_optimal_among_all_policies(gamma, epsilon):
    model = random_model(2)
    policies = [(1 - epsilon) * each + epsilon / 3 for each in deterministic_policies(4, 3)]
    values = np.stack([value_of(model, policy, gamma, 500) for policy in policies])
    best_value = values.max(axis=0)
    best_policy = policies[int(values.sum(axis=1).argmax())]
    for solve in (planning.value_iteration, planning.policy_iteration):
        solution = jax.jit(solve)(model, gamma, epsilon)
        np.testing.assert_allclose(solution.value, best_value, atol=1e-8)
        np.testing.assert_allclose(solution.policy, best_policy, atol=1e-12)
        continuing = model.transition * (1 - model.terminated)
        q = model.reward + gamma * np.einsum("sat,t->sa", continuing, best_value)
        np.testing.assert_allclose(solution.q, q, atol=1e-8)
    assert solution.num_iterations <= 6


def test_optimal_values_of_a_finite_horizon():
    model = random_model(3)
    continuing = model.transition * (1 - model.terminated)

    def best(state, steps_left):
        if not steps_left:
            return 0.0
        q = [
            model.reward[state, action]
            + 0.9 * sum(continuing[state, action, s] * best(s, steps_left - 1) for s in range(4))
            for action in range(3)
        ]
        return max(q)

    value = planning.finite_horizon(model, 3, 0.9)
    expected = [[best(state, steps_left) for state in range(4)] for steps_left in range(4)]
    np.testing.assert_allclose(value, expected, atol=1e-12)
    policy = jnp.full((4, 3), 1 / 3)
    value = planning.finite_horizon(model, 5, 0.9, policy)
    np.testing.assert_allclose(value[-1], value_of(model, np.asarray(policy), 0.9, 5), atol=1e-12)


def test_greedy_and_epsilon_soft_policies():
    q = jnp.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [3.0, 2.9, 1.0]])
    third = 1 / 3
    np.testing.assert_allclose(
        planning.greedy(q), [[0, 0.5, 0.5], [third, third, third], [1, 0, 0]]
    )
    np.testing.assert_allclose(planning.greedy(q, 0.2)[2], [0.5, 0.5, 0])
    np.testing.assert_allclose(planning.epsilon_soft(planning.greedy(q), 0.3)[2], [0.8, 0.1, 0.1])
    np.testing.assert_allclose(planning.epsilon_greedy_value(q, 0.3)[0], 0.7 * 2 + 0.1 * 5)
    improved = planning.policy_improvement(jnp.eye(3), q)
    np.testing.assert_allclose(improved, [[0, 1, 0], [0, 1, 0], [1, 0, 0]])


def corridor():
    """Returns a model in which state 0 is terminal and state 2 is never left.

    Action 0 leads from state 1 to 0, action 1 stays in 1. From 3 both lead to 1 or 2.
    """
    transition = np.zeros((4, 2, 4))
    for s, a, next_s in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1), (2, 0, 2), (2, 1, 2)]:
        transition[s, a, next_s] = 1
    transition[3, :, 1:3] = 0.5
    terminated = np.zeros_like(transition)
    terminated[..., 0] = 1
    reward = np.full((4, 2), -1.0)
    return Model(transition, reward, terminated, np.eye(4)[3])


def test_values_are_nan_where_an_undiscounted_episode_may_never_end():
    model, policy = corridor(), jnp.full((4, 2), 0.5)
    value = planning.policy_evaluation(model, policy, 1.0)
    np.testing.assert_allclose(value, [-1, -2, np.nan, np.nan])
    np.testing.assert_allclose(planning.expected_steps(model, policy), [1, 2, np.inf, np.inf])
    discounted = planning.policy_evaluation(model, policy, 0.5)
    np.testing.assert_allclose(discounted, value_of(model, np.asarray(policy), 0.5))
    solution = planning.policy_iteration(model, 1.0)
    np.testing.assert_allclose(solution.value, [-1, -1, np.nan, np.nan])
    np.testing.assert_allclose(solution.policy[1], [1, 0])
    target = np.array([True, False, False, False])
    probability = planning.reach_probability(model, policy, target)
    np.testing.assert_allclose(probability, [1, 1, 0, 0.5])
    assert not planning.reach_probability(model, policy, target & False).any()


def test_solvers_converge_in_float32():
    with jax.enable_x64(False):
        for name, gamma in (("FrozenLake8x8", 0.99), ("WindyGridworld", 1.0), ("Maze", 0.9)):
            model = worlds.model(name)
            by_value, by_policy = (
                jax.jit(solve)(model, gamma)
                for solve in (planning.value_iteration, planning.policy_iteration)
            )
            assert by_value.value.dtype == jnp.float32
            np.testing.assert_allclose(by_value.value, by_policy.value, rtol=1e-3, atol=1e-4)
            assert by_policy.num_iterations < 100


# The exact values of all environments, to six decimal places.

assert_exact = partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
policy_iteration = jax.jit(planning.policy_iteration)
value_iteration = jax.jit(planning.value_iteration)
policy_evaluation = jax.jit(planning.policy_evaluation)
expected_steps = jax.jit(planning.expected_steps)
reach_probability = jax.jit(planning.reach_probability)
finite_horizon = jax.jit(planning.finite_horizon, static_argnums=1)


def at_start(model, value):
    return float(model.start @ np.asarray(value))


def random_policy(model):
    return np.full(model.reward.shape, 1 / model.reward.shape[1])


def test_treasure():
    model = worlds.model("Treasure")
    for solve in (policy_iteration, value_iteration):
        q = solve(model, 0.9).q[:5]
        assert_exact(q[:, 1], [0.6561, 0.729, 0.81, 0.9, 1])
        assert_exact(q[:, 0], [0.59049, 0.59049, 0.6561, 0.729, 0.81])
    assert_exact(at_start(model, expected_steps(model, random_policy(model))), 30)
    policy = planning.epsilon_soft(policy_iteration(model, 0.9).policy, 0.1)
    assert_exact(at_start(model, expected_steps(model, policy)), 5.493827)


def test_maze():
    model = worlds.model("Maze")
    best = value_iteration(model, 0.9)
    expected = [
        [0.59049, 0.6561, 0.729, 0.81], [0.6561, 0.59049, 0, 0.9], [0.729, 0, 0, 1],
        [0.81, 0.9, 1, 0.9],
    ]  # fmt: skip
    assert_exact(best.value.reshape(4, 4), expected)
    assert_exact(at_start(model, expected_steps(model, best.policy)), 6)
    goal = np.arange(16) == 10
    assert_exact(at_start(model, reach_probability(model, random_policy(model), goal)), 0.0487805)
    assert_exact(at_start(model, expected_steps(model, random_policy(model))), 11.707317)
    policy = planning.epsilon_soft(best.policy, 0.1)
    probability = at_start(model, reach_probability(model, policy, goal))
    np.testing.assert_allclose(probability, 0.94538, atol=5e-6)
    np.testing.assert_allclose(at_start(model, expected_steps(model, policy)), 6.475, atol=5e-4)


def test_maze_dqn():
    """The optimal epsilon-soft policy goes down first; for the optimal policy right is as good."""
    model, goal = worlds.model("MazeDQN"), np.arange(16) == 10
    best, soft = value_iteration(model, 0.9), policy_iteration(model, 0.9, 0.1)
    assert_exact(at_start(model, best.value), 0.729)
    assert_exact(at_start(model, expected_steps(model, best.policy)), 4)
    assert_exact(best.q[0], [0.6561, 0.729, 0.729, 0.6561])
    near = partial(np.testing.assert_allclose, atol=5e-6)
    near(at_start(model, soft.value), 0.69629)
    near(soft.q[0, 1:3], [0.70099, 0.66155])
    near(at_start(model, reach_probability(model, soft.policy, goal)), 0.99797)
    policy = planning.epsilon_soft(best.policy, 0.1)
    near(at_start(model, policy_evaluation(model, policy, 0.9)), 0.66817)
    near(at_start(model, reach_probability(model, policy, goal)), 0.97939)


def along_row(row):
    """Returns the policy of the cliff that goes right along a row, and to this row from others."""
    actions = np.zeros((4, 12), int)
    actions[:row] = 1
    actions[row] = 2
    actions[:, 11] = 1
    return np.eye(4)[actions.ravel()]


def test_cliff_walking():
    model = worlds.model("CliffWalking")
    for solve in (policy_iteration, value_iteration):
        assert_exact(at_start(model, solve(model, 1.0).value), -13)
    for row, steps, expected in ((2, 13, -51.81), (1, 15, -21.05), (0, 17, -22.27)):
        policy = jnp.asarray(along_row(row))
        assert_exact(at_start(model, policy_evaluation(model, policy, 1.0)), -steps)
        value = policy_evaluation(model, planning.epsilon_soft(policy, 0.1), 1.0)
        np.testing.assert_allclose(at_start(model, value), expected, atol=5e-3)
    for solve in (policy_iteration, value_iteration):
        value = at_start(model, solve(model, 1.0, 0.1).value)
        np.testing.assert_allclose(value, -20.708, atol=5e-4)


def test_windy_gridworld():
    model = worlds.model("WindyGridworld")
    assert_exact(at_start(model, policy_iteration(model, 1.0).value), -15)
    value = at_start(model, policy_iteration(model, 1.0, 0.1).value)
    np.testing.assert_allclose(value, -17.048, atol=5e-4)
    for moves in (8, 9):  # exercise 6.9: staying does not help
        model = worlds.model("WindyGridworld", moves=moves)
        assert_exact(at_start(model, policy_iteration(model, 1.0).value), -7)


def test_dyna_maze():
    model = worlds.model("DynaMaze")
    best = value_iteration(model, 0.95)
    assert_exact(at_start(model, best.value), 0.95**13)
    assert_exact(at_start(model, best.value), 0.513342)
    assert_exact(at_start(model, expected_steps(model, best.policy)), 14)
    steps = at_start(model, expected_steps(model, planning.epsilon_soft(best.policy, 0.1)))
    np.testing.assert_allclose(steps, 15.878, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "before", "after"), [("BlockingMaze", 10, 16), ("ShortcutMaze", 16, 10)]
)
def test_changing_mazes(name, before, after):
    for change_at, expected in ((1, before), (0, after)):
        model = worlds.model(name, change_at=change_at)
        policy = policy_iteration(model, 0.95).policy
        assert_exact(at_start(model, expected_steps(model, policy)), expected)


def test_short_corridor():
    model = worlds.model("ShortCorridor")

    def value(right):
        policy = np.tile([1 - right, right], (4, 1))
        return at_start(model, policy_evaluation(model, policy, 1.0))

    best = 2 - np.sqrt(2)
    np.testing.assert_allclose(value(best), -11.65685, atol=5e-6)
    np.testing.assert_allclose([value(0.05), value(0.95)], [-82.105, -44.211], atol=5e-4)
    grid = np.linspace(0.5, 0.7, 201)
    assert abs(grid[np.argmax([value(right) for right in grid])] - best) < 1e-3
    assert value(best) > max(value(best - 1e-4), value(best + 1e-4))


@pytest.mark.parametrize(
    ("name", "limit", "undiscounted", "optimal", "stationary", "discounted", "deterministic"),
    [
        ("FrozenLake", 100, 0.8235294, 0.74419, 0.74016, 0.542026, 0.950990),
        ("FrozenLake8x8", 200, 1.0, 0.91322, 0.86296, 0.41464, 0.877521),
    ],
)
def test_frozen_lake(name, limit, undiscounted, optimal, stationary, discounted, deterministic):
    """Success within the time limit: `optimal`, and `stationary` of the policy for gamma = 0.99."""
    model = worlds.model(name)
    assert_exact(at_start(model, policy_iteration(model, 1.0).value), undiscounted)
    best = policy_iteration(model, 0.99)
    near = partial(np.testing.assert_allclose, atol=5e-6)
    near(at_start(model, finite_horizon(model, limit)[-1]), optimal)
    near(at_start(model, finite_horizon(model, limit, policy=best.policy)[-1]), stationary)
    near(at_start(model, best.value), discounted)
    near(at_start(model, value_iteration(model, 0.99).value), discounted)
    if name == "FrozenLake":
        value = finite_horizon(model, limit, policy=random_policy(model))[-1]
        near(at_start(model, value), 0.01394)
    model = worlds.model(name, slip=0)
    assert_exact(at_start(model, policy_iteration(model, 0.99).value), deterministic)
    assert_exact(at_start(model, finite_horizon(model, limit)[-1]), 1)


def test_random_walk():
    model = worlds.model("RandomWalk")
    value = np.asarray(policy_evaluation(model, random_policy(model), 1.0))
    assert_exact(value[1:20], np.linspace(-0.9, 0.9, 19))
    assert_exact(np.sqrt(np.mean(value[1:20] ** 2)), 0.5477226)
    assert value[0] == value[20] == 0
    five = worlds.model("RandomWalk", length=5, left=0, right=1)
    assert_exact(policy_evaluation(five, random_policy(five), 1.0)[1:6], np.arange(1, 6) / 6)
