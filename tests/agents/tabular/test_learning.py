"""Learning in small environments: means over many runs beside published or exact numbers.

`benchmarks/sutton_barto.py` has more of them, with their sources.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents import AGENTS
from rljax.config import field_types
from rljax.envs import build
from rljax.training.episodes import learn_episodes
from rljax.training.evaluate import evaluate
from rljax.training.learner import make_learner, train

CONTROL = [name for name, row in AGENTS.items() if row.tabular and hasattr(row.config, "eps_start")]

QUICK = ("q_learning", "sarsa", "dyna_q")  # tests of the others are marked slow


def make(name, env_id, env_params=None, **options):
    row = AGENTS[name]
    env = build(env_id, 1, **(env_params or {}))
    options = {"total_timesteps": 10**6} | options
    known = {k: v for k, v in options.items() if k in field_types(row.config)}
    agent = row.make(row.config(**known), env.spec)
    return agent, env, make_learner(agent, env, 1)


def learn(name, env_id, num_runs, num_episodes, record=lambda state: (), **options):
    """Returns the first training episodes of many runs."""
    learner = make(name, env_id, **options)[-1]
    keys = jax.random.split(jax.random.key(0), num_runs)
    run = jax.jit(lambda keys: learn_episodes(learner, keys, num_episodes, record=record))
    episodes = run(keys)
    assert (episodes.num_finished >= num_episodes).all()
    return episodes


def test_q_learning_on_treasure():
    episodes = learn(
        "q_learning", "rljax/Treasure", 400, 13, gamma=0.9, learning_rate=0.1,
        record=lambda state: state.agent.params.q[4, 1],
    )  # fmt: skip
    np.testing.assert_allclose(episodes.recorded[:, -1], 1 - 0.9**13, rtol=1e-5)
    assert 5.4 < episodes.lengths[:, 5:].mean() < 5.6
    np.testing.assert_allclose(episodes.lengths[:, 0].mean(), 29.7, atol=3)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in CONTROL]
)
def test_control_finds_the_shortest_paths(name):
    """The greedy policy takes a shortest path to the goal in 20 of 20 runs.

    Optimistic initial values keep Sarsa from avoiding the goal for fear of the pits beside it (see
    `test_sarsa_avoids_the_pits`). Epsilon is annealed to 0, so Sarsa learns an optimal policy.
    """
    for env_id, steps, shortest in (("rljax/Treasure", 3000, 5), ("rljax/Maze", 20_000, 6)):
        agent, env, learner = make(
            name, env_id, total_timesteps=steps, gamma=0.9, learning_rate=0.1, initial_value=1.0,
            eps_start=0.3, eps_end=0.0, exploration_fraction=0.9,
            env_params={"max_episode_steps": 100},
        )  # fmt: skip

        def run(key, agent=agent, env=env, learner=learner, steps=steps):
            state, _ = train(learner, key, steps)
            return evaluate(agent, env, state.agent, key, max_steps=50)

        evaluation = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 20))
        assert (evaluation.returns == 1).all(), env_id
        assert (evaluation.lengths == shortest).all(), env_id


@pytest.mark.slow
def test_sarsa_avoids_the_pits():
    """With a small step size Sarsa keeps away from the pits, and so from the goal between them."""
    success = {}
    for name in ("q_learning", "sarsa"):
        options = {"gamma": 0.9, "learning_rate": 0.01, "env_params": {"max_episode_steps": 500}}
        episodes = learn(name, "rljax/Maze", 60, 100, **options)
        agent, env, _ = make(name, "rljax/Maze", **options)
        keys = jax.random.split(jax.random.key(1), 60)

        def greedy_return(state, key, agent=agent, env=env):
            return evaluate(agent, env, state, key, max_steps=20).returns.mean()

        returns = jax.jit(jax.vmap(greedy_return))(episodes.state.agent, keys)
        success[name] = (returns > 0).mean()
        success[name, "training"] = (episodes.returns[:, -10:] > 0).mean()
    assert success["q_learning"] == 1
    assert success["sarsa"] < 0.9
    np.testing.assert_allclose(success["q_learning", "training"], 0.945, atol=0.03)


def test_cliff_walking():
    """Example 6.6: Q-learning has a lower online return than Sarsa and Expected Sarsa."""
    mean_return = {}
    for name in ("q_learning", "sarsa", "expected_sarsa"):
        episodes = learn(name, "rljax/CliffWalking", 100, 500, gamma=1.0, learning_rate=0.5)
        mean_return[name] = episodes.returns[:, -100:].mean()
    np.testing.assert_allclose(mean_return["q_learning"], -49.3, atol=3)
    np.testing.assert_allclose(mean_return["sarsa"], -27.0, atol=3)
    np.testing.assert_allclose(mean_return["expected_sarsa"], -20.95, atol=1)


@pytest.mark.slow
def test_dyna_maze():
    """Example 8.1: planning steps reduce the number of environment steps."""
    totals = [
        learn(
            "dyna_q", "rljax/DynaMaze", 30, 50, planning_steps=n, gamma=0.95, learning_rate=0.1
        ).lengths[:, 1:].sum(axis=1).mean()
        for n in (0, 5, 50)
    ]  # fmt: skip
    np.testing.assert_allclose(totals, [4233, 1026, 843], rtol=0.15)


def test_random_walk():
    """The 19-state random walk (example 7.1): RMS error over the first 10 episodes."""
    true_values = jnp.arange(-9, 10) / 10

    def rms_error(state):
        return jnp.sqrt(jnp.square(state.agent.params.v[1:-1] - true_values).mean())

    def check(name, expected, tolerance, **options):
        episodes = learn(name, "rljax/RandomWalk", 600, 10, gamma=1.0, record=rms_error, **options)
        np.testing.assert_allclose(episodes.recorded.mean(), expected, atol=tolerance)

    check("n_step_td", 0.2619, 0.012, n_step=4, learning_rate=0.4)
    check("lambda_return", 0.2595, 0.012, trace_lambda=0.8, learning_rate=0.4)
    check("td_lambda", 0.268, 0.02, trace_lambda=0.8, learning_rate=0.27)
    check("true_online_td_lambda", 0.278, 0.02, trace_lambda=0.8, learning_rate=0.27)
