"""What tables learn in the worlds of the notes and the textbook: many learners in one call.

`benchmarks/tabular.py` has the figures of which these are the quick ones, and their sources.
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

QUICK = ("q_learning", "sarsa", "dyna_q")  # the others are tested as `slow`


def make(name, env_id, env_params=None, **options):
    row = AGENTS[name]
    env = build(env_id, 1, **(env_params or {}))
    options = {"total_timesteps": 10**6} | options
    known = {k: v for k, v in options.items() if k in field_types(row.config)}
    agent = row.make(row.config(**known), env.spec)
    return agent, env, make_learner(agent, env, 1)


def play(name, env_id, learners, episodes, watch=lambda state: (), **options):
    learner = make(name, env_id, **options)[-1]
    keys = jax.random.split(jax.random.key(0), learners)
    played = jax.jit(lambda keys: learn_episodes(learner, keys, episodes, watch=watch))(keys)
    assert (played.finished >= episodes).all()
    return played


def test_the_treasure_of_the_notes():  # T1
    played = play(
        "q_learning", "rljax/Treasure", 400, 13, gamma=0.9, learning_rate=0.1,
        watch=lambda state: state.agent.params.q[4, 1],
    )  # fmt: skip
    np.testing.assert_allclose(played.seen[:, -1], 1 - 0.9**13, rtol=1e-5)
    assert 5.4 < played.lengths[:, 5:].mean() < 5.6
    np.testing.assert_allclose(played.lengths[:, 0].mean(), 29.7, atol=3)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in CONTROL]
)
def test_everyone_finds_the_treasure_and_paradise(name):
    """20 of 20 learners, greedily and by the shortest way.

    High hopes lead everybody past the pits, where Sarsa with low ones may hide (see below); and
    as chance goes from its actions, what it learns of is the best policy.
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

        seen = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 20))
        assert (seen.returns == 1).all(), env_id
        assert (seen.lengths == shortest).all(), env_id


@pytest.mark.slow
def test_sarsa_hides():  # TARGETS 1.3
    """Sarsa with a small step size fears the pits more than it loves paradise."""
    shares = {}
    for name in ("q_learning", "sarsa"):
        options = {"gamma": 0.9, "learning_rate": 0.01, "env_params": {"max_episode_steps": 500}}
        played = play(name, "rljax/Maze", 60, 100, **options)
        agent, env, _ = make(name, "rljax/Maze", **options)
        keys = jax.random.split(jax.random.key(1), 60)

        def greedily(state, key, agent=agent, env=env):
            return evaluate(agent, env, state, key, max_steps=20).returns.mean()

        shares[name] = (jax.jit(jax.vmap(greedily))(played.state.agent, keys) > 0).mean()
        shares[name, "last"] = (played.returns[:, -10:] > 0).mean()
    assert shares["q_learning"] == 1
    assert shares["sarsa"] < 0.9
    np.testing.assert_allclose(shares["q_learning", "last"], 0.945, atol=0.03)  # T2


def test_the_cliff():  # T5
    """Who learns of the best action walks along the edge, and falls."""
    late = {}
    for name in ("q_learning", "sarsa", "expected_sarsa"):
        played = play(name, "rljax/CliffWalking", 100, 500, gamma=1.0, learning_rate=0.5)
        late[name] = played.returns[:, -100:].mean()
    np.testing.assert_allclose(late["q_learning"], -49.3, atol=3)
    np.testing.assert_allclose(late["sarsa"], -27.0, atol=3)
    np.testing.assert_allclose(late["expected_sarsa"], -20.95, atol=1)


@pytest.mark.slow
def test_planning_saves_steps():  # T11
    totals = [
        play(
            "dyna_q", "rljax/DynaMaze", 30, 50, planning_steps=n, gamma=0.95, learning_rate=0.1
        ).lengths[:, 1:].sum(axis=1).mean()
        for n in (0, 5, 50)
    ]  # fmt: skip
    np.testing.assert_allclose(totals, [4233, 1026, 843], rtol=0.15)


def test_the_random_walk():  # T12 to T15
    truth = jnp.arange(-9, 10) / 10

    def rms(state):
        return jnp.sqrt(jnp.square(state.agent.params.v[1:-1] - truth).mean())

    def run(name, **options):
        played = play(name, "rljax/RandomWalk", 600, 10, gamma=1.0, watch=rms, **options)
        return played.seen.mean()

    def close(name, expected, tolerance, **options):
        np.testing.assert_allclose(run(name, **options), expected, atol=tolerance)

    close("n_step_td", 0.2619, 0.012, n_step=4, learning_rate=0.4)
    close("lambda_return", 0.2595, 0.012, trace_lambda=0.8, learning_rate=0.4)
    close("td_lambda", 0.268, 0.02, trace_lambda=0.8, learning_rate=0.27)
    close("true_online_td_lambda", 0.278, 0.02, trace_lambda=0.8, learning_rate=0.27)
